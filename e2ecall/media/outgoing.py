"""One stream that is sent: read, encode, encrypt, and hand to aiortc as a ready packet.

spec/media.md, "Sending". Reading, encoding and encrypting happen in a thread of the stream; the
frame is encrypted whole before it is cut into RTP packets (MEDIA-06). What leaves here is
ciphertext, or nothing.
"""

import asyncio
import logging
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Final

from aiortc.clock import current_ntp_time
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    unpack_remb_fci,
)
from av import AudioFrame, Packet, VideoFrame

from e2ecall.media.bitrate import BitrateControl
from e2ecall.media.encoders.opus import OpusEncoder, check_sound
from e2ecall.media.encoders.vp8 import VP8Encoder
from e2ecall.media.events import SentStats
from e2ecall.media.ladder import Ladder, scaled, useful
from e2ecall.media.pacer import Pacer
from e2ecall.media.repair import MISSING_WINDOW, PACKET_BYTES, Missing, RepairBudget
from e2ecall.media.sources import (
    MAX_FRAME_RATE,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    VIDEO_CLOCK,
    AudioSource,
    VideoSource,
    black,
    silence,
)
from e2ecall.media.video_jitter import is_key_frame
from e2ecall.media.voice_rate import VoiceRate
from e2ecall.media.worker import Worker
from e2ecall.protocol.messages import Codec
from e2ecall.protocol.sframe import WORN_FRAMES, SFrameSender, clear_prefix_length
from e2ecall.protocol.sframe_header import epoch_of
from e2ecall.protocol.sound import MAX_COPIES, pack

logger: Final = logging.getLogger(__name__)

KEY_FRAME_INTERVAL: Final = 0.5
"""Seconds between key frames that the peer asks for: each is several times a usual frame."""

DEFAULT_FRAME_RATE: Final = 30
"""Pictures a second of a stream that has no source yet."""

MAX_ROUND_TRIP: Final = 5.0
"""Seconds; what is longer is a clock that was set."""

_BLACK_SIZE: Final = (640, 360)
_RATE_WINDOW: Final = 1.0


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


class OutgoingAudio(OutgoingStream):
    """Sound at a constant rate and size; muted, ended and failed sources become silence.

    Rate and size follow the network (MEDIA-31), and nothing else.
    """

    kind = "audio"
    _codec = Codec.OPUS

    def __init__(
        self,
        source: AudioSource | None,
        name: str,
        payload_type: int,
        path_rate: Callable[[], int | None],
    ) -> None:
        """``path_rate`` tells what pictures may take of the path, None if there are none."""
        super().__init__(clock=SAMPLE_RATE, ticks_per_frame=SAMPLES_PER_FRAME, name=name)
        self._given = source
        self._source = source
        self._payload_type = payload_type
        self._path_rate = path_rate
        self._rate = VoiceRate()
        self._encoder: OpusEncoder | None = None
        self._before: deque[bytes] = deque(maxlen=MAX_COPIES)

    def feedback(self, packet: AnyRtcpPacket) -> None:
        """Take a report of loss: the rate of sound follows it, and what pictures may take."""
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self.ssrc:
                    share = report.fraction_lost / 256
                    self._rate.choose(share, self._path_rate(), time.monotonic())

    def _open(self) -> None:
        if self._encoder is None:
            self._encoder = OpusEncoder(self._rate.setting.bit_rate)

    def _encode(self) -> bytes:
        frame = self._next_sound()
        setting = self._rate.setting
        if self._encoder is None or self._encoder.bit_rate != setting.bit_rate:
            # A fresh one is not made to hear what came before: that would make a dip (measured).
            self._encoder = OpusEncoder(setting.bit_rate)
        packet = self._encoder.encode(frame)
        while len(self._before) < MAX_COPIES:  # the size is constant from the first frame on
            self._before.append(packet)
        copies = list(self._before)[MAX_COPIES - setting.copies :]
        self._before.append(packet)
        return pack(packet, copies, self._payload_type)

    def _next_sound(self) -> AudioFrame:
        if self._source is not None:
            try:
                frame = self._source.read()
                if frame is not None and not self.muted:  # a muted source still moves on
                    check_sound(frame)
                    return frame
            except Exception:
                logger.exception("an audio source failed; silence is sent from here on")
                frame = None
            if frame is None:
                self._source = None
        return silence()

    def _close_source(self) -> None:
        if self._given is not None:
            self._given.close()

    def _drop_encoder(self) -> None:
        self._encoder = None


