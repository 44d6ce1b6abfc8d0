"""What a call of the command line sends and keeps: devices, and files of the user's.

What of it is opened, and how, is `opened`; the media library is loaded there, and not before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from cyclopts.types import ExistingFile, PositiveFloat

from e2ecall.errors import LocalProtocolError

if TYPE_CHECKING:
    from e2ecall.cli.opened import Media
    from e2ecall.media.sources import VideoSource

DEFAULT_DEVICE: Final = "default"
NO_DEVICE: Final = "off"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class MediaOptions:
    """The options about a call's media."""

    audio: Annotated[
        ExistingFile | None, Parameter(help="Send the sound of this file, and no microphone.")
    ] = None
    video: Annotated[
        ExistingFile | None, Parameter(help="Send the picture of this file, and no camera.")
    ] = None
    microphone: Annotated[
        str | None,
        Parameter(
            help="Send this microphone: its name or number, or `default`; `off` sends silence. On "
            "the screen the default one is sent, elsewhere silence."
        ),
    ] = None
    speaker: Annotated[
        str | None,
        Parameter(
            help="Play what is received here: a name or number, `default` or `off`. On the screen "
            "the default one plays, elsewhere none."
        ),
    ] = None
    camera: Annotated[
        str | None,
        Parameter(
            help="Send this camera from the beginning: its name, or `default`. On the screen a key "
            "turns it on and off."
        ),
    ] = None
    screen: Annotated[
        str | None,
        Parameter(
            help="Share this from the moment on at which you are connected: `default` is your "
            "screen, anything else a film. On the screen of a call a key turns it on and off."
        ),
    ] = None
    record: Annotated[
        Path | None,
        Parameter(
            help="Write what is received to this MP4 file, unencrypted; otherwise nothing is kept. "
            "No file is overwritten: another call gets a number."
        ),
    ] = None
    seconds: Annotated[
        PositiveFloat | None, Parameter(help="Hang up after this time of conversation.")
    ] = None

    def check(self) -> None:
        """Refuse what cannot be sent or written, before anybody is called.

        Raises:
            MediaError: a file or a device that was asked for cannot be opened.
            LocalProtocolError: the recording cannot be written, or two sources were named for one.
        """
        if self.audio is not None and self.microphone is not None:
            raise LocalProtocolError("--audio and --microphone do not go together")
        if self.video is not None and self.camera is not None:
            raise LocalProtocolError("--video and --camera do not go together")
        if self.record is not None:
            _check_recording(self.record)
        with self.open():
            pass

    def open_camera(self, on_lost: Callable[[str], None] | None = None) -> "VideoSource":
        """Open what is sent where the user turns the camera on in a call.

        ``on_lost`` is told that it went away, by any thread.

        Raises:
            MediaError: it cannot be opened.
        """
        from e2ecall.cli.opened import open_picture

        return open_picture(self, on_lost)

    def open_screen(self, on_lost: Callable[[str], None] | None = None) -> "VideoSource":
        """Open what is shared where the user shares their screen in a call; see `open_camera`."""
        from e2ecall.cli.opened import open_screen

        return open_screen(self, on_lost)

    @contextmanager
    def open(
        self, *, live: bool = False, on_lost: Callable[[str], None] | None = None
    ) -> "Iterator[Media]":
        """Yield fresh sources and sink for one call, and close the sources afterwards.

        With ``live`` the default microphone and speaker are used where none was named, if they are
        there. ``on_lost`` is told which device went away, by any thread.

        Raises:
            MediaError: a file or a device that was asked for cannot be opened.
        """
        from e2ecall.cli.opened import open_media

        with open_media(self, live=live, on_lost=on_lost) as media:
            yield media


NO_MEDIA: Final = MediaOptions()


def _check_recording(path: Path) -> None:
    if path.suffix.lower() != ".mp4":
        raise LocalProtocolError(f"{path} is not an MP4 file", hint="choose a name ending in .mp4")
    if not path.parent.is_dir():
        raise LocalProtocolError(f"there is no folder {path.parent}", hint="create it first")
