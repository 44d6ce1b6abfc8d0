"""Pictures that are sent (spec/media.md, "Video"); see `outgoing` for what they share with sound.

What the receiver's reports mean for the rate is `bitrate`, for what is sent again `repair`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from aiortc.clock import current_ntp_time
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
from av import VideoFrame

from e2ecall.media.bitrate import BitrateControl
from e2ecall.media.encoders.vp8 import VP8Encoder
from e2ecall.media.ladder import Ladder, scaled, useful
from e2ecall.media.outgoing import OutgoingStream
from e2ecall.media.repair import MISSING_WINDOW, PACKET_BYTES, Missing, RepairBudget
from e2ecall.media.sources import MAX_FRAME_RATE, VIDEO_CLOCK, VideoSource, black
from e2ecall.media.video_jitter import is_key_frame
from e2ecall.protocol.messages import Codec

logger: Final = logging.getLogger(__name__)

KEY_FRAME_INTERVAL: Final = 0.5
"""Seconds between key frames that the peer asks for: each is several times a usual frame."""

DEFAULT_FRAME_RATE: Final = 30
"""Pictures a second of a stream that has no source yet."""

MAX_ROUND_TRIP: Final = 5.0
"""Seconds; what is longer is a clock that was set."""

_BLACK_SIZE: Final = (640, 360)
_RATE_WINDOW: Final = 1.0


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
        if self._control.missing(self._missing.share(lost, sent, now), sent, now):
            return []
        return self._repairs.take(
            lost,
            self._control.bit_rate,
            self._round_trip,
            now,
            size=sum(sizes) / sent if sent else PACKET_BYTES,
            times=2 if self._control.loses_much else 1,
        )

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
