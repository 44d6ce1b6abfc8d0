"""Notes of both ends of a measured call: when what was read, and when what was seen and heard.

Times are of `time.monotonic`, which all processes of a machine share.
"""

import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from av import AudioFrame, VideoFrame

from e2ecall.media.counter import HEIGHT, WIDTH, Plane
from e2ecall.media.sources import Samples

KEPT_EVERY: Final = 3
"""Of the pictures seen, every third is kept to be looked at; all of them are counted."""

LONG: Final = 0.099
"""Seconds; a picture followed by one so much later, by either clock, is kept in any case."""


@dataclass
class Sent:
    """When each picture and each 20 ms of sound were read, by their numbers."""

    pictures: list[float] = field(default_factory=list)
    sounds: list[float] = field(default_factory=list)
    sframe: list[int] = field(default_factory=list)
    """Nanoseconds of CPU for each frame that was encrypted or decrypted; of `counted` alone."""


@dataclass
class Seen:
    """What came out of the decoders: the time, and the sender's time in seconds."""

    pictures: list[tuple[float, float]] = field(default_factory=list)
    kept: dict[int, Plane] = field(default_factory=dict)
    """Luma, 640 x 360, of some pictures by their place in ``pictures``."""
    sounds: list[tuple[float, float, Samples]] = field(default_factory=list)


class Witness:
    """Takes what a callee sees and hears; called by both contestants alike."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._kept: dict[int, VideoFrame] = {}
        self._last: tuple[float, float, VideoFrame] | None = None

    def picture(self, frame: VideoFrame, sent: float) -> None:
        """Take a decoded picture with the sender's time of it, in seconds from any start."""
        place, now = len(self.seen.pictures), time.monotonic()
        self.seen.pictures.append((now, sent))
        if place % KEPT_EVERY == 0:
            self._kept[place] = frame
        if self._last is not None and max(sent - self._last[0], now - self._last[1]) > LONG:
            self._kept[place - 1] = self._last[2]
        self._last = sent, now, frame

    def sound(self, frame: AudioFrame, sent: float) -> None:
        """Take decoded sound: stereo of 48 kHz, of which the left channel is kept."""
        left = frame.to_ndarray().reshape(-1, 2)[:, 0].astype(np.int16)
        self.seen.sounds.append((time.monotonic(), sent, left))

    def save(self, path: Path) -> None:
        """Write the notes, after the call: scaling takes time."""
        if self._last is not None:
            self._kept[len(self.seen.pictures) - 1] = self._last[2]
        for place, frame in self._kept.items():
            whole = frame.reformat(width=WIDTH, height=HEIGHT, format="yuv420p").to_ndarray()
            self.seen.kept[place] = whole[:HEIGHT].astype(np.uint8)
        path.write_bytes(pickle.dumps(self.seen))


def load(path: Path) -> Seen:
    """Return the notes of a callee, written by a child of ours."""
    seen: Seen = pickle.loads(path.read_bytes())
    return seen
