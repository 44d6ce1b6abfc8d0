"""Camera and screen as sources, through FFmpeg's input devices (spec/media.md, "Devices").

A thread takes pictures as the device has them, and `read` returns the latest: a camera's clock is
not ours, and a device that hangs must not hold a call up.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Self

import av
from av import VideoFrame

from e2ecall.errors import MediaError
from e2ecall.media.playback import fitted
from e2ecall.media.sound import Lost

LOST_AFTER: Final = 3.0
"""Seconds without a picture after which a device counts as gone."""

_CLOSE_PATIENCE: Final = 1.0


class Input(NamedTuple):
    """What FFmpeg opens."""

    format: str
    file: str
    options: Mapping[str, str]


class Capture:
    """A video source that shows what an input device of FFmpeg gives; see `VideoSource`.

    ``on_lost`` is told, once and by any thread, when the device goes away; then the source ends.

    Raises:
        MediaError: it cannot be opened.
    """

    def __init__(
        self,
        what: str,
        opened: Input,
        *,
        frame_rate: int,
        hint: str,
        on_lost: Lost | None = None,
    ) -> None:
        self.name = opened.file
        self._what = what
        self._frame_rate = frame_rate
        self._on_lost = on_lost
        self._there = threading.Condition()
        self._latest: VideoFrame | None = None
        self._closed = False
        self._lost = False
        try:
            self._container = av.open(
                opened.file, format=opened.format, options=dict(opened.options)
            )
        except (OSError, ValueError, av.FFmpegError) as error:
            raise MediaError(f"no {what} at {opened.file}: {error}", hint=hint) from error
        self._thread = threading.Thread(target=self._take, name=f"e2ecall-{what}", daemon=True)
        self._thread.start()

    @property
    def frame_rate(self) -> int:
        """Pictures a second that are asked for."""
        return self._frame_rate

    @property
    def is_lost(self) -> bool:
        """Whether the device went away."""
        return self._lost

    def read(self) -> VideoFrame | None:
        """Return a picture that was not returned before, or None when the device is gone."""
        with self._there:
            self._there.wait_for(self._is_due, LOST_AFTER)
            frame, self._latest = self._latest, None
            if frame is None and not self._closed:
                self._lose()
            return frame

    def close(self) -> None:
        """Stop and close the device, by its own thread; a `read` that waits returns."""
        with self._there:
            self._closed = True
            self._there.notify_all()
        self._thread.join(_CLOSE_PATIENCE)

    stop = close

    def _is_due(self) -> bool:
        return self._latest is not None or self._closed or self._lost

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            if self._on_lost is not None:
                self._on_lost(f"the {self._what} {self.name} went away")

    def _take(self) -> None:
        # The container is closed here: PyAV must not close one that another thread decodes.
        try:
            with self._container:
                for frame in self._container.decode(video=0):
                    picture = fitted(frame)
                    with self._there:
                        if self._closed:
                            return
                        self._latest = picture
                        self._there.notify()
        except (OSError, ValueError, IndexError, av.FFmpegError):
            pass  # told below; FFmpeg says no more than that it cannot read
        with self._there:
            if not self._closed:
                self._lose()
            self._there.notify_all()


class Camera(Capture):
    """The camera ``device``, a name of the system's; None: its first one."""

    def __init__(self, device: str | None = None, *, on_lost: Lost | None = None) -> None:
        self._again: Callable[[], Camera] = lambda: Camera(device, on_lost=on_lost)
        super().__init__(
            "camera",
            camera_input(sys.platform, device),
            frame_rate=30,
            hint="plug one in, let this program use it, or choose another: --camera NAME",
            on_lost=on_lost,
        )

    def again(self) -> "Camera":
        """Open the same camera once more; see `e2ecall.media.sources.Repeatable`."""
        return self._again()


class Screen(Capture):
    """All that the screen shows, ten times a second."""

    def __init__(self, *, on_lost: Lost | None = None) -> None:
        super().__init__(
            "screen",
            screen_input(sys.platform, os.environ.get("DISPLAY")),
            frame_rate=10,
            hint="the screen of a desktop can be shared: on Linux one of X11, not of Wayland alone",
            on_lost=on_lost,
        )

    def again(self) -> Self:
        """Share it once more."""
        return type(self)(on_lost=self._on_lost)


def camera_input(platform: str, device: str | None) -> Input:
    """Return what a camera is to FFmpeg on this platform."""
    options = {"framerate": "30", "video_size": "640x480"}
    match platform:
        case "darwin":
            return Input("avfoundation", f"{device or '0'}:none", options)
        case "win32":
            return Input("dshow", f"video={device or '0'}", options)
        case _:
            return Input("v4l2", device or "/dev/video0", options)


def screen_input(platform: str, display: str | None) -> Input:
    """Return what the screen is to FFmpeg on this platform.

    Raises:
        MediaError: there is none.
    """
    options = {"framerate": "10"}
    match platform:
        case "darwin":
            return Input("avfoundation", "Capture screen 0:none", options)
        case "win32":
            return Input("gdigrab", "desktop", options)
        case _:
            if not display:
                raise MediaError(
                    "there is no screen to share", hint="run this in a desktop session of X11"
                )
            return Input("x11grab", display, options)
