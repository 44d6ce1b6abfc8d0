"""Records what a client of the demonstration decoded: raw pictures and sound, with their times.

Raw, because compressing would take processor time from the call that is being measured. A picture
is 345 600 bytes of yuv420p, sound is 48 kHz stereo int16.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from e2ecall.errors import MediaError
from e2ecall.media.counter import HEIGHT, WIDTH, Plane
from e2ecall.media.sinks import DecodedFrame
from e2ecall.protocol.messages import Stream

_PICTURE_SHAPE: Final = (HEIGHT * 3 // 2, WIDTH)
_PICTURE_BYTES: Final = _PICTURE_SHAPE[0] * _PICTURE_SHAPE[1]

StereoSamples = npt.NDArray[np.int16]


class RecordingSink:
    """Appends decoded frames to ``pictures.yuv`` and ``sound.pcm`` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._pictures = (folder / "pictures.yuv").open("wb")
        self._sound = (folder / "sound.pcm").open("wb")
        self.picture_times: list[float] = []
        """When each picture arrived, by the monotonic clock."""
        self.sound_at: float | None = None
        """When the first sound arrived."""

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:  # noqa: ARG002 - a `Sink`
        """Append a frame of the camera or the microphone."""
        now = time.monotonic()
        array = frame.to_ndarray()
        if stream is Stream.CAMERA:
            if array.shape != _PICTURE_SHAPE:
                raise MediaError(f"a picture of another size came: {array.shape}")
            self.picture_times.append(now)
            self._pictures.write(array.tobytes())
        elif stream is Stream.MICROPHONE:
            if self.sound_at is None:
                self.sound_at = now
            self._sound.write(array.tobytes())

    async def close(self) -> None:
        """Finish the files."""
        self._pictures.close()
        self._sound.close()


def recorded_pictures(folder: Path) -> Iterator[Plane]:
    """Yield the pictures that a sink recorded in ``folder``."""
    with (folder / "pictures.yuv").open("rb") as file:
        while len(data := file.read(_PICTURE_BYTES)) == _PICTURE_BYTES:
            yield np.frombuffer(data, np.uint8).reshape(_PICTURE_SHAPE)


def recorded_sound(folder: Path) -> StereoSamples:
    """Return the sound that a sink recorded in ``folder``: samples by 2."""
    samples = np.fromfile(folder / "sound.pcm", np.int16)
    return samples[: len(samples) // 2 * 2].reshape(-1, 2)


def mono(sound: StereoSamples) -> npt.NDArray[np.int16]:
    """Mix both channels."""
    mixed: npt.NDArray[np.int16] = (sound.astype(np.int32).sum(axis=1) // 2).astype(np.int16)
    return mixed
