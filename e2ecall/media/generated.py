"""Generated media as sources: a moving picture with frame numbers and a speech-like sound.

For demonstrations and tests; what they show and say is `scene` and `voice`. What a source has
sent can be made again from the same `Pictures` or `Sounds`, which is how a receiver is checked.
"""

from collections.abc import Callable
from typing import Protocol

from e2ecall.media import scene, voice
from e2ecall.media.counter import Plane
from e2ecall.media.sources import SAMPLES_PER_FRAME, GeneratedAudio, GeneratedVideo, Samples


class Pictures(Protocol):
    """Numbered pictures of 640 x 360 as yuv420p arrays, each with its number's strip."""

    def frame(self, number: int) -> Plane:
        """Return picture ``number``; the same number always gives the same bytes."""
        ...


class Sounds(Protocol):
    """A mono sound of 48 kHz that can be asked for in any order."""

    def samples(self, start: int, count: int) -> Samples:
        """Return ``count`` samples from sample number ``start`` on."""
        ...


def video_source(
    pictures: Pictures, *, on_frame: Callable[[int], None] | None = None
) -> GeneratedVideo:
    """Return a source that sends ``pictures`` from 0 on at 30 a second.

    ``on_frame(number)`` is called, on the engine's reading thread, when the engine takes a frame.
    """

    def picture(number: int) -> Plane:
        array = pictures.frame(number)
        if on_frame is not None:
            on_frame(number)
        return array

    return GeneratedVideo(picture, frame_rate=scene.RATE)


def audio_source(sounds: Sounds) -> GeneratedAudio:
    """Return a source that sends ``sounds`` from the first sample on."""
    return GeneratedAudio(
        lambda number: sounds.samples(number * SAMPLES_PER_FRAME, SAMPLES_PER_FRAME)
    )


def moving_picture(seed: int, caption: str = "e2ecall") -> GeneratedVideo:
    """Return the landscape of ``seed`` as a source: 640 x 360, 30 frames a second."""
    return video_source(scene.Scene(seed, caption))


def speech_like_sound(seed: int) -> GeneratedAudio:
    """Return the voice of ``seed`` as a source: 48 kHz, mono."""
    return audio_source(voice.Voice(seed))
