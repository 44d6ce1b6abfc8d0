"""How loud a call is, for meters on a screen: wrappers of a source and of a sink that listen along.

They change nothing of what passes through them. A level is in decibels below full scale.
"""

import math
import time
from typing import Final

import numpy as np
from av import AudioFrame

from e2ecall.media.sinks import DecodedFrame, Sink
from e2ecall.media.sources import AudioSource
from e2ecall.protocol.messages import Stream

FLOOR: Final = -60.0
"""The level of silence, and of anything quieter than this."""

_STALE: Final = 0.3
"""Seconds after which a level that nothing renewed is silence: a call on hold plays nothing."""


class Level:
    """The loudness of the last frame. Written by a media thread, read by any other."""

    def __init__(self) -> None:
        self._latest = (FLOOR, float("-inf"))

    @property
    def decibels(self) -> float:
        """`FLOOR` to 0, of the last 20 ms."""
        value, at = self._latest
        return value if time.monotonic() - at < _STALE else FLOOR

    def measure(self, frame: AudioFrame) -> None:
        """Take a frame of ``s16`` samples."""
        samples = frame.to_ndarray().astype(np.float64)
        power = float(np.mean(np.square(samples))) / (1 << 30)
        decibels = 10 * math.log10(power) if power > 0 else FLOOR
        self._latest = (max(decibels, FLOOR), time.monotonic())


class MeteredAudio:
    """An audio source whose loudness can be read; see `AudioSource`."""

    def __init__(self, source: AudioSource) -> None:
        self._source = source
        self.level = Level()

    def read(self) -> AudioFrame | None:
        """Return the next frame of the source."""
        frame = self._source.read()
        if frame is not None:
            self.level.measure(frame)
        return frame

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class MeteredSink:
    """A sink that measures the peer's voice, and hands all on to another sink if there is one."""

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self.level = Level()
        self.keeps = bool(getattr(sink, "keeps", False))
        """As of the other sink: the peer is told of a recording (CALL-32)."""

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:
        """Take a frame."""
        if stream is Stream.MICROPHONE and isinstance(frame, AudioFrame):
            self.level.measure(frame)
        if self._sink is not None:
            await self._sink.write(stream, frame, rtp_time)

    async def close(self) -> None:
        """Close the other sink."""
        if self._sink is not None:
            await self._sink.close()
