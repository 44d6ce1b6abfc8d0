"""One stream that is received: packets to frames, decrypted, decoded, to the sink.

spec/media.md, "Receiving". It stands where aiortc has its jitter buffer, so that nothing reaches
a decoder that was not decrypted and authenticated (MEDIA-06). The decoder itself is aiortc's.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from aiortc import RTCDtlsTransport, RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket
from av import AudioFrame, VideoFrame

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.media import hooks
from e2ecall.media.description import codecs, kind_of, receive_parameters
from e2ecall.media.encoders.vp8 import check_picture
from e2ecall.media.events import FirstFrame, FrameRefused, MediaEvent, ReceivedStats
from e2ecall.media.jitter import AudioJitterBuffer, Fragment, JitterBuffer, ascending
from e2ecall.media.lips import Lips, SenderClock
from e2ecall.media.quality import FreezeMeter
from e2ecall.media.sinks import Sink
from e2ecall.media.video_jitter import VideoJitterBuffer
from e2ecall.protocol.messages import Codec, StreamDescription
from e2ecall.protocol.sframe import SFrameReceiver, clear_prefix_length
from e2ecall.protocol.sframe_header import epoch_of, parse_header
from e2ecall.protocol.sound import unpack

logger: Final = logging.getLogger(__name__)

MAX_WAITING_FRAMES: Final = 30
"""Decoded frames kept for a sink that is slow: a second of video."""

MAX_WAITING_PIXELS: Final = MAX_WAITING_FRAMES * 1280 * 720
"""The same bound in pixels: of the largest pictures, three are kept."""

MAX_DECODER_BACKLOG: Final = 64
"""Encoded frames kept for a decoder that is slow, or whose peer sends faster than real time."""

MAX_BACKLOG_PIXELS: Final = MAX_DECODER_BACKLOG * 1280 * 720
"""The same bound in pixels, as a small frame may claim a large picture: seven of the largest."""

REFUSAL_INTERVAL: Final = 1.0
"""Seconds between two `FrameRefused` events of a stream."""

_FEEDBACK_PACE: Final = 0.02
_STREAM_BITS: Final = 0x0F
"""The part of an SFrame key id that names the stream."""


class IncomingStream:
    """Receives one stream of the peer. Lives on the media loop."""

    def __init__(
        self,
        described: StreamDescription,
        *,
        decryptor: SFrameReceiver,
        sink: Sink,
        report: Callable[[MediaEvent], None],
        verdict: Callable[[bool], None],
        authenticated: Callable[[int], None],
        lips: Lips,
        first_epoch: int = 0,
        after: "IncomingStream | None" = None,
    ) -> None:
        """``verdict`` is told whether a frame was authentic, ``authenticated`` its epoch if so.

        ``lips`` is shared by a picture and the sound that belongs to it.
        Frames of an epoch before ``first_epoch`` are refused. ``after`` is the same stream on the
        path before, in whose time it goes on; see `take_over`.
        """
        self._described = described
        self._stream = described.stream
        self._decryptor = decryptor
        self._sink = sink
        self._report = report
        self._verdict = verdict
        self._authenticated = authenticated
        self._first_epoch = first_epoch
        self._after = after
        self._told = False
        self._codec = codecs(described)[0]
        self._is_picture = kind_of(described.stream) == "video"
        self._buffer: JitterBuffer = (
            VideoJitterBuffer() if self._is_picture else AudioJitterBuffer()
        )
        self._receiver: RTCRtpReceiver | None = None
        self._feedback_due = asyncio.Event()
        self._lips = lips
        self._clock = SenderClock(self._codec.clockRate)
        self._timestamp: int | None = None
        self._ticks = 0
        self._ticked_at: float | None = None
        self._refusal_reported = float("-inf")
        self._waiting = hooks.FrameQueue(MAX_WAITING_FRAMES, MAX_WAITING_PIXELS)
        self._pixels = 0  # of the stream's pictures, as its last key frame says
        self._stopped = False
        self.freezes = FreezeMeter()
        self._silenced = False
        self._frames = self._bytes = self._decoded = self._refused = self._dropped = 0

    @property
    def silenced(self) -> bool:
        """Whether what comes is not to be heard or seen here.

        It is decrypted; a picture that nobody is to see reaches no decoder.
        """
        return self._silenced

    @silenced.setter
    def silenced(self, silenced: bool) -> None:
        if self._silenced and not silenced and self._is_picture:
            self._buffer.refused()  # what was left out has to be made up for by a key frame
            self._feedback_due.set()
        self._silenced = silenced

    @property
    def stats(self) -> ReceivedStats:
        """What came so far."""
        return ReceivedStats(
            frames=self._frames,
            bytes=self._bytes,
            decoded=self._decoded,
            refused=self._refused,
            lost=self._buffer.lost,
            dropped=self._dropped + self._waiting.dropped,
        )

    @property
    def arrivals(self) -> tuple[int, int, float]:
        """Packets expected and received, and their jitter in seconds."""
        receiver = self._receiver
        known = None if receiver is None else hooks.statistics(receiver, self._described.ssrc)
        if known is None or known.max_seq is None:
            return 0, 0, 0.0
        jitter = known.jitter / self._codec.clockRate
        return known.packets_expected, known.packets_received, jitter

    async def start(self, transport: RTCDtlsTransport, rtcp_ssrc: int) -> None:
        """Register with the transport; packets are taken as soon as it is connected."""
        receiver = hooks.new_receiver(
            kind_of(self._stream),
            transport,
            rtcp_ssrc,
            decoded=self._waiting,
            reported=self._take_report,
        )
        hooks.replace_jitter_buffer(receiver, self)
        await receiver.receive(receive_parameters(self._described))
        self._receiver = receiver

    def end(self) -> None:
        """Take, decode and render nothing more."""
        self._stopped = True

    def take_over(self) -> None:
        """Go on in the place of the stream on the path before, which has ended, and forget it."""
        after, self._after = self._after, None
        if after is not None:
            self._told = self._told or after._told  # noqa: SLF001 - the same class
            if self._timestamp is None:
                self._ticks, self._ticked_at = after._ticks, after._ticked_at  # noqa: SLF001

    async def stop(self) -> None:
        """End decoder and reports; what was not decoded yet is dropped."""
        self._stopped = True
        if self._receiver is not None:
            await hooks.stop_receiver(self._receiver)

    # --- in place of aiortc's jitter buffer -----------------------------------------------------

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet and pass on every frame that became whole. Raises nothing."""
        now = time.monotonic()
        fragment = _fragment(packet, self._described.codec)
        if self._described.codec is Codec.OPUS:
            self._add_sound(fragment, now)
        else:
            self._buffer.add(fragment, now)
            while (frame := self._buffer.next_frame()) is not None:
                plain = self._open(frame.data, now)
                if plain is not None:
                    self._pass_on(plain, frame.timestamp)
        if self._buffer.waiting:
            self._feedback_due.set()
        return False, None  # frames and requests go their own way: there may be several

    def _add_sound(self, fragment: Fragment, now: float) -> None:
        """Open a frame of sound at once: it may have in it what is missing before it."""
        plain = self._open(fragment.data, now)
        if plain is None:
            return
        for sound in unpack(plain, self._described.payload_type):
            self._buffer.add(
                Fragment(
                    fragment.sequence_number - sound.back & 0xFFFF,
                    fragment.timestamp - sound.ticks & 0xFFFF_FFFF,
                    marker=True,
                    starts_frame=sound.back == 0,
                    data=sound.data,
                ),
                now,
            )
        while (frame := self._buffer.next_frame()) is not None:
            self._pass_on(frame.data, frame.timestamp)

    def _open(self, data: bytes, now: float) -> bytes | None:
        """Return what was encrypted, or None if it was refused."""
        try:
            plain = self._decrypt(data)
        except RemoteProtocolError as error:
            self._refuse(error.reason, now)
            return None
        self._verdict(True)
        self._bytes += len(data)
        return plain

    def _pass_on(self, plain: bytes, timestamp: int) -> None:
        """Give an authenticated frame to the decoder."""
        assert self._receiver is not None
        if self._stopped or (self._silenced and self._is_picture):
            return
        queue = hooks.decoder_queue(self._receiver)
        waiting = queue.qsize()
        if waiting >= MAX_DECODER_BACKLOG or (waiting + 1) * self._pixels > MAX_BACKLOG_PIXELS:
            self._dropped += 1
            self._buffer.refused()
            return
        self._frames += 1
        queue.put((self._codec, JitterFrame(plain, self._unwrap(timestamp))))

    def _decrypt(self, data: bytes) -> bytes:
        prefix = clear_prefix_length(self._described.codec, data)
        # The receiver knows the keys of all streams: a frame of one in another is a splice.
        kid, _, _ = parse_header(data, prefix)
        # CALL-43: nor may one that was made for an earlier path be played on this one.
        if kid & _STREAM_BITS != self._stream or epoch_of(kid) < self._first_epoch:
            raise RemoteProtocolError(Reason.UNKNOWN_FRAME_KEY)
        plain = self._decryptor.decrypt(data, prefix)
        self._authenticated(epoch_of(kid))
        try:
            if self._described.codec is Codec.VP8:
                self._pixels = check_picture(plain) or self._pixels
            else:  # to a decoder an empty packet means the end
                unpack(plain, self._described.payload_type)
        except ValueError as error:
            raise RemoteProtocolError(Reason.MALFORMED) from error
        return plain

    def _refuse(self, reason: Reason, now: float) -> None:
        self._refused += 1
        self._verdict(False)
        self._buffer.refused()
        if now - self._refusal_reported >= REFUSAL_INTERVAL:
            self._refusal_reported = now
            logger.warning("a frame of %s was refused: %s", self._stream.name, reason)
            self._report(FrameRefused(self._stream, self._refused))

    def _unwrap(self, timestamp: int) -> int:
        """Return the timestamp counted from the first frame, always growing."""
        if self._timestamp is None:
            self._ticks = self.ticks_now(self._codec.clockRate)
        else:
            step = timestamp - self._timestamp & 0xFFFF_FFFF
            # Frames leave the buffer in order, so a step back is the peer's nonsense.
            self._ticks += step if 0 < step < 1 << 31 else 1
        self._timestamp = timestamp
        self._ticked_at = time.monotonic()
        return self._ticks

    def ticks_now(self, clock: int) -> int:
        """Return the stream's time at this moment, as far as its last frame tells."""
        if self._ticked_at is None:
            return 0 if self._after is None else self._after.ticks_now(clock)
        return self._ticks + 1 + int(clock * (time.monotonic() - self._ticked_at))

    # --- tasks of the session ---------------------------------------------------------------------

    async def send_feedback(self) -> None:
        """Ask for missing packets and key frames for as long as something is missing."""
        while True:
            await self._feedback_due.wait()
            self._feedback_due.clear()
            while self._buffer.waiting:
                await self._ask()
                await asyncio.sleep(_FEEDBACK_PACE)

    async def _ask(self) -> None:
        feedback = self._buffer.feedback(time.monotonic())
        receiver, ssrc = self._receiver, self._described.ssrc
        assert receiver is not None
        for numbers in ascending(feedback.nack):
            await receiver._send_rtcp_nack(ssrc, numbers)  # noqa: SLF001 - see hooks
        if feedback.key_frame:
            await receiver._send_rtcp_pli(ssrc)  # noqa: SLF001 - see hooks

    async def deliver(self) -> None:
        """Give decoded frames to the sink until the track ends."""
        receiver = self._receiver
        assert receiver is not None
        while True:
            try:
                frame: Any = await receiver.track.recv()
            except MediaStreamError:
                return
            if self._stopped:
                return
            assert isinstance(frame, AudioFrame | VideoFrame)
            self._decoded += 1
            if not self._was_told:
                self._told = True
                self._report(FirstFrame(self._stream, time.monotonic()))
            await self._hold(frame)
            if isinstance(frame, VideoFrame):
                sent = (frame.pts or 0) / self._codec.clockRate
                self.freezes.shown(time.monotonic(), sent, self._buffer.lost)
            await self._write(frame)

    @property
    def _was_told(self) -> bool:
        """Whether the first frame of this stream was told, on this path or an earlier one."""
        return self._told or (self._after is not None and self._after._was_told)  # noqa: SLF001

    def _take_report(self, ssrc: int, ntp: int, timestamp: int) -> None:
        if ssrc == self._described.ssrc:
            self._clock.report(ntp, timestamp)

    async def _hold(self, frame: AudioFrame | VideoFrame) -> None:
        """MEDIA-60: keep a picture back that is ahead of its sound; note when sound is heard."""
        assert self._timestamp is not None  # a frame was passed on
        behind = self._ticks - (frame.pts or 0)
        sent, now = self._clock.sent(self._timestamp - behind & 0xFFFF_FFFF), time.monotonic()
        if isinstance(frame, AudioFrame):
            self._lips.heard(sent, frame.samples / frame.sample_rate, now)
        elif not self._silenced and (wait := self._lips.hold(sent, now)) > 0:
            await asyncio.sleep(wait)

    async def _write(self, frame: AudioFrame | VideoFrame) -> None:
        if self._stopped:
            return
        if self.silenced:
            if isinstance(frame, VideoFrame):
                return
            for plane in frame.planes:  # so that what is recorded keeps its time
                plane.update(bytes(plane.buffer_size))
        try:
            await self._sink.write(self._stream, frame, frame.pts or 0)
        except Exception:
            logger.exception("a sink failed; its stream is dropped from here on")
            self._sink = _DROP


def _fragment(packet: RtpPacket, codec: Codec) -> Fragment:
    data: bytes = packet._data  # type: ignore[attr-defined]  # noqa: SLF001 - set by the receiver
    # RFC 7741 section 4.2: S is set and the partition index is 0 on a frame's first packet.
    starts = codec is Codec.OPUS or (bool(packet.payload) and packet.payload[0] & 0x17 == 0x10)
    return Fragment(packet.sequence_number, packet.timestamp, bool(packet.marker), starts, data)


class _Drop:
    async def write(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        pass


_DROP: Final[Any] = _Drop()
