"""How much one allocation may send (spec/turn.md TURN-46).

A token bucket that looks at the clock only when it seems empty, as it is asked for each packet.
It drops nothing itself and imports nothing: the processes that forward use it as well.
"""

from typing import Final

BURST_SECONDS: Final = 0.5
"""Of the rate: a key frame of video goes out at once."""


class Bandwidth:
    """What is left for one sender; ``rate`` is in bytes a second.

    In any span of t seconds at most ``rate * (t + 2 * BURST_SECONDS)`` bytes are granted.
    """

    __slots__ = ("_left", "_since")

    def __init__(self, now: float, rate: float) -> None:
        self._left = rate * BURST_SECONDS
        self._since = now

    def take(self, now: float, size: int, rate: float) -> bool:
        """Take ``size`` bytes, or nothing and return False."""
        left = self._left - size
        if left < 0:
            left = min(left + (now - self._since) * rate, rate * BURST_SECONDS - size)
            self._since = now
            if left < 0:
                self._left = left + size
                return False
        self._left = left
        return True
