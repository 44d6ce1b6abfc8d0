"""Where the media that was received goes (spec/media.md, "Sinks").

Only frames that were decrypted, authenticated and decoded come here. A sink runs on the media
engine's own asyncio loop: it must not block it, and an AnyIO program's own loop is elsewhere.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from av import AudioFrame, VideoFrame

from e2ecall.protocol.messages import Stream

DecodedFrame: TypeAlias = AudioFrame | VideoFrame
"""Audio is 48 kHz stereo ``s16``, video ``yuv420p``; both as the decoder gave them."""


@runtime_checkable
class Sink(Protocol):
    """Takes decoded frames of one or more streams.

    One that keeps them, in a file or elsewhere, has an attribute ``keeps`` that is true: then the
    other person is told that they are recorded (CALL-32).
    """

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:
        """Take a frame; the next one of this stream comes when this returns.

        ``rtp_time`` is the sender's RTP timestamp since the stream's first frame, in ticks of its
        clock (48 000 or 90 000 a second); it grows, with gaps where frames were lost. While this
        waits, at most `incoming.MAX_WAITING_FRAMES` are kept and older ones are dropped. An
        exception ends the stream's output, not the call.
        """
        ...

    async def close(self) -> None:
        """No more frames come. Called once, also after an exception."""
        ...


class NullSink:
    """Drops every frame."""

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:
        """Drop the frame."""

    async def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A decoded frame with where it belongs; ``rtp_time`` as in `Sink.write`."""

    stream: Stream
    frame: DecodedFrame
    rtp_time: int


class TeeSink:
    """Hands every frame to several sinks, in their order; ``keeps`` if one of them keeps it."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self.keeps = any(getattr(sink, "keeps", False) for sink in sinks)

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:
        """Take a frame."""
        for sink in self._sinks:
            await sink.write(stream, frame, rtp_time)

    async def close(self) -> None:
        """Close all of them, whatever the first ones do."""
        ends = await asyncio.gather(*(s.close() for s in self._sinks), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end


class CollectingSink:
    """Keeps the last ``limit`` frames in memory."""

    def __init__(self, limit: int = 10_000) -> None:
        self.frames: deque[ReceivedFrame] = deque(maxlen=limit)
        self.closed = False

    def of(self, stream: Stream) -> list[ReceivedFrame]:
        """Return what is kept of one stream, oldest first."""
        return [received for received in tuple(self.frames) if received.stream == stream]

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:
        """Keep the frame."""
        self.frames.append(ReceivedFrame(stream, frame, rtp_time))

    async def close(self) -> None:
        """Remember that no more frames come."""
        self.closed = True
