"""Which size and frequency of pictures suits a bitrate (spec/media.md, "Video"). Sans-I/O.

Below a few hundredths of a bit for each pixel VP8 shows blocks, and then sends more than it may:
a smaller picture is better than such a one.
"""

from typing import Final, NamedTuple

MIN_BITS_PER_PIXEL: Final = 0.04
"""What a picture needs; VP8's coarsest quantiser takes 0.035 for a textured moving one."""

MAX_BITS_PER_PIXEL: Final = 0.2
"""What a picture has use for; more would be spent on noise."""

UP_MARGIN: Final = 1.3
"""A larger picture must fit this many times over."""

DOWN_AFTER: Final = 1.0
"""Seconds for which a rate must have been too low: each step costs a key frame."""

UP_AFTER: Final = 5.0
"""Seconds between a step and the next one up."""


class Rung(NamedTuple):
    """A size in eighths of the source's, and every how many-th of its pictures is sent."""

    eighths: int
    every: int


RUNGS: Final = (Rung(8, 1), Rung(6, 1), Rung(4, 1), Rung(4, 2), Rung(3, 2), Rung(2, 2))
"""From the whole picture down. Size goes first: movement is what people notice."""


class Ladder:
    """Keeps the current rung for one source."""

    def __init__(self) -> None:
        self._at = 0
        self._changed_at = float("-inf")
        self._low_since: float | None = None

    def choose(self, bit_rate: int, pixel_rate: int, now: float) -> Rung:
        """Return the rung for a bitrate; ``pixel_rate`` is the source's pixels a second."""
        if self._at + 1 < len(RUNGS) and bit_rate < _needed(self._at, pixel_rate):
            self._low_since = now if self._low_since is None else self._low_since
            if now - self._low_since >= DOWN_AFTER:
                self._move(_fitting(bit_rate, pixel_rate), now)
        else:
            self._low_since = None
            above = self._at - 1
            waited = now - self._changed_at >= UP_AFTER
            if above >= 0 and waited and bit_rate >= UP_MARGIN * _needed(above, pixel_rate):
                self._move(above, now)
        return RUNGS[self._at]

    def _move(self, rung: int, now: float) -> None:
        self._at, self._changed_at, self._low_since = rung, now, None


def useful(bit_rate: int, pixel_rate: int) -> int:
    """Return the part of a bitrate for which pictures of so many pixels a second have use."""
    return min(bit_rate, max(int(MAX_BITS_PER_PIXEL * pixel_rate), 1))


def scaled(width: int, height: int, rung: Rung) -> tuple[int, int]:
    """Return the even size of a picture on a rung."""
    return (
        max(width * rung.eighths // 8 & ~1, 2),
        max(height * rung.eighths // 8 & ~1, 2),
    )


def _needed(rung: int, pixel_rate: int) -> float:
    eighths, every = RUNGS[rung]
    return MIN_BITS_PER_PIXEL * pixel_rate * eighths * eighths / 64 / every


def _fitting(bit_rate: int, pixel_rate: int) -> int:
    fitting = (at for at in range(len(RUNGS)) if bit_rate >= _needed(at, pixel_rate))
    return next(fitting, len(RUNGS) - 1)
