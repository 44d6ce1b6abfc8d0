"""Every private point of aiortc and aioice that the engine holds on to, in one place.

`check` builds real objects and refuses to run where a point is missing or has another shape: a
silent mismatch would send or render unencrypted media (MEDIA-08). Verified against aiortc 1.16
and aioice 0.13.
"""

import asyncio
import contextlib
import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

from aioice import Connection
from aioice.ice import StunProtocol
from aioice.turn import TurnClientMixin, TurnClientTcpProtocol, TurnTransport
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import (
    NackGenerator,
    RemoteStreamTrack,
    RTCRtpReceiver,
    StreamStatistics,
)
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtp import (
    RTP_HISTORY_SIZE,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
)
from av import AudioFrame, VideoFrame

from e2ecall.errors import MediaError

logger: Final = logging.getLogger(__name__)

_BUFFER: Final = "_RTCRtpReceiver__jitter_buffer"
_DECODER_QUEUE: Final = "_RTCRtpReceiver__decoder_queue"
_DECODER_THREAD: Final = "_RTCRtpReceiver__decoder_thread"
_STATISTICS: Final = "_RTCRtpReceiver__remote_streams"
_NACKS: Final = "_RTCRtpReceiver__nack_generator"
_MAX_JITTER: Final = 0xFFFF_FFFF  # RFC 3550 section 6.4.1: 32 bits
_DECODER_POLL: Final = 0.002
_RECEIVED_SHUTDOWN: Final = 2  # OpenSSL's SSL_RECEIVED_SHUTDOWN
_SEND_TASKS: Final = "_TurnTransport__send_tasks"


class PacketTaker(Protocol):
    """What stands in for aiortc's jitter buffer."""

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet; return whether to ask for a key frame, and a frame to decode."""
        ...


class FrameQueue(asyncio.Queue[AudioFrame | VideoFrame | None]):
    """Decoded frames that wait for a sink; the oldest makes room for the newest (MEDIA-09)."""

    def __init__(self, frames: int, pixels: int) -> None:
        super().__init__()
        self._frames, self._pixels = frames, pixels
        self._held = 0
        self.dropped = 0

    async def put(self, item: AudioFrame | VideoFrame | None) -> None:
        """Take a frame, or None at the end, without waiting; called by the decoder's thread."""
        self._held += _pixels(item)
        self.put_nowait(item)
        while self.qsize() > self._frames or (self._held > self._pixels and self.qsize() > 1):
            self.get_nowait()
            self.dropped += 1

    def get_nowait(self) -> AudioFrame | VideoFrame | None:
        """Return the oldest frame."""
        item = super().get_nowait()
        self._held -= _pixels(item)
        return item


def _pixels(item: AudioFrame | VideoFrame | None) -> int:
    return item.width * item.height if isinstance(item, VideoFrame) else 0


class _Statistics(StreamStatistics):
    """What a report says of a stream. aiortc packs the jitter of a peer's nonsense into 32 bits."""

    @property
    def jitter(self) -> int:
        return min(super().jitter, _MAX_JITTER)


class _StatisticsBySSRC(dict[int, StreamStatistics]):
    """aiortc's table, in which every entry becomes one that fits into a report."""

    def __setitem__(self, ssrc: int, statistics: StreamStatistics) -> None:
        super().__setitem__(ssrc, _Statistics(statistics._clockrate))  # noqa: SLF001


