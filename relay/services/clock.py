"""Whether the wall clock can be relied upon (spec/wire.md, Storage): what expires by it is gone.

It reads no clock: both times come in.
"""

from typing import Final

JUMP: Final = 300.0
"""Seconds by which the wall clock may move against a steady one between two looks."""
PATIENCE: Final = 3600.0
"""Seconds after a jump: whoever sets clocks has noticed by then, or it was meant."""


class ClockGuard:
    """Watches the wall clock, which anybody may set, by a clock that nobody can."""

    __slots__ = ("_ahead", "_since")

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._since = float("-inf")

    def is_steady(self, wall: float, steady: float) -> bool:
        """Tell whether the wall clock, at ``wall``, made no jump in the last hour of ``steady``."""
        ahead = wall - steady
        if self._ahead is not None and abs(ahead - self._ahead) > JUMP:
            self._since = steady
        self._ahead = ahead
        return steady - self._since >= PATIENCE
