"""What is said and shown in a measured call, made before it: nothing is drawn while it runs.

Both contestants read the same files. The pictures go forth and back without end, each with its
number's strip; the sound never repeats, so that a received stretch has one place in it.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from e2ecall.media.counter import HEIGHT, WIDTH, Plane, stamp
from e2ecall.media.scene import RATE, Scene
from e2ecall.media.sources import SAMPLE_RATE, SAMPLES_PER_FRAME, Samples
from e2ecall.media.voice import Voice

PICTURES: Final = 150
SECONDS: Final = 60
"""Of sound; a call is shorter."""

_ROWS: Final = HEIGHT * 3 // 2


class Material:
    """Pictures and sound in a folder that `make` has filled."""

    def __init__(self, folder: Path) -> None:
        shape = (PICTURES, _ROWS, WIDTH)
        self._pictures = np.memmap(folder / "pictures", np.uint8, "r", shape=shape)
        self.sound: Samples = np.fromfile(folder / "sound", np.int16)

    def picture(self, number: int) -> Plane:
        """Return picture ``number`` as yuv420p, 640 x 360."""
        place = number % (2 * PICTURES - 2)
        picture: Plane = np.array(self._pictures[min(place, 2 * PICTURES - 2 - place)])
        stamp(picture, number)
        return picture

    def samples(self, number: int) -> Samples:
        """Return the 20 ms of sound with this number."""
        start = number * SAMPLES_PER_FRAME
        return self.sound[start : start + SAMPLES_PER_FRAME]


def make(folder: Path, seed: int = 1) -> Material:
    """Draw everything; takes some seconds."""
    scene = Scene(seed)
    pictures: npt.NDArray[np.uint8] = np.stack([scene.frame(n) for n in range(PICTURES)])
    pictures.tofile(folder / "pictures")
    Voice(seed).samples(0, SECONDS * SAMPLE_RATE).tofile(folder / "sound")
    return Material(folder)


__all__ = ["RATE", "Material", "make"]