class OutgoingVideo(OutgoingStream):
    """A picture; muted, ended and failed sources become black, once a second.

    Without a source nothing is sent; one may come, go and be exchanged at any time.
    """

    kind = "video"
    _codec = Codec.VP8

    def __init__(self, source: VideoSource | None, name: str) -> None:
        self._frame_rate = _frame_rate_of(source)
        super().__init__(
            clock=VIDEO_CLOCK, ticks_per_frame=VIDEO_CLOCK // self._frame_rate, name=name
        )
        self._given = source
        self._source = source
        self._there = asyncio.Event()
        if source is not None:
            self._there.set()
        self._control = BitrateControl()
        self._repairs = RepairBudget()
        self._missing = Missing()
        self._round_trip: float | None = None
        self._ladder = Ladder()
        self._encoder = VP8Encoder(self._frame_rate, self._control.bit_rate)
        self._pictures = 0
        self._ahead: VideoFrame | None = None
        self._size = _BLACK_SIZE
        self._idle = 0
        self._key_frame_wanted = True
        self._key_frame_at = float("-inf")
        self._recent: deque[tuple[float, int]] = deque()

    @property
    def path_rate(self) -> int | None:
        """What the network gives this picture, in bits a second; None while none is sent."""
        return None if self._absent else self._control.bit_rate

    async def change_source(self, source: VideoSource | None) -> None:
        """Send this in the place of what was sent, or nothing; the former source is closed.

        Key and counter stay as they are (CALL-35). When this returns, nothing of the former source
        is sent any more. The source belongs to the stream from here on, also if cancelled.
        """
        self._there.clear()
        self._changes += 1
        first, self._first = self._first, None
        if first is not None:
            first.cancel()
        former, self._given = self._given, source
        if former is not None:
            _close(former)  # which ends a read that blocks
        try:
            await self._worker.run(lambda: self._take(source))
        finally:
            if source is not None and source is self._given:
                self._pacer.change(VIDEO_CLOCK // self._frame_rate)
                self._there.set()

    def restart(self) -> None:
        """Begin with a key frame."""
        self._key_frame_wanted = True
        self._key_frame_at = float("-inf")

    def feedback(self, packet: AnyRtcpPacket) -> None:
        """Take a key frame request (RFC 4585, RFC 5104), an estimate (REMB) or a report of loss.

        Of what the peer wants to have sent again only as much stays in the packet as may be.
        """
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            now = time.monotonic()
            for report in packet.reports:
                if report.ssrc == self.ssrc:
                    self._control.loss(report.fraction_lost / 256, now)
                    self._round_trip = round_trip(report, current_ntp_time()) or self._round_trip
        if isinstance(packet, RtcpRtpfbPacket):
            # aiortc sends again what is still in the list when this returns.
            packet.lost = self._repair(packet.lost)
        if not isinstance(packet, RtcpPsfbPacket):
            return
        if packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self._key_frame_wanted = True
        elif packet.fmt == RTCP_PSFB_APP:
            try:
                allowed, _ = unpack_remb_fci(packet.fci)
            except ValueError:
                return
            now = time.monotonic()
            self._control.estimate(allowed, self._sent_rate(now), now)

    def _repair(self, lost: Sequence[int]) -> list[int]:
        """Return which of the lost packets are sent again."""
        now = time.monotonic()
        sizes = [size for at, size in self._recent if at >= now - MISSING_WINDOW]
        sent = sum(-(-size // PACKET_BYTES) for size in sizes)
        if self._control.missing(self._missing.share(lost, sent, now), now):
            return []
        times = 2 if self._control.loses_much else 1
        return self._repairs.take(lost, self._control.bit_rate, self._round_trip, now, times=times)

    @property
    def _absent(self) -> bool:
        return self._given is None

    async def _wait_for_source(self) -> None:
        await self._there.wait()

    def _take(self, source: VideoSource | None) -> None:
        """Go on with another source. In the thread, between two frames."""
        self._ahead, self._source = None, source
        frame_rate = _frame_rate_of(source)
        if frame_rate != self._frame_rate:
            self._frame_rate = frame_rate
            self._encoder = VP8Encoder(frame_rate, self._control.bit_rate)
        self._idle = 0
        self._key_frame_wanted = True

    def _open(self) -> None:
        self._ahead = self._read()
        if self._ahead is not None:
            self._encoder.open(self._ahead.width & ~1, self._ahead.height & ~1)

    def _encode(self) -> bytes | None:
        frame = None if self.muted else self._read()
        if frame is None:
            frame = self._black_now_and_then()
            if frame is None:
                return None
        else:
            self._idle = 0
            self._size = (frame.width & ~1, frame.height & ~1)
        try:
            fitted = self._fitted(frame)
            if fitted is None:
                return None
            return self._encoder.encode(fitted, key_frame=self._take_key_frame_request())
        except Exception:
            if self._source is None:
                raise
            logger.exception("a video source gave what cannot be encoded; it is dropped")
            self._source = None
            return None

    def _fitted(self, frame: VideoFrame) -> VideoFrame | None:
        """Return the picture in the size that suits the rate, or None if it is left out."""
        pixel_rate = frame.width * frame.height * self._frame_rate
        bit_rate = useful(self._control.bit_rate, pixel_rate)
        rung = self._ladder.choose(bit_rate, pixel_rate, time.monotonic())
        self._pictures += 1
        if self._pictures % rung.every and not self._idle:
            return None
        self._encoder.aim(bit_rate, self._frame_rate / rung.every)
        if rung.eighths == 8:
            return frame
        width, height = scaled(frame.width, frame.height, rung)
        return frame.reformat(width=width, height=height)

    def _read(self) -> VideoFrame | None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None or self._source is None:
            return ahead
        try:
            frame = self._source.read()
        except Exception:
            logger.exception("a video source failed; a black picture is sent from here on")
            frame = None
        if frame is None:
            self._source = None
        return frame

    def _black_now_and_then(self) -> VideoFrame | None:
        due = self._idle % self._frame_rate == 0 or self._key_frame_wanted
        self._idle += 1
        return black(*self._size) if due else None

    def _take_key_frame_request(self) -> bool:
        now = time.monotonic()
        if not self._key_frame_wanted or now - self._key_frame_at < KEY_FRAME_INTERVAL:
            return False
        self._key_frame_wanted = False
        self._key_frame_at = now
        return True

    def _count(self, data: bytes) -> None:
        super()._count(data)
        self._key_frames += is_key_frame(data)
        now = time.monotonic()
        self._recent.append((now, len(data)))
        while self._recent[0][0] < now - _RATE_WINDOW:
            self._recent.popleft()

    def _sent_rate(self, now: float) -> int:
        total = sum(size for at, size in self._recent if at >= now - _RATE_WINDOW)
        return int(total * 8 / _RATE_WINDOW)

    def _close_source(self) -> None:
        if self._given is not None:
            self._given.close()

    def _drop_encoder(self) -> None:
        self._encoder.close()


def round_trip(report: RtcpReceiverInfo, ntp: int) -> float | None:
    """Return the seconds that a report of reception tells of the way and back (RFC 3550, 6.4.1).

    None if it answers no report of ours, or if a clock was set meanwhile.
    """
    taken = ((ntp >> 16) - report.lsr - report.dlsr & 0xFFFF_FFFF) / 65_536
    return taken if report.lsr and taken < MAX_ROUND_TRIP else None


def _frame_rate_of(source: VideoSource | None) -> int:
    if source is None:
        return DEFAULT_FRAME_RATE
    return min(max(int(source.frame_rate), 1), MAX_FRAME_RATE)


def _close(source: VideoSource) -> None:
    try:
        source.close()
    except Exception:
        logger.exception("a source failed to close")
