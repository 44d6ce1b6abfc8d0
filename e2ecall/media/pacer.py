"""When the next frame is due, and its RTP timestamp. Sans-I/O: ``now`` is in seconds."""

from typing import Final

MAX_LAG: Final = 0.5
"""Seconds of delay that are caught up by sending faster; after a longer stall the schedule moves.
Either way no frame of the source is left out."""


class Pacer:
    """A steady schedule; timestamps follow the clock also across a stall."""

    def __init__(self, *, clock: int, ticks_per_frame: int) -> None:
        self._clock = clock
        self._ticks_per_frame = ticks_per_frame
        self._start: float | None = None
        self._ticks = 0

    def change(self, ticks_per_frame: int) -> None:
        """Go on at another rate, from the next frame on."""
        self._ticks_per_frame = ticks_per_frame

    def next(self, now: float) -> tuple[float, int]:
        """Return the seconds to wait for the next frame and its timestamp in clock ticks."""
        if self._start is None:
            self._start = now
            return 0.0, 0
        self._ticks += self._ticks_per_frame
        wait = self._start + self._ticks / self._clock - now
        if wait < -MAX_LAG:
            self._ticks += int(-wait * self._clock)
            wait = 0.0
        return max(wait, 0.0), self._ticks
