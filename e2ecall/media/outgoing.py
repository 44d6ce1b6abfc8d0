"""One stream that is sent: read, encode, encrypt, and hand to aiortc as a ready packet.

spec/media.md, "Sending". Reading, encoding and encrypting happen in a thread of the stream; the
frame is encrypted whole before it is cut into RTP packets (MEDIA-06). What leaves here is
ciphertext, or nothing. What is special to a kind is in `outgoing_audio` and `outgoing_video`.
"""

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import AnyRtcpPacket
from av import Packet

from e2ecall.media.events import SentStats
from e2ecall.media.pacer import Pacer
from e2ecall.media.worker import Worker
from e2ecall.protocol.messages import Codec
from e2ecall.protocol.sframe import WORN_FRAMES, SFrameSender, clear_prefix_length
from e2ecall.protocol.sframe_header import epoch_of

logger: Final = logging.getLogger(__name__)


class _Key:
    """A sender with the count of what it encrypted; a new one for each epoch."""

    __slots__ = ("encryptor", "frames")

    def __init__(self, encryptor: SFrameSender) -> None:
        self.encryptor = encryptor
        self.frames = 0


class OutgoingStream(MediaStreamTrack):
    """A track whose frames are encoded and encrypted already. Lives on the media loop."""

    _codec: Codec

    def __init__(self, *, clock: int, ticks_per_frame: int, name: str) -> None:
        super().__init__()
        self._pacer = Pacer(clock=clock, ticks_per_frame=ticks_per_frame)
        self._time_base = Fraction(1, clock)
        self._worker = Worker(f"e2ecall-{name}")
        self._key: _Key | None = None
        self._worn: Callable[[int], None] | None = None
        self._first: asyncio.Task[bytes | None] | None = None
        self._frames = self._bytes = self._key_frames = 0
        self._prepared = False
        self._changes = 0  # of the source: what the former one gave is not sent any more
        self.muted = False
        self.ssrc: int | None = None
        """Of its RTP packets, by which reports name it; set when they are sent."""

    @property
    def stats(self) -> SentStats:
        """What was sent so far."""
        return SentStats(frames=self._frames, bytes=self._bytes, key_frames=self._key_frames)

    async def prepare(self) -> None:
        """Open the encoder and read the first frame, once, so that the start costs no time."""
        if not (self._prepared or self._absent):
            self._prepared = True
            await self._worker.run(self._open)

    def begin(self, encryptor: SFrameSender, worn: Callable[[int], None]) -> None:
        """Set the key and make the first frame while the transport still connects.

        ``worn`` is told, once for each key, the epoch of one that is nearly used up.
        """
        self._key = _Key(encryptor)
        self._worn = worn
        if not self._absent:
            self._first = asyncio.get_running_loop().create_task(self._worker.run(self._produce))

    def change_key(self, encryptor: SFrameSender) -> None:
        """Encrypt the next frame, and all after it, with this sender (SFRAME-10)."""
        self._key = _Key(encryptor)

    def restart(self) -> None:
        """Go on over another path, whose receiver knows nothing of what was sent before."""

    async def recv(self) -> "Packet[Any]":
        """Return the next encrypted frame when it is due, for aiortc to packetise.

        Raises:
            MediaStreamError: the stream was stopped, or its encoder or key is at its end.
        """
        while self.readyState == "live":
            await self._wait_for_source()
            changes = self._changes
            wait, timestamp = self._pacer.next(time.monotonic())
            if wait:
                await asyncio.sleep(wait)
            data = await self._next()
            if data is None:
                continue
            self._check_wear()
            if changes == self._changes:
                self._count(data)
                packet = Packet(data)
                packet.pts, packet.time_base = timestamp, self._time_base
                return packet
        raise MediaStreamError

    def feedback(self, packet: AnyRtcpPacket) -> None:
        """Take the peer's RTCP. Raises nothing."""

    async def close(self) -> None:
        """Stop, close the source and end the thread."""
        self.stop()
        if self._first is not None:
            self._first.cancel()
            await asyncio.gather(self._first, return_exceptions=True)
        try:
            self._close_source()
        except Exception:
            logger.exception("a source failed to close")
        await self._worker.close()
        self._drop_encoder()

    async def _next(self) -> bytes | None:
        first, self._first = self._first, None
        try:
            return await (first if first is not None else self._worker.run(self._produce))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Fail closed: what cannot be encoded or encrypted is not sent in another form.
            logger.exception("a stream ends because it cannot be encoded or encrypted")
            raise MediaStreamError from error

    def _produce(self) -> bytes | None:
        """Return the next frame, encrypted, or None if none is to be sent. In the thread."""
        frame = self._encode()
        if frame is None:
            return None
        key = self._key
        assert key is not None
        protected = key.encryptor.encrypt(frame, clear_prefix_length(self._codec, frame))
        key.frames += 1
        return protected

    def _count(self, data: bytes) -> None:
        self._frames += 1
        self._bytes += len(data)

    def _check_wear(self) -> None:
        key = self._key
        if key is not None and key.frames == WORN_FRAMES and self._worn is not None:
            self._worn(epoch_of(key.encryptor.kid))

    @property
    def _absent(self) -> bool:
        """Whether there is nothing to send, and so nothing to wait for."""
        return False

    async def _wait_for_source(self) -> None:
        """Return when there is something to send."""

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _encode(self) -> bytes | None: ...

    @abstractmethod
    def _close_source(self) -> None: ...

    @abstractmethod
    def _drop_encoder(self) -> None:
        """Let go of the encoder, which has threads of its own.

        Of the objects of a call some refer to each other, and Python's collector comes late.
        """