def new_receiver(
    kind: str,
    transport: RTCDtlsTransport,
    rtcp_ssrc: int,
    *,
    decoded: FrameQueue,
    reported: Callable[[int, int, int], None],
) -> RTCRtpReceiver:
    """Return a receiver with a track, whose reports come from ``rtcp_ssrc``.

    Decoded frames go to ``decoded``, and of each report of a sender its SSRC and its NTP and RTP
    time stamps to ``reported``. It asks for no packet by itself. A BYE and the end of the
    transport do not touch the decoder: aiortc would wait for it on the media loop. It is ended by
    `stop_receiver`.
    """
    receiver = RTCRtpReceiver(kind, transport)
    track = RemoteStreamTrack(kind)
    track._queue = decoded  # noqa: SLF001
    receiver._track = track  # noqa: SLF001
    receiver._set_rtcp_ssrc(rtcp_ssrc)  # noqa: SLF001
    setattr(receiver, _STATISTICS, _StatisticsBySSRC())
    # It asks for everything that ever was missing, also for what was given up long ago.
    setattr(receiver, _NACKS, None)
    handle = receiver._handle_rtcp_packet  # noqa: SLF001

    async def without_bye(packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            about = packet.sender_info
            reported(packet.ssrc, about.ntp_timestamp, about.rtp_timestamp)
        # Whether the peer has left is what DTLS says: the end of a call is authenticated there.
        if not isinstance(packet, RtcpByePacket):
            await handle(packet)

    receiver._handle_rtcp_packet = without_bye  # type: ignore[method-assign]  # noqa: SLF001
    receiver._handle_disconnect = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
    return receiver


async def stop_receiver(receiver: RTCRtpReceiver) -> None:
    """Stop a receiver without waiting for its decoder on the loop; drop what it had not decoded."""
    thread = cast("threading.Thread | None", getattr(receiver, _DECODER_THREAD))
    if thread is not None:
        backlog = decoder_queue(receiver)
        with contextlib.suppress(queue.Empty):
            while True:
                backlog.get_nowait()
        backlog.put(None)
        while thread.is_alive():  # noqa: ASYNC110 - a thread has no event to wait for
            await asyncio.sleep(_DECODER_POLL)
    await receiver.stop()


def replace_jitter_buffer(receiver: RTCRtpReceiver, buffer: PacketTaker) -> None:
    """Make ``receiver`` hand its packets to ``buffer``."""
    setattr(receiver, _BUFFER, buffer)


def decoder_queue(
    receiver: RTCRtpReceiver,
) -> "queue.Queue[tuple[RTCRtpCodecParameters, JitterFrame] | None]":
    """Return the queue in front of the receiver's decoder thread."""
    return cast(
        "queue.Queue[tuple[RTCRtpCodecParameters, JitterFrame] | None]",
        getattr(receiver, _DECODER_QUEUE),
    )


def statistics(receiver: RTCRtpReceiver, ssrc: int) -> StreamStatistics | None:
    """Return what the reports say of a stream, once a packet of it came."""
    table = cast("dict[int, StreamStatistics]", getattr(receiver, _STATISTICS))
    return table.get(ssrc)


def waiting_frames(receiver: RTCRtpReceiver) -> int:
    """Return how many decoded frames nobody has taken yet."""
    return cast("RemoteStreamTrack", receiver.track)._queue.qsize()  # noqa: SLF001


def new_sender(
    track: MediaStreamTrack, transport: RTCDtlsTransport, ssrc: int, rtx_ssrc: int | None
) -> RTCRtpSender:
    """Return a sender with the SSRCs of the description."""
    sender = RTCRtpSender(track, transport)
    sender._ssrc = ssrc  # noqa: SLF001
    if rtx_ssrc is not None:
        sender._rtx_ssrc = rtx_ssrc  # noqa: SLF001
    return sender


def observe_feedback(sender: RTCRtpSender, observe: Callable[[AnyRtcpPacket], None]) -> None:
    """Show ``observe`` each RTCP packet for ``sender`` before aiortc handles it.

    A NACK is cut to what the sender remembers, so that a small packet cannot ask for thousands.
    What it asks for behind 65535 comes from aiortc as a number that no packet has.
    """
    handle = sender._handle_rtcp_packet  # noqa: SLF001

    async def observed(packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpRtpfbPacket):
            packet.lost = [number & 0xFFFF for number in packet.lost[:RTP_HISTORY_SIZE]]
        observe(packet)
        await handle(packet)

    sender._handle_rtcp_packet = observed  # type: ignore[method-assign]  # noqa: SLF001


def observe_authentic(
    transport: RTCDtlsTransport, authentic: Callable[[], None], malformed: Callable[[], None]
) -> None:
    """Call ``authentic`` for each packet that SRTP verified.

    What aiortc then fails to parse is counted as ``malformed``; by itself it would end the call.
    """

    def guarded(handle: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def observed(*args: Any, **kwargs: Any) -> None:
            authentic()
            try:
                await handle(*args, **kwargs)
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 - a peer's packet must not end the loop
                malformed()
                logger.debug("an RTP or RTCP packet was ignored: %s", type(error).__name__)

        return observed

    untyped: Any = transport
    untyped._handle_rtp_data = guarded(untyped._handle_rtp_data)  # noqa: SLF001
    untyped._handle_rtcp_data = guarded(untyped._handle_rtcp_data)  # noqa: SLF001


def fix_roles(ice: RTCIceTransport, dtls: RTCDtlsTransport, *, controlling: bool) -> None:
    """Make this end ICE controlling and DTLS client, or ICE controlled and DTLS server."""
    ice._connection.ice_controlling = controlling  # noqa: SLF001
    ice._role_set = True  # noqa: SLF001
    dtls._set_role("client" if controlling else "server")  # noqa: SLF001


def ended_by_peer(dtls: RTCDtlsTransport) -> bool:
    """Return whether the peer closed the connection with an authenticated close_notify."""
    ssl = dtls._ssl  # noqa: SLF001
    return ssl is not None and bool(ssl.get_shutdown() & _RECEIVED_SHUTDOWN)


_METHODS: Final[tuple[tuple[type, str, tuple[str, ...]], ...]] = (
    (RTCRtpReceiver, "_handle_disconnect", ("self",)),
    (RTCRtpReceiver, "_handle_rtcp_packet", ("self", "packet")),
    (RTCRtpReceiver, "_handle_rtp_packet", ("self", "packet", "arrival_time_ms")),
    (RTCRtpReceiver, "_send_rtcp_nack", ("self", "media_ssrc", "lost")),
    (RTCRtpReceiver, "_send_rtcp_pli", ("self", "media_ssrc")),
    (RTCRtpReceiver, "_set_rtcp_ssrc", ("self", "ssrc")),
    (StreamStatistics, "__init__", ("self", "clockrate")),
    (JitterBuffer, "add", ("self", "packet")),
    (JitterFrame, "__init__", ("self", "data", "timestamp")),
    (RTCRtpSender, "_handle_rtcp_packet", ("self", "packet")),
    (RTCRtpSender, "_next_encoded_frame", ("self", "codec")),
    (RTCDtlsTransport, "_handle_rtp_data", ("self", "data", "arrival_time_ms")),
    (RTCDtlsTransport, "_handle_rtcp_data", ("self", "data")),
    (RTCDtlsTransport, "_set_role", ("self", "role")),
    (Connection, "get_component_candidates", ("self", "component", "addresses", "timeout")),
    (Connection, "check_incoming", ("self", "message", "addr", "protocol")),
    (Connection, "data_received", ("self", "data", "component")),
    (Connection, "sendto", ("self", "data", "component")),
    (StunProtocol, "request", ("self", "request", "addr", "integrity_key", "retransmissions")),
    (StunProtocol, "send_stun", ("self", "message", "addr")),
    (StunProtocol, "close", ("self",)),
    (TurnTransport, "_close", ("self",)),
    (TurnTransport, "_connect", ("self", "protocol")),
    (TurnClientMixin, "datagram_received", ("self", "data", "addr")),
    (TurnClientMixin, "request", ("self", "request")),
    (TurnClientMixin, "send_stun", ("self", "message", "addr")),
    (TurnClientTcpProtocol, "_send", ("self", "data")),
    (
        TurnClientMixin,
        "__init__",
        ("self", "server", "username", "password", "lifetime", "channel_refresh_time"),
    ),
)

_USES: Final[tuple[tuple[Callable[..., object], str], ...]] = (
    (RTCRtpReceiver._handle_rtp_packet, _BUFFER),  # noqa: SLF001
    (RTCRtpReceiver._handle_rtp_packet, _DECODER_QUEUE),  # noqa: SLF001
    (RTCRtpReceiver._handle_rtp_packet, _STATISTICS),  # noqa: SLF001
    (RTCRtpReceiver._handle_rtp_packet, _NACKS),  # noqa: SLF001
    (RTCRtpReceiver._run_rtcp, _STATISTICS),  # noqa: SLF001
    (RTCRtpReceiver._run_rtcp, "jitter"),  # noqa: SLF001
    (RTCRtpReceiver.receive, _DECODER_THREAD),
    (RTCRtpReceiver.receive, "_queue"),
    (RTCRtpSender._next_encoded_frame, "pack"),  # noqa: SLF001
    (RTCDtlsTransport._recv_next, "_handle_rtp_data"),  # noqa: SLF001
    (RTCDtlsTransport._recv_next, "_handle_rtcp_data"),  # noqa: SLF001
    (TurnTransport.__init__, _SEND_TASKS),
    (TurnTransport._close, _SEND_TASKS),  # noqa: SLF001
)


def check() -> None:
    """Refuse a library in which a hook point is not as expected. Needs a running asyncio loop.

    Raises:
        MediaError: naming the first point that differs.
    """
    for owner, name, parameters in _METHODS:
        method = getattr(owner, name, None)
        if method is None or tuple(inspect.signature(method).parameters) != parameters:
            raise _differs(f"{owner.__name__}.{name}")
    for function, name in _USES:
        if name not in function.__code__.co_names:
            raise _differs(f"{function.__qualname__} -> {name}")
    _check_instances()


def _check_instances() -> None:
    gatherer = RTCIceGatherer(iceServers=[])
    ice = RTCIceTransport(gatherer)
    dtls = RTCDtlsTransport(ice, [RTCCertificate.generateCertificate()])
    receiver, sender = RTCRtpReceiver("video", dtls), RTCRtpSender("video", dtls)
    points: tuple[tuple[object, str, type], ...] = (
        (gatherer, "_connection", Connection),
        (ice, "_connection", Connection),
        (ice, "_role_set", bool),
        (ice._connection, "ice_controlling", bool),  # noqa: SLF001
        (ice._connection, "_protocols", list),  # noqa: SLF001
        (ice._connection, "_check_list", list),  # noqa: SLF001
        (ice._connection, "_nominated", dict),  # noqa: SLF001
        (ice._connection, "_queue", object),  # noqa: SLF001
        (dtls, "_ssl", object),
        (receiver, _BUFFER, JitterBuffer),
        (receiver, _DECODER_QUEUE, queue.Queue),
        (receiver, _DECODER_THREAD, object),
        (receiver, _STATISTICS, dict),
        (receiver, _NACKS, NackGenerator),
        (StreamStatistics(90_000), "_clockrate", int),
        (StreamStatistics(90_000), "jitter", int),
        (StreamStatistics(90_000), "packets_received", int),
        (StreamStatistics(90_000), "max_seq", object),
        (receiver, "_track", object),
        (RemoteStreamTrack("video"), "_queue", object),
        (sender, "_ssrc", int),
        (sender, "_rtx_ssrc", int),
    )
    for instance, name, kind in points:
        if not hasattr(instance, name) or not isinstance(getattr(instance, name), kind):
            raise _differs(f"{type(instance).__name__}.{name}")


def _differs(point: str) -> MediaError:
    return MediaError(
        f"this version of aiortc or aioice differs at {point}",
        hint="Install the versions that this package asks for.",
    )
