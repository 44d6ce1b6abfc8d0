"""What a call of the command line sends and keeps: files of the user's (spec/media.md).

The media library is imported when a file was named, and not before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from cyclopts.types import ExistingFile, PositiveFloat

from e2ecall.errors import LocalProtocolError

if TYPE_CHECKING:
    from e2ecall.media.sinks import Sink
    from e2ecall.media.sources import AudioSource, VideoSource


@dataclass(frozen=True, slots=True)
class Media:
    """The open sources of one call, and where goes what is received."""

    audio: "AudioSource | None" = None
    video: "VideoSource | None" = None
    output: "Sink | None" = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class MediaOptions:
    """The options about a call's media."""

    audio: Annotated[
        ExistingFile | None, Parameter(help="Send the sound of this file; otherwise silence.")
    ] = None
    video: Annotated[
        ExistingFile | None, Parameter(help="Send the picture of this file; otherwise none.")
    ] = None
    record: Annotated[
        Path | None,
        Parameter(
            help="Write what is received to this MP4 file, unencrypted; otherwise it is dropped. "
            "No file is overwritten: another call gets a number."
        ),
    ] = None
    seconds: Annotated[
        PositiveFloat | None, Parameter(help="Hang up after this time of conversation.")
    ] = None

    def check(self) -> None:
        """Refuse what cannot be sent or written, before anybody is called.

        Raises:
            MediaError: a file cannot be sent.
            LocalProtocolError: the recording cannot be written.
        """
        if self.record is not None:
            _check_recording(self.record)
        with self.open():
            pass

    def open_camera(self) -> "VideoSource":
        """Open what is sent where the user turns the camera on in a call.

        Raises:
            LocalProtocolError: nothing was chosen.
            MediaError: it cannot be opened.
        """
        if self.video is None:
            raise LocalProtocolError("there is no picture to send", hint="call with --video FILE")
        from e2ecall.media.playback import FileVideo

        return FileVideo(self.video)

    @contextmanager
    def open(self) -> Iterator[Media]:
        """Yield fresh sources and sink for one call, and close the sources afterwards.

        Raises:
            MediaError: a file cannot be read as media.
        """
        audio: AudioSource | None = None
        video: VideoSource | None = None
        output: Sink | None = None
        try:
            if self.audio is not None:
                from e2ecall.media.playback import FileAudio

                audio = FileAudio(self.audio)
            if self.video is not None:
                from e2ecall.media.playback import FileVideo

                video = FileVideo(self.video)
            if self.record is not None:
                from e2ecall.media.recorder import RecorderSink

                output = RecorderSink(_free(self.record))
            yield Media(audio, video, output)
        finally:
            for source in (audio, video):
                if source is not None:
                    source.close()


NO_MEDIA: Final = MediaOptions()


def _check_recording(path: Path) -> None:
    if path.suffix.lower() != ".mp4":
        raise LocalProtocolError(f"{path} is not an MP4 file", hint="choose a name ending in .mp4")
    if not path.parent.is_dir():
        raise LocalProtocolError(f"there is no folder {path.parent}", hint="create it first")


def _free(path: Path) -> Path:
    """Return ``path``, or with a number where that is taken: a recording replaces nothing."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
