"""The contact sheet: what the callee decoded, sixteen pictures at a glance.

It lays out arrays; scaling pictures and writing PNG files is `e2ecall.media.files`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from e2ecall.media.counter import Plane
from e2ecall.media.files import thumbnail
from e2ecall.media.glyphs import text_mask

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

COLUMNS: Final = 4
CELLS: Final = 16

_WIDTH: Final = 320
_HEIGHT: Final = 180
_MARGIN: Final = 20
_LABEL: Final = 34
_HEADER: Final = 96
_PAPER: Final[Colour] = (18, 22, 30)
_INK: Final[Colour] = (236, 238, 242)
_FAINT: Final[Colour] = (140, 150, 168)


@dataclass(frozen=True, slots=True)
class Shot:
    """A decoded picture with its number, its arrival (seconds) and its likeness in dB."""

    picture: Plane
    number: int | None
    seconds: float
    psnr_db: float


def chosen(count: int) -> list[int]:
    """Return the places of at most `CELLS` pictures out of ``count``, first and last included."""
    if count <= CELLS:
        return list(range(count))
    return [round(cell * (count - 1) / (CELLS - 1)) for cell in range(CELLS)]


def draw(title: str, subtitle: str, shots: Sequence[Shot]) -> Image:
    """Return the sheet as an RGB array; both lines in capitals, digits and signs of the font."""
    lines = max(1, -(-len(shots) // COLUMNS))
    width = _MARGIN + COLUMNS * (_WIDTH + _MARGIN)
    height = _HEADER + lines * (_HEIGHT + _LABEL + _MARGIN)
    sheet = np.empty((height, width, 3), np.uint8)
    sheet[:] = _PAPER
    _write(sheet, title, _MARGIN, 24, 4, _INK)
    _write(sheet, subtitle, _MARGIN, 66, 2, _FAINT)
    for place, shot in enumerate(shots):
        row, column = divmod(place, COLUMNS)
        x = _MARGIN + column * (_WIDTH + _MARGIN)
        y = _HEADER + row * (_HEIGHT + _LABEL + _MARGIN)
        sheet[y : y + _HEIGHT, x : x + _WIDTH] = thumbnail(shot.picture, _WIDTH, _HEIGHT)
        number = "NOT READABLE" if shot.number is None else f"#{shot.number:06}"
        _write(sheet, number, x, y + _HEIGHT + 10, 2, _INK)
        detail = f"{shot.seconds:.2f} S  {shot.psnr_db:.1f} DB"
        right = x + _WIDTH - text_mask(detail, 2).shape[1]
        _write(sheet, detail, right, y + _HEIGHT + 10, 2, _FAINT)
    return sheet


def _write(image: Image, text: str, x: int, y: int, scale: int, colour: Colour) -> None:
    mask = text_mask(text, scale)[:, : image.shape[1] - x]
    image[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = colour
