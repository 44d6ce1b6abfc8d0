"""A frame number that survives a video codec: a strip of black and white blocks in the picture.

Used by generated pictures and by checks of what arrived. It knows pictures as numpy arrays only,
no codec and no file.

The strip fills the lowest 24 rows of a 640 x 360 picture: 40 blocks of 16 x 24 pixels, left to
right 4 sync bits (1010), 24 bits of frame number, most significant first, and 12 bits of CRC.
White is 1. The blocks lie on VP8's macroblock grid, so one block costs a handful of bits.
"""

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]

WIDTH: Final = 640
HEIGHT: Final = 360
STRIP_HEIGHT: Final = 24
STRIP_TOP: Final = HEIGHT - STRIP_HEIGHT
MAX_NUMBER: Final = 0xFF_FFFF
"""24 bits: six days at 30 frames a second."""

_BLOCK: Final = 16
_SYNC: Final = (1, 0, 1, 0)
_NUMBER_BITS: Final = 24
_CRC_BITS: Final = 12
_BLACK: Final = 32
_WHITE: Final = 220
_NEUTRAL: Final = 128
_MIN_CONTRAST: Final = 48
"""A strip that lost more than three quarters of its contrast is not trusted."""


def stamp(picture: Plane, number: int) -> None:
    """Draw the strip for ``number`` into a yuv420p picture (540 rows of 640 bytes), in place."""
    if picture.shape != (HEIGHT * 3 // 2, WIDTH):
        raise ValueError(f"a picture of 640 x 360 is needed, not an array of {picture.shape}")
    levels = np.where(_bits(number), _WHITE, _BLACK).astype(np.uint8)
    picture[STRIP_TOP:HEIGHT] = np.repeat(levels, _BLOCK)
    chroma = picture[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    chroma[:, STRIP_TOP // 2 :] = _NEUTRAL


def read(luma: Plane) -> int | None:
    """Return the frame number in a luma plane (at least 360 x 640), or None if none is legible."""
    strip = luma[STRIP_TOP:HEIGHT, :WIDTH].astype(np.float32)
    inner = strip.reshape(STRIP_HEIGHT, -1, _BLOCK)[6:-6, :, 4:-4]
    levels = inner.mean(axis=(0, 2))
    sync = levels[: len(_SYNC)]
    white, black = float(sync[0::2].min()), float(sync[1::2].max())
    if white - black < _MIN_CONTRAST:
        return None
    bits = (levels > (white + black) / 2).astype(np.uint8)
    number = _value(bits[len(_SYNC) : len(_SYNC) + _NUMBER_BITS])
    return number if np.array_equal(bits, _bits(number)) else None


def _bits(number: int) -> Plane:
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError("a frame number has 24 bits")
    word = number << _CRC_BITS | _crc(number)
    length = _NUMBER_BITS + _CRC_BITS
    bits = [word >> (length - 1 - place) & 1 for place in range(length)]
    return np.array([*_SYNC, *bits], np.uint8)


def _crc(number: int) -> int:
    """Return the upper 12 bits of CRC-32 over the number's four bytes, big-endian."""
    return zlib.crc32(number.to_bytes(4)) >> (32 - _CRC_BITS)


def _value(bits: Plane) -> int:
    return int("".join(str(bit) for bit in bits.tolist()), 2)
