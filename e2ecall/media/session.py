"""A media transport on the media loop: allocation, ICE, DTLS, RTP, liveness, end.

spec/media.md, "Life of a transport". `e2ecall.media.peer` is how the rest of the program reaches
it. It is used once: a path that dies is replaced by a new transport.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from aiortc import RTCDtlsTransport, RTCIceTransport, RTCRtpSender
from aiortc.stats import RTCRemoteInboundRtpStreamStats

from e2ecall.errors import LocalProtocolError, MediaError, RemoteProtocolError
from e2ecall.media import description, hooks
from e2ecall.media.epochs import EpochChange, Epochs
from e2ecall.media.events import (
    FailureReason,
    KeyWorn,
    MediaConnected,
    MediaEvent,
    MediaFailed,
    MediaStats,
    PeerClosed,
    Quality,
)
from e2ecall.media.ice import RelayConnection, allocate, relay_gatherer
from e2ecall.media.identity import MediaIdentity
from e2ecall.media.incoming import IncomingStream
from e2ecall.media.outgoing import OutgoingAudio, OutgoingStream, OutgoingVideo
from e2ecall.media.quality import Counted, QualityMeter
from e2ecall.media.sinks import NullSink, Sink
from e2ecall.media.sources import AudioSource, Source, VideoSource
from e2ecall.protocol.description import (
    RELAYED_NETWORKS,
    check_candidates,
    check_media_description,
)
from e2ecall.protocol.messages import Candidate, MediaDescription, Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender

logger: Final = logging.getLogger(__name__)

STEP_TIMEOUT: Final = 5.0
"""Seconds for each part that is closed: sinks are not ours, and may finish a file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Time limits in seconds, and where relayed addresses may lie."""

    connect_timeout: float = 15.0
    """For ICE and DTLS together; aiortc alone would try for more than a minute."""
    silence_timeout: float = 12.0
    """Without anything authentic from the peer; it reports at least every 1.5 s."""
    watch_interval: float = 0.5
    quality_interval: float = 2.0
    undecryptable_frames: int = 150
    """Refused frames with no authentic one of any stream between: about 2 s of a call."""
    networks: tuple[ipaddress.IPv4Network, ...] = RELAYED_NETWORKS


class MediaSession:
    """One side of one media transport."""

    def __init__(
        self, identity: MediaIdentity, settings: Settings, report: Callable[[MediaEvent], None]
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._send_report = report
        self._over = False
        self._gathering: asyncio.Task[Any] | None = None
        self._connection: RelayConnection | None = None
        self._ice: RTCIceTransport | None = None
        self._dtls: RTCDtlsTransport | None = None
        self._gatherer: Any = None
        self._outgoing: dict[Stream, OutgoingStream] = {}
        self._senders: list[RTCRtpSender] = []
        self._incoming: dict[Stream, IncomingStream] = {}
        self._epochs: Epochs | None = None
        self._sinks: list[Sink] = []
        self._muted: set[Stream] = set()
        self._silenced: set[Stream] = set()
        self._tasks: list[asyncio.Task[Any]] = []
        self._life: asyncio.Task[None] | None = None
        self._dtls_ended = asyncio.Event()
        self._heard_at = 0.0
        self._malformed = self._refused_in_a_row = 0
        self._started = self._closed = False
        self._ready_to_send = asyncio.Event()
        self._releasing: asyncio.Task[None] | None = None

    # --- before the call is accepted ----------------------------------------------------------

    async def gather(self, turn_uri: str, username: str, password: str) -> tuple[Candidate, ...]:
        """See `MediaPeer.gather`."""
        if self._gathering is not None or self._closed:
            raise LocalProtocolError("this media transport has gathered already")
        local = self._identity.description
        self._gatherer, self._connection = relay_gatherer(
            turn_uri, username, password, ice_ufrag=local.ice_ufrag, ice_pwd=local.ice_pwd
        )
        self._gathering = asyncio.current_task()
        candidates = await allocate(self._connection)
        try:
            check_candidates(candidates, allowed_networks=self._settings.networks)
        except RemoteProtocolError as error:
            raise MediaError("the relay gave an address that no call may use") from error
        return candidates

    async def prepare(self, sources: Mapping[Stream, Source]) -> None:
        """See `MediaPeer.prepare`."""
        self._take_sources(sources)
        await self._open_encoders()

    async def set_muted(self, stream: Stream, muted: bool) -> None:
        """See `MediaPeer.set_muted`."""
        (self._muted.add if muted else self._muted.discard)(stream)
        if stream in self._outgoing:
            self._outgoing[stream].muted = muted

    async def set_silenced(self, stream: Stream, silenced: bool) -> None:
        """See `MediaPeer.set_silenced`."""
        (self._silenced.add if silenced else self._silenced.discard)(stream)
        if stream in self._incoming:
            self._incoming[stream].silenced = silenced

    async def set_source(self, stream: Stream, source: VideoSource | None) -> None:
        """See `MediaPeer.set_source`."""
        track = self._outgoing.get(stream)
        if not isinstance(track, OutgoingVideo) or self._closed:
            if source is not None:
                source.close()
            raise LocalProtocolError("this media transport sends no such picture")
        await track.change_source(source)

    # --- after it -------------------------------------------------------------------------------

    async def start(
        self,
        *,
        controlling: bool,
        remote: MediaDescription,
        remote_candidates: Sequence[Candidate],
        sender_keys: Mapping[Stream, SFrameSender],
        receiver: SFrameReceiver,
        sources: Mapping[Stream, Source] | None,
        sinks: Mapping[Stream, Sink],
    ) -> None:
        """See `MediaPeer.start`."""
        if self._started or self._closed or self._connection is None or self._gatherer is None:
            raise LocalProtocolError("a media transport starts once, after gathering")
        # Checked when they came in, and again here where they are used.
        check_media_description(remote)
        check_candidates(remote_candidates, allowed_networks=self._settings.networks)
        missing = {d.stream for d in self._identity.description.streams} - sender_keys.keys()
        if missing:
            raise LocalProtocolError("every stream that is described needs its frame key")
        if sources is not None or not self._outgoing:
            self._take_sources(sources or {})
        self._started = True
        self._connection.expected = description.payload_types(remote)
        ice, dtls = self._transports(controlling=controlling)
        self._epochs = Epochs(receiver, self._outgoing, self._report)
        await self._receive(remote, receiver, sinks, dtls)
        self._life = self._spawn(self._live(ice, dtls, remote, remote_candidates))
        await self._open_encoders()
        for stream, track in self._outgoing.items():
            track.begin(sender_keys[stream], lambda epoch: self._report(KeyWorn(epoch)))
        self._ready_to_send.set()

    def change_epoch(self, change: EpochChange) -> None:
        """See `MediaPeer.change_epoch`."""
        if self._epochs is not None and not self._closed:
            self._epochs.change(change)

    def stats(self) -> MediaStats:
        """Return the counters; safe from any thread."""
        path = self._connection
        return MediaStats(
            datagrams_sent=path.datagrams_sent if path else 0,
            datagrams_received=path.datagrams_received if path else 0,
            datagrams_ignored=(path.datagrams_ignored if path else 0) + self._malformed,
            sent={stream: track.stats for stream, track in self._outgoing.copy().items()},
            received={stream: track.stats for stream, track in self._incoming.copy().items()},
        )

    async def close(self) -> None:
        """End everything; idempotent."""
        self._closed = True
        for track in self._outgoing.values():
            track.stop()  # whatever takes its time below, nothing is read or sent any more
        if self._gathering is not None and self._gathering is not asyncio.current_task():
            await _cancelled(self._gathering)
        if self._life is not None:
            await _cancelled(self._life)
        await self._release()

    def _take_sources(self, sources: Mapping[Stream, Source]) -> None:
        if self._outgoing or self._closed:
            raise LocalProtocolError("sources are given to a media transport once")
        described = {one.stream: one for one in self._identity.description.streams}
        for stream, source in sources.items():
            kind = AudioSource if description.kind_of(stream) == "audio" else VideoSource
            if stream not in described or not isinstance(source, kind):
                raise LocalProtocolError("a source does not fit the streams of this transport")
        for stream, about in described.items():
            given, name = sources.get(stream), stream.name.lower()
            if description.kind_of(stream) == "audio":
                self._outgoing[stream] = OutgoingAudio(
                    cast("AudioSource | None", given), name, about.payload_type, self._path_rate
                )
            else:
                self._outgoing[stream] = OutgoingVideo(cast("VideoSource | None", given), name)
        for stream, track in self._outgoing.items():
            track.muted = stream in self._muted

    def _path_rate(self) -> int | None:
        """Return what the network gives the pictures, all together; None if none is sent."""
        videos = [track for track in self._outgoing.values() if isinstance(track, OutgoingVideo)]
        rates = [track.path_rate for track in videos if track.path_rate is not None]
        return sum(rates) if rates else None

    async def _open_encoders(self) -> None:
        await asyncio.gather(*(track.prepare() for track in self._outgoing.values()))

    def _transports(self, *, controlling: bool) -> tuple[RTCIceTransport, RTCDtlsTransport]:
        self._ice = ice = RTCIceTransport(self._gatherer)
        self._dtls = dtls = RTCDtlsTransport(ice, [self._identity.certificate])
        hooks.fix_roles(ice, dtls, controlling=controlling)
        hooks.observe_authentic(dtls, self._heard, self._count_malformed)
        return ice, dtls

    async def _receive(
        self,
        remote: MediaDescription,
        decryptor: SFrameReceiver,
        sinks: Mapping[Stream, Sink],
        dtls: RTCDtlsTransport,
    ) -> None:
        epochs = self._epochs
        assert epochs is not None
        # Before the handshake, so that the peer's very first packet finds its receiver.
        rtcp_ssrc = self._identity.description.streams[0].ssrc
        for described in remote.streams:
            sink = sinks.get(described.stream) or NullSink()
            if not any(sink is known for known in self._sinks):
                self._sinks.append(sink)
            incoming = IncomingStream(
                described,
                decryptor=decryptor,
                sink=sink,
                report=self._report,
                verdict=self._judge,
                authenticated=epochs.authenticated,
            )
            incoming.silenced = described.stream in self._silenced
            self._incoming[described.stream] = incoming
            await incoming.start(dtls, rtcp_ssrc)
            self._spawn(incoming.deliver())
            self._spawn(incoming.send_feedback())

    async def _live(
        self,
        ice: RTCIceTransport,
        dtls: RTCDtlsTransport,
        remote: MediaDescription,
        candidates: Sequence[Candidate],
    ) -> None:
        """Connect, send, watch; then end media and say why."""
        event: MediaEvent
        try:
            failure = await self._connect(ice, dtls, remote, candidates)
            if failure is None:
                await self._ready_to_send.wait()
                await self._send(dtls)
                self._report(MediaConnected(time.monotonic()))
                self._spawn(self._tell_quality())
                event = await self._watch(dtls)
            else:
                event = MediaFailed(failure)
        except Exception:
            logger.exception("the media transport failed")
            event = MediaFailed(FailureReason.INTERNAL)
        # The last event comes last: what is decoded from here on is neither told nor rendered.
        for incoming in self._incoming.values():
            incoming.end()
        self._report(event)
        self._over = True
        await self._release()

    async def _connect(
        self,
        ice: RTCIceTransport,
        dtls: RTCDtlsTransport,
        remote: MediaDescription,
        candidates: Sequence[Candidate],
    ) -> FailureReason | None:
        for candidate in candidates:
            await ice.addRemoteCandidate(description.ice_candidate(candidate))
        await ice.addRemoteCandidate(None)
        dtls.on("statechange", lambda: self._dtls_ended.set() if dtls.state == "closed" else None)
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await ice.start(description.ice_parameters(remote))
                if ice.state != "completed":
                    return FailureReason.NOT_CONNECTED
                await dtls.start(description.dtls_parameters(remote))
        except TimeoutError:
            return FailureReason.NOT_CONNECTED
        if dtls.state == "connected":
            return None
        # The handshake itself succeeded: then it was the certificate that did not match.
        return FailureReason.WRONG_FINGERPRINT if dtls.encrypted else FailureReason.NOT_CONNECTED

    async def _send(self, dtls: RTCDtlsTransport) -> None:
        for described in self._identity.description.streams:
            track = self._outgoing.get(described.stream)
            if track is None:
                continue
            sender = hooks.new_sender(track, dtls, described.ssrc, described.rtx_ssrc)
            track.ssrc = described.ssrc
            hooks.observe_feedback(sender, track.feedback)
            await sender.send(description.send_parameters(described))
            self._senders.append(sender)

    async def _tell_quality(self) -> None:
        meter = QualityMeter(time.monotonic())
        while True:
            await asyncio.sleep(self._settings.quality_interval)
            quality: Quality = meter.measure(await self._counted(), time.monotonic())
            self._report(quality)

    async def _counted(self) -> Counted:
        sent = [track.stats for track in self._outgoing.values()]
        incoming = tuple(self._incoming.values())
        arrivals = [stream.arrivals for stream in incoming]
        reports = [
            entry
            for sender in self._senders
            for entry in (await sender.getStats()).values()
            if isinstance(entry, RTCRemoteInboundRtpStreamStats)
        ]
        return Counted(
            bytes_sent=sum(stats.bytes for stats in sent),
            bytes_received=sum(stream.stats.bytes for stream in incoming),
            packets_expected=sum(expected for expected, _, _ in arrivals),
            packets_received=sum(received for _, received, _ in arrivals),
            freezes=sum(stream.freezes.freezes for stream in incoming),
            frozen=sum(stream.freezes.frozen for stream in incoming),
            # Until its first answer aiortc has None there.
            round_trips=tuple(r.roundTripTime for r in reports if r.roundTripTime is not None),
            lost_by_peer=tuple(report.fractionLost / 256 for report in reports),
            jitter=arrivals[0][2] if arrivals else 0.0,
        )

    async def _watch(self, dtls: RTCDtlsTransport) -> MediaEvent:
        self._heard()
        while True:
            try:
                async with asyncio.timeout(self._settings.watch_interval):
                    await self._dtls_ended.wait()
            except TimeoutError:
                pass
            else:
                if hooks.ended_by_peer(dtls):
                    return PeerClosed()
                return MediaFailed(FailureReason.TRANSPORT_LOST)
            if time.monotonic() - self._heard_at > self._settings.silence_timeout:
                return MediaFailed(FailureReason.SILENT)
            if self._refused_in_a_row >= self._settings.undecryptable_frames:
                return MediaFailed(FailureReason.UNDECRYPTABLE)

    def _report(self, event: MediaEvent) -> None:
        if not self._over:
            self._send_report(event)

    def _heard(self) -> None:
        self._heard_at = time.monotonic()

    def _judge(self, authentic: bool) -> None:
        self._refused_in_a_row = 0 if authentic else self._refused_in_a_row + 1

    def _count_malformed(self) -> None:
        self._malformed += 1

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.append(task)
        return task

    async def _release(self) -> None:
        """Stop what was started, once; goes on to its end whoever waits for it is cancelled."""
        if self._releasing is None:
            self._releasing = asyncio.get_running_loop().create_task(self._stop_all())
        await asyncio.shield(self._releasing)

    async def _stop_all(self) -> None:
        """Stop in aiortc's order; every step, whatever an earlier one did."""
        if self._epochs is not None:
            self._epochs.close()
        steps: list[Callable[[], Awaitable[object]]] = []
        steps += [sender.stop for sender in self._senders]
        steps += [track.close for track in self._outgoing.values()]
        steps += [incoming.stop for incoming in self._incoming.values()]
        if self._dtls is not None:
            steps.append(self._dtls.stop)
        if self._ice is not None:
            steps.append(self._ice.stop)
        elif self._connection is not None:
            steps.append(self._connection.close)
        steps.append(self._end_tasks)
        steps += [sink.close for sink in self._sinks]
        for step in steps:
            try:
                async with asyncio.timeout(STEP_TIMEOUT):
                    await step()
            except Exception:
                logger.exception("a part of the media transport failed to close")

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            if task is not self._life:
                await _cancelled(task)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])
