"""Sources and sinks of media, for programs that embed e2ecall. Re-exports only.

Importing this loads aiortc and PyAV, which takes about half a second.
"""

from e2ecall.media.playback import FileAudio, FileVideo
from e2ecall.media.recorder import RecorderSink
from e2ecall.media.sinks import CollectingSink, NullSink, Sink
from e2ecall.media.sources import AudioSource, GeneratedAudio, GeneratedVideo, VideoSource

__all__ = [
    "AudioSource",
    "CollectingSink",
    "FileAudio",
    "FileVideo",
    "GeneratedAudio",
    "GeneratedVideo",
    "NullSink",
    "RecorderSink",
    "Sink",
    "VideoSource",
]
