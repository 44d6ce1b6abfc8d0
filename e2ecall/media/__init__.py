"""Sources and sinks of media, for programs that embed e2ecall. Re-exports only.

Importing this loads aiortc and PyAV, which takes about half a second.
"""

from e2ecall.media.capture import Camera, Screen
from e2ecall.media.playback import FileAudio, FileVideo
from e2ecall.media.recorder import RecorderSink
from e2ecall.media.sinks import CollectingSink, NullSink, Sink, TeeSink
from e2ecall.media.sound import Microphone, Speaker
from e2ecall.media.sources import (
    AudioSource,
    GeneratedAudio,
    GeneratedVideo,
    Repeatable,
    VideoSource,
)

__all__ = [
    "AudioSource",
    "Camera",
    "CollectingSink",
    "FileAudio",
    "FileVideo",
    "GeneratedAudio",
    "GeneratedVideo",
    "Microphone",
    "NullSink",
    "RecorderSink",
    "Repeatable",
    "Screen",
    "Sink",
    "Speaker",
    "TeeSink",
    "VideoSource",
]
