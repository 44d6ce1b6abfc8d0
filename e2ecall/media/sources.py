"""Where the media that is sent comes from (spec/media.md, "Sources").

A source is read by one thread of the media engine, never by two at once and never by the event
loop: it may block for as long as a frame lasts. It does not encode, pace or encrypt.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
from av import AudioFrame, VideoFrame
from numpy.typing import NDArray

SAMPLE_RATE: Final = 48_000
"""Samples a second of all audio: the only rate of the Opus RTP clock (RFC 7587)."""

SAMPLES_PER_FRAME: Final = 960
"""Samples of one audio frame: 20 ms."""

VIDEO_CLOCK: Final = 90_000
"""Ticks a second of the RTP clock of video (RFC 7741)."""

MAX_FRAME_RATE: Final = 60

_AUDIO_TIME_BASE: Final = Fraction(1, SAMPLE_RATE)


@runtime_checkable
class AudioSource(Protocol):
    """Sound to send: frames of 20 ms, 960 samples, 48 kHz, mono, ``s16``."""

    def read(self) -> AudioFrame | None:
        """Return the next frame, or None for good when the source has ended.

        The engine asks 50 times a second and falls silent after the end or after an exception.
        """
        ...

    def close(self) -> None:
        """Release what the source holds and make a blocked `read` return. May come twice."""
        ...


@runtime_checkable
class VideoSource(Protocol):
    """A picture to send. Frames may change their size; odd sizes are scaled to even ones."""

    @property
    def frame_rate(self) -> int:
        """Frames a second, 1 to `MAX_FRAME_RATE`; read once, before the first frame."""
        ...

    def read(self) -> VideoFrame | None:
        """Return the next frame, or None for good when the source has ended.

        The engine asks `frame_rate` times a second, one call for every frame it sends. After the
        end, or after an exception, it goes on with a black picture.
        """
        ...

    def close(self) -> None:
        """Release what the source holds and make a blocked `read` return. May come twice."""
        ...


@runtime_checkable
class Repeatable(Protocol):
    """A video source that can be opened once more after it was closed, as a camera is."""

    def again(self) -> VideoSource:
        """Return a fresh source of the same picture; may block while a device opens.

        Raises:
            MediaError: it cannot be opened any more.
        """
        ...


Source: TypeAlias = AudioSource | VideoSource

Samples: TypeAlias = NDArray[np.int16]
Picture: TypeAlias = NDArray[np.uint8]


def audio_frame(samples: Samples) -> AudioFrame:
    """Wrap 960 samples as the engine's audio frame."""
    if samples.shape != (SAMPLES_PER_FRAME,) or samples.dtype != np.int16:
        raise ValueError(f"an audio frame is {SAMPLES_PER_FRAME} samples of int16")
    frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.time_base = _AUDIO_TIME_BASE
    return frame


def silence() -> AudioFrame:
    """Return 20 ms of silence."""
    return audio_frame(np.zeros(SAMPLES_PER_FRAME, dtype=np.int16))


def black(width: int, height: int) -> VideoFrame:
    """Return a black picture of an even size."""
    planes = np.full((height * 3 // 2, width), 16, dtype=np.uint8)
    planes[height:] = 128  # neutral chroma of yuv420p
    return VideoFrame.from_ndarray(planes, format="yuv420p")


class GeneratedAudio:
    """Sound made by a function: ``samples(n)`` returns the 960 int16 samples of frame ``n``.

    With ``frames`` the source ends after that many.
    """

    def __init__(self, samples: Callable[[int], Samples], *, frames: int | None = None) -> None:
        self._samples = samples
        self._frames = frames
        self._next = 0

    def read(self) -> AudioFrame | None:
        """Return frame ``n``, then the next; see `AudioSource.read`."""
        if self._frames is not None and self._next >= self._frames:
            return None
        frame = audio_frame(self._samples(self._next))
        self._next += 1
        return frame

    def close(self) -> None:
        """End the source."""
        self._frames = 0


class GeneratedVideo:
    """A picture made by a function: ``picture(n)`` returns the uint8 array of frame ``n``.

    ``pixel_format`` is PyAV's name of the array's layout: ``rgb24`` (height, width, 3) or
    ``yuv420p`` (height * 3 / 2, width). With ``frames`` the source ends after that many.
    """

    def __init__(
        self,
        picture: Callable[[int], Picture],
        *,
        frame_rate: int = 30,
        pixel_format: str = "yuv420p",
        frames: int | None = None,
    ) -> None:
        if not 1 <= frame_rate <= MAX_FRAME_RATE:
            raise ValueError(f"the frame rate is 1 to {MAX_FRAME_RATE}")
        self._picture = picture
        self._frame_rate = frame_rate
        self._pixel_format = pixel_format
        self._frames = frames
        self._next = 0

    @property
    def frame_rate(self) -> int:
        """Frames a second."""
        return self._frame_rate

    def read(self) -> VideoFrame | None:
        """Return frame ``n``, then the next; see `VideoSource.read`."""
        if self._frames is not None and self._next >= self._frames:
            return None
        array: NDArray[Any] = self._picture(self._next)
        self._next += 1
        return VideoFrame.from_ndarray(array, format=self._pixel_format)

    def close(self) -> None:
        """End the source."""
        self._frames = 0
