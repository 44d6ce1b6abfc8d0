"""Sources that play a file once or in a loop (spec/media.md, "Sources").

They decode as they go, so that a long file costs no memory. They neither seek nor mix.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av
from av import AudioFrame, AudioResampler, VideoFrame

from e2ecall.errors import MediaError
from e2ecall.media.sources import MAX_FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

_MAX_WIDTH: Final = 1280
_FALLBACK_RATE: Final = 30


class FileAudio:
    """The first sound track of a file.

    Raises:
        MediaError: the file cannot be read or has no sound.
    """

    def __init__(self, path: Path | str, *, loop: bool = False) -> None:
        self._file = _File(Path(path), "audio")
        self._loop = loop
        self._frames = self._decode()

    def read(self) -> AudioFrame | None:
        """Return the next 20 ms; see `AudioSource.read`."""
        with self._file.lock:
            return None if self._file.closed else next(self._frames, None)

    def close(self) -> None:
        """Close the file, after a `read` that is under way."""
        self._file.close()

    def _decode(self) -> Iterator[AudioFrame]:
        yielded = True
        while yielded and not self._file.closed:
            yielded = False
            resampler = AudioResampler("s16", "mono", SAMPLE_RATE, frame_size=SAMPLES_PER_FRAME)
            for frame in self._file.container().decode(audio=0):
                for part in resampler.resample(frame):
                    yielded = True
                    yield part
            # What is left in the resampler is less than a frame, and a call needs whole ones.
            if not self._loop:
                return


class FileVideo:
    """The first picture track of a file, at most 1 280 pixels wide and 60 pictures a second.

    Raises:
        MediaError: the file cannot be read or has no picture.
    """

    def __init__(self, path: Path | str, *, loop: bool = False) -> None:
        self._file = _File(Path(path), "video")
        self._loop = loop
        rate = self._file.container().streams.video[0].average_rate
        rate_value = float(rate) if rate else float(_FALLBACK_RATE)
        self._every = max(1, round(rate_value / MAX_FRAME_RATE))
        self._frame_rate = min(max(round(rate_value / self._every), 1), MAX_FRAME_RATE)
        self._frames = self._decode()

    def again(self) -> "FileVideo":
        """Play the file from its beginning; see `Repeatable`."""
        return FileVideo(self._file.path, loop=self._loop)

    @property
    def frame_rate(self) -> int:
        """Frames a second, as the file says."""
        return self._frame_rate

    def read(self) -> VideoFrame | None:
        """Return the next picture; see `VideoSource.read`."""
        with self._file.lock:
            return None if self._file.closed else next(self._frames, None)

    def close(self) -> None:
        """Close the file, after a `read` that is under way."""
        self._file.close()

    def _decode(self) -> Iterator[VideoFrame]:
        yielded = True
        while yielded and not self._file.closed:
            yielded = False
            for number, frame in enumerate(self._file.container().decode(video=0)):
                if number % self._every == 0:
                    yielded = True
                    yield fitted(frame)
            if not self._loop:
                return


class _File:
    """A container that can be opened again from its beginning."""

    def __init__(self, path: Path, kind: str) -> None:
        # PyAV must not close a container that another thread decodes.
        self.lock = threading.Lock()
        self.closed = False
        self.path = path
        self._container = self._open()
        if not getattr(self._container.streams, kind):
            self._container.close()
            raise MediaError(f"{path.name} has no {kind} track")
        self._fresh = True

    def container(self) -> av.container.InputContainer:
        """Return the file, from its beginning after the first time."""
        if not self._fresh:
            self._container.close()
            self._container = self._open()
        self._fresh = False
        return self._container

    def close(self) -> None:
        with self.lock:
            self.closed = True
            self._container.close()

    def _open(self) -> av.container.InputContainer:
        try:
            return av.open(str(self.path), mode="r")
        except (OSError, av.FFmpegError) as error:
            raise MediaError(f"{self.path.name} cannot be read as media") from error


def fitted(frame: VideoFrame) -> VideoFrame:
    """Return the picture at a size that a call can send: even, and at most 1 280 pixels wide."""
    width = min(frame.width, _MAX_WIDTH) & ~1
    height = round(frame.height * width / frame.width) & ~1
    return frame.reformat(width=max(width, 2), height=max(height, 2), format="yuv420p")
