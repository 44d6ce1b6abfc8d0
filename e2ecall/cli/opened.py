"""Opens what a call sends and where it plays: devices and files, as the options name them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from e2ecall.cli.media import DEFAULT_DEVICE, NO_DEVICE, MediaOptions
from e2ecall.errors import MediaError
from e2ecall.media.capture import Camera, Screen
from e2ecall.media.playback import FileAudio, FileVideo
from e2ecall.media.recorder import RecorderSink
from e2ecall.media.sinks import Sink, TeeSink
from e2ecall.media.sound import Lost, Microphone, Speaker
from e2ecall.media.sources import AudioSource, VideoSource

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Media:
    """The open sources of one call, and where goes what is received."""

    audio: AudioSource | None = None
    video: VideoSource | None = None
    screen: VideoSource | None = None
    output: Sink | None = None
    notes: tuple[str, ...] = ()
    """What the user should know: which devices were looked for in vain."""


@contextmanager
def open_media(options: MediaOptions, *, live: bool, on_lost: Lost | None) -> Iterator[Media]:
    """Yield the media of one call; see `MediaOptions.open`."""
    with ExitStack() as stack:
        notes: list[str] = []
        audio: AudioSource | None
        if options.audio is not None:
            audio = FileAudio(options.audio)
        else:
            audio = _device(options.microphone, Microphone, live, on_lost, notes)
        if audio is not None:
            stack.callback(audio.close)
        video = open_picture(options, on_lost) if options.video or options.camera else None
        if video is not None:
            stack.callback(video.close)
        screen = None if options.screen is None else open_screen(options, on_lost)
        if screen is not None:
            stack.callback(screen.close)
        speaker = _device(options.speaker, Speaker, live, on_lost, notes)
        if speaker is not None:
            stack.callback(speaker.stop)
        recorder = None if options.record is None else RecorderSink(_free(options.record))
        yield Media(audio, video, screen, _both(speaker, recorder), tuple(notes))


def open_picture(options: MediaOptions, on_lost: Lost | None = None) -> VideoSource:
    """Open the file or the camera whose picture is sent.

    Raises:
        MediaError: it cannot be opened.
    """
    if options.video is not None:
        return FileVideo(options.video)
    return Camera(_name(options.camera), on_lost=on_lost)


def open_screen(options: MediaOptions, on_lost: Lost | None = None) -> VideoSource:
    """Open the film or the screen that is shared.

    Raises:
        MediaError: it cannot be opened.
    """
    if options.screen in {None, DEFAULT_DEVICE}:
        return Screen(on_lost=on_lost)
    return FileVideo(options.screen)


def _device(
    wanted: str | None,
    kind: Callable[..., T],
    live: bool,
    on_lost: Lost | None,
    notes: list[str],
) -> T | None:
    """Open the device that was named, or with ``live`` the default one if there is any."""
    if wanted == NO_DEVICE or (wanted is None and not live):
        return None
    try:
        return kind(_name(wanted), on_lost=on_lost)
    except MediaError as error:
        if wanted is not None:
            raise
        notes.append(f"{error} ({error.hint})" if error.hint else str(error))
        return None


def _name(device: str | None) -> str | None:
    return None if device in {None, DEFAULT_DEVICE} else device


def _both(speaker: Speaker | None, recorder: RecorderSink | None) -> Sink | None:
    if speaker is None or recorder is None:
        return speaker or recorder
    return TeeSink(speaker, recorder)


def _free(path: Path) -> Path:
    """Return ``path``, or with a number where that is taken: a recording replaces nothing."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
