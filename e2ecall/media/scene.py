"""A painted, moving landscape: every frame follows from the seed and the frame's number alone.

Hills in three depths pass by under a sun, balloons drift, and the frame's number stands in the
picture twice: as text for people, as a strip for programs (`counter`). Smooth and predictable, so
that a real-time encoder shows it well. It produces numpy arrays; frames of a codec library are
`generated`'s business.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from e2ecall.media.counter import HEIGHT, STRIP_TOP, WIDTH, Plane, stamp
from e2ecall.media.glyphs import Mask, text_mask

RATE: Final = 30
"""Frames a second of every generated picture."""

Array = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

_PERIOD: Final = 2 * WIDTH
"""Hills repeat after two picture widths; the frame numbers never do."""

_ZENITH: Final[Colour] = (70, 158, 116)
_HORIZON: Final[Colour] = (196, 96, 158)
_HILLS: Final[tuple[tuple[Colour, int, int, int], ...]] = (
    # colour, mean height of the ridge, its swing, pixels a second
    ((126, 134, 128), 190, 34, 30),
    ((92, 128, 118), 240, 30, 60),
    ((58, 120, 112), 290, 22, 120),
)
_SUN: Final[Colour] = (226, 72, 158)
_BALLOONS: Final[tuple[tuple[Colour, Colour, int], ...]] = (
    # two colours of the envelope, radius
    ((120, 96, 204), (222, 118, 134), 44),
    ((142, 176, 84), (214, 124, 132), 30),
    ((176, 60, 160), (90, 150, 120), 22),
)


@dataclass(frozen=True, slots=True)
class _Sprite:
    """A shape with soft edges; alpha runs from 0 to 256."""

    luma: npt.NDArray[np.int32]
    chroma: npt.NDArray[np.int32]  # 2 x half height x half width
    alpha: npt.NDArray[np.int32]
    half_alpha: npt.NDArray[np.int32]


class Scene:
    """The landscape of one seed. Two scenes of different seeds share no picture.

    ``caption`` is drawn above the frame's number (capitals and digits, at most 24 characters).
    """

    def __init__(self, seed: int, caption: str = "e2ecall") -> None:
        draw = np.random.default_rng([seed, 0x5CE])
        self._caption = text_mask(caption[:24], 2)
        self._sky = _sky(draw)
        self._ridges = [_ridge(draw, *shape[:3]) for shape in _HILLS]
        self._balloons = [_balloon(*shape) for shape in _BALLOONS]
        # A third of a turn apart, so that they begin side by side.
        apart = np.arange(len(_BALLOONS))[:, None] * 2 * np.pi / len(_BALLOONS)
        self._paths = apart + draw.uniform(0.0, 2 * np.pi, 2)
        self._starts = draw.integers(0, _PERIOD // 2, len(_HILLS)) * 2

    def frame(self, number: int) -> Plane:
        """Paint frame ``number`` as a yuv420p array: 540 rows of 640 bytes (360 of luma)."""
        picture = self._sky.copy()
        for index, balloon in enumerate(self._balloons):
            _blend(picture, balloon, *self._place(index, number))
        for (_, _, _, speed), ridge, start in zip(_HILLS, self._ridges, self._starts, strict=True):
            shift = (int(start) + number * speed // RATE) // 2 * 2 % _PERIOD
            _blend(picture, _window(ridge, shift), 0, STRIP_TOP - ridge.alpha.shape[0])
        seconds, rest = divmod(number, RATE)
        clock = f"{seconds // 60:02}:{seconds % 60:02}.{rest * 100 // RATE:02}"
        _write(picture, self._caption, 20, 16)
        _write(picture, text_mask(f"{number:06}", 4), 20, 38)
        _write(picture, text_mask(clock, 2), 20, 74)
        stamp(picture, number)
        return picture

    def _place(self, index: int, number: int) -> tuple[int, int]:
        """Return the even position of a balloon: slow Lissajous figures that never close."""
        time = number / RATE
        across, up = self._paths[index]
        x = 0.66 + 0.28 * np.sin(across + time * (0.34 + 0.11 * index))
        y = 0.30 + 0.22 * np.sin(up + time * (0.52 - 0.09 * index))
        rows, columns = self._balloons[index].alpha.shape
        return int(x * WIDTH - columns / 2) // 2 * 2, int(y * STRIP_TOP - rows / 2) // 2 * 2


def _sky(draw: np.random.Generator) -> Plane:
    """Return a picture of a gradient with a glowing sun."""
    picture = np.empty((HEIGHT * 3 // 2, WIDTH), np.uint8)
    luma, chroma = _planes(picture)
    down = np.linspace(0.0, 1.0, HEIGHT)[:, None]
    luma[:] = _mix(_ZENITH[0], _HORIZON[0], down).astype(np.uint8)
    for plane in (0, 1):
        chroma[plane] = _mix(_ZENITH[plane + 1], _HORIZON[plane + 1], down[::2]).astype(np.uint8)
    centre = int(draw.integers(WIDTH // 2, WIDTH - 120)) // 2 * 2
    _blend(picture, _sun(), centre - 160, 120 - 160)
    return picture


def _sun() -> _Sprite:
    y, x = np.mgrid[-160:160, -160:160]
    distance = np.hypot(x, y)
    disc = np.clip(36.0 - distance, 0.0, 1.0)
    glow = 0.55 * np.clip(1.0 - distance / 160.0, 0.0, 1.0) ** 2
    return _sprite(np.full_like(distance, _SUN[0]), _SUN, np.maximum(disc, glow))


def _ridge(draw: np.random.Generator, colour: Colour, height: int, swing: int) -> _Sprite:
    """Return a periodic panorama of one line of hills, one picture longer than its period."""
    x = np.arange(_PERIOD + WIDTH)
    waves = zip((1, 2, 3, 5, 7), draw.uniform(0, 2 * np.pi, 5), strict=True)
    ridge = sum(np.sin(2 * np.pi * k * x / _PERIOD + phase) / k for k, phase in waves)
    top = (height - 1.7 * swing) // 2 * 2
    y = np.arange(int(top), STRIP_TOP)[:, None]
    depth = y - (height + swing * np.asarray(ridge)[None, :] / 1.6)
    shade = colour[0] + 26.0 * np.exp(-np.clip(depth, 0.0, None) / 18.0)
    return _sprite(shade, colour, np.clip(depth + 0.5, 0.0, 1.0))


def _balloon(first: Colour, second: Colour, radius: int) -> _Sprite:
    """Return a hot-air balloon: a striped, lit envelope above a basket."""
    y, x = np.mgrid[-radius : 2 * radius : 1, -radius:radius:1].astype(np.float64)
    below = np.clip(y / radius, 0.0, 1.6)
    width = radius * np.sqrt(np.clip(1.0 - np.minimum(y / radius, 0.0) ** 2, 0.0, 1.0))
    width = np.where(y > 0, radius * np.clip(1.0 - 0.62 * below**1.5, 0.0, 1.0), width)
    envelope = np.clip(width - np.abs(x), 0.0, 1.0) * (y < radius * 1.25)
    basket = (np.abs(x) < radius / 5) & (y > radius * 1.5) & (y < radius * 1.85)
    alpha = np.maximum(envelope, basket)
    turn = np.arcsin(np.clip(x / np.maximum(width, 1.0), -1.0, 1.0))
    stripe = (np.sin(turn * 5.0) > 0) & ~basket
    light = 0.72 + 0.38 * np.cos(turn + 0.6)
    luma = np.where(basket, 60.0, np.where(stripe, first[0], second[0]) * light)
    sprite = _sprite(luma, first, alpha)
    colours = np.where(stripe, np.array(first)[1:, None, None], np.array(second)[1:, None, None])
    return _Sprite(
        sprite.luma, colours[:, ::2, ::2].astype(np.int32), sprite.alpha, sprite.half_alpha
    )


def _sprite(luma: Array, colour: Colour, alpha: Array) -> _Sprite:
    scaled = np.rint(alpha * 256.0).astype(np.int32)
    rows, columns = alpha.shape
    half = scaled.reshape(rows // 2, 2, columns // 2, 2).sum(axis=(1, 3)) // 4
    chroma = np.broadcast_to(np.array(colour[1:], np.int32)[:, None, None], (2, *half.shape))
    return _Sprite(np.clip(luma, 16, 235).astype(np.int32), chroma, scaled, half)


def _window(panorama: _Sprite, shift: int) -> _Sprite:
    full, half = slice(shift, shift + WIDTH), slice(shift // 2, (shift + WIDTH) // 2)
    return _Sprite(
        panorama.luma[:, full],
        panorama.chroma[:, :, half],
        panorama.alpha[:, full],
        panorama.half_alpha[:, half],
    )


def _blend(picture: Plane, sprite: _Sprite, x: int, y: int) -> None:
    """Lay a sprite over a picture at an even position; what falls outside is cut off."""
    luma, chroma = _planes(picture)
    _lay(luma, sprite.luma, sprite.alpha, x, y)
    for plane in (0, 1):
        _lay(chroma[plane], sprite.chroma[plane], sprite.half_alpha, x // 2, y // 2)


def _lay(
    plane: Plane, values: npt.NDArray[np.int32], alpha: npt.NDArray[np.int32], x: int, y: int
) -> None:
    rows, columns = values.shape
    top, left = max(-y, 0), max(-x, 0)
    bottom, right = min(rows, plane.shape[0] - y), min(columns, plane.shape[1] - x)
    if top >= bottom or left >= right:
        return
    target = plane[y + top : y + bottom, x + left : x + right]
    weight = alpha[top:bottom, left:right]
    difference = values[top:bottom, left:right] - target
    target += (difference * weight >> 8).astype(np.uint8)  # wraps around to the exact sum


def _write(picture: Plane, mask: Mask, x: int, y: int) -> None:
    """Draw bright text with a shadow, so that it reads on any background."""
    rows, columns = mask.shape
    for shift, level in ((2, 24), (0, 235)):
        area = picture[y + shift : y + shift + rows, x + shift : x + shift + columns]
        area[mask] = level


def _planes(picture: Plane) -> tuple[Plane, Plane]:
    """Return views of the luma (360 x 640) and both chroma planes (2 x 180 x 320)."""
    return picture[:HEIGHT], picture[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)


def _mix(first: float, second: float, weight: Array) -> Array:
    return first + (second - first) * weight
