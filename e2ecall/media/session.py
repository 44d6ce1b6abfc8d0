"""The media of one call on the media loop: its streams, the path they take, liveness, end.

spec/media.md, "Life of a transport". `e2ecall.media.peer` is how the rest of the program reaches
it. A path that dies is replaced by another `MediaPath`; sources, sinks and keys stay.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from aiortc.stats import RTCRemoteInboundRtpStreamStats

from e2ecall.errors import LocalProtocolError
from e2ecall.media import description
from e2ecall.media.epochs import EpochChange, Epochs
from e2ecall.media.events import (
    FailureReason,
    KeyWorn,
    MediaConnected,
    MediaEvent,
    MediaFailed,
    MediaStats,
    PathAlive,
    PathFailed,
    PathLost,
    PeerClosed,
    Quality,
    ReceivedStats,
)
from e2ecall.media.identity import MediaIdentity
from e2ecall.media.incoming import IncomingStream
from e2ecall.media.lips import Lips
from e2ecall.media.outgoing import OutgoingStream
from e2ecall.media.outgoing_audio import OutgoingAudio
from e2ecall.media.outgoing_video import OutgoingVideo
from e2ecall.media.path import MediaPath, cancelled, close_all
from e2ecall.media.quality import Counted, QualityMeter
from e2ecall.media.settings import Settings
from e2ecall.media.sinks import NullSink, Sink
from e2ecall.media.sources import AudioSource, Source, VideoSource
from e2ecall.protocol.messages import Candidate, MediaDescription, Stream, StreamDescription
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender

logger: Final = logging.getLogger(__name__)

_SOUND_OF: Final = {Stream.CAMERA: Stream.MICROPHONE, Stream.SCREEN: Stream.SCREEN_SOUND}


class MediaSession:
    """One side of a call's media."""

    def __init__(
        self, identity: MediaIdentity, settings: Settings, report: Callable[[MediaEvent], None]
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._send_report = report
        self._over = False
        self._path = MediaPath(identity, settings)
        self._next: MediaPath | None = None
        self._begun = 0
        """The epoch of the newest path that the peer may have taken."""
        self._former: list[asyncio.Task[None]] = []
        self._controlling = False
        self._receiver: SFrameReceiver | None = None
        self._sink_of: Mapping[Stream, Sink] = {}
        self._earlier = MediaStats()
        self._outgoing: dict[Stream, OutgoingStream] = {}
        self._epochs: Epochs | None = None
        self._sinks: list[Sink] = []
        self._muted: set[Stream] = set()
        self._silenced: set[Stream] = set()
        self._lips = {sound: Lips() for sound in (Stream.MICROPHONE, Stream.SCREEN_SOUND)}
        self._tasks: list[asyncio.Task[Any]] = []
        self._life: asyncio.Task[None] | None = None
        self._refused_in_a_row = 0
        self._started = self._up = self._closed = False
        self._ready_to_send = asyncio.Event()
        self._releasing: asyncio.Task[None] | None = None

    # --- before the call is accepted ----------------------------------------------------------

    async def gather(
        self, turn_uris: Sequence[str], username: str, password: str
    ) -> tuple[Candidate, ...]:
        """See `MediaPeer.gather`."""
        if self._closed:
            raise LocalProtocolError("this media transport is closed")
        return await self._path.gather(turn_uris, username, password)

    async def prepare(self, sources: Mapping[Stream, Source]) -> None:
        """See `MediaPeer.prepare`."""
        self._take_sources(sources)
        await self._open_encoders()

    def set_muted(self, stream: Stream, muted: bool) -> None:
        """See `MediaPeer.set_muted`."""
        (self._muted.add if muted else self._muted.discard)(stream)
        if stream in self._outgoing:
            self._outgoing[stream].muted = muted

    def set_silenced(self, stream: Stream, silenced: bool) -> None:
        """See `MediaPeer.set_silenced`."""
        (self._silenced.add if silenced else self._silenced.discard)(stream)
        for path in filter(None, (self._path, self._next)):
            if stream in path.incoming:
                path.incoming[stream].silenced = silenced

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
        if self._started or self._closed:
            raise LocalProtocolError("a media transport starts once, after gathering")
        path = self._path
        path.check(remote, remote_candidates)
        missing = {d.stream for d in self._identity.description.streams} - sender_keys.keys()
        if missing:
            raise LocalProtocolError("every stream that is described needs its frame key")
        if sources is not None or not self._outgoing:
            self._take_sources(sources or {})
        self._started = True
        self._controlling = controlling
        self._receiver, self._sink_of = receiver, sinks
        self._epochs = Epochs(receiver, self._outgoing, self._report)
        await path.open(
            controlling=controlling, remote=remote, receive=lambda one: self._receive(one, path)
        )
        self._life = self._spawn(self._live(remote, remote_candidates))
        await self._open_encoders()
        for stream, track in self._outgoing.items():
            track.begin(sender_keys[stream], lambda epoch: self._report(KeyWorn(epoch)))
        self._ready_to_send.set()

    def change_epoch(self, change: EpochChange) -> None:
        """See `MediaPeer.change_epoch`."""
        if self._epochs is not None and not self._closed:
            self._epochs.change(change)

    def enter_epoch(self, epoch: int) -> None:
        """See `MediaPeer.enter_epoch`."""
        if self._epochs is not None and not self._closed:
            self._epochs.authenticated(epoch)

    # --- another path ---------------------------------------------------------------------------

    async def gather_path(
        self,
        identity: MediaIdentity,
        epoch: int,
        turn_uris: Sequence[str],
        username: str,
        password: str,
    ) -> tuple[Candidate, ...]:
        """See `MediaPeer.gather_path`."""
        if self._closed or self._over or not self._up:
            raise LocalProtocolError("there is no path that could be replaced")
        self._give_up(self._next)
        path = self._next = MediaPath(identity, self._settings, epoch)
        try:
            return await path.gather(turn_uris, username, password)
        except BaseException:
            self._give_up(path)
            raise

    async def replace_path(
        self, remote: MediaDescription, candidates: Sequence[Candidate], change: EpochChange
    ) -> None:
        """See `MediaPeer.replace_path`."""
        path, epochs = self._next, self._epochs
        if path is None or epochs is None or path.epoch != change.epoch or self._closed:
            raise LocalProtocolError("this path was given up")
        path.check(remote, candidates)
        self._begun = path.epoch
        epochs.prepare(change)
        await path.open(
            controlling=self._controlling,
            remote=remote,
            receive=lambda one: self._receive(one, path),
        )
        self._spawn(self._move(path, remote, candidates, change))

    async def _move(
        self,
        path: MediaPath,
        remote: MediaDescription,
        candidates: Sequence[Candidate],
        change: EpochChange,
    ) -> None:
        """Connect the new path beside the present one, and let it take its place."""
        try:
            failure = await path.connect(remote, candidates, self._settings.replace_timeout)
        except Exception:
            logger.exception("another path failed")
            failure = FailureReason.INTERNAL
        if self._next is not path or self._closed or self._over:
            return
        if failure is not None:
            self._give_up(path)
            self._report(PathFailed(path.epoch, failure))
            return
        former, self._path, self._next = self._path, path, None
        former.end()
        for incoming in path.incoming.values():
            incoming.take_over()
        self._earlier = _sum(self._earlier, former)
        self._refused_in_a_row = 0
        self._close_beside(former)  # before anything is waited for: media may end meanwhile
        await former.quiet.wait()
        assert self._epochs is not None  # media has started
        self._epochs.move(change)
        for track in self._outgoing.values():
            track.restart()
        await path.send(self._outgoing)
        self._report(PathAlive(path.epoch))

    def _close_beside(self, path: MediaPath) -> None:
        """Close a path while media goes on; a dead one takes a second."""
        closing = asyncio.get_running_loop().create_task(path.close())
        self._former = [*(known for known in self._former if not known.done()), closing]

    def _give_up(self, path: MediaPath | None) -> None:
        if path is not None and path is self._next:
            self._next = None
            path.give_up()
            self._close_beside(path)

    def stats(self) -> MediaStats:
        """Return the counters; safe from any thread."""
        total = _sum(self._earlier, self._path)
        sent = {stream: track.stats for stream, track in self._outgoing.copy().items()}
        return replace(total, sent=sent)

    async def close(self) -> None:
        """End everything; idempotent."""
        self._closed = True
        for track in self._outgoing.values():
            track.stop()  # whatever takes its time below, nothing is read or sent any more
        if self._life is not None:
            await cancelled(self._life)
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

    def _receive(self, described: StreamDescription, path: MediaPath) -> IncomingStream:
        epochs, decryptor = self._epochs, self._receiver
        assert epochs is not None  # media has started
        assert decryptor is not None
        sink = self._sink_of.get(described.stream) or NullSink()
        if not any(sink is known for known in self._sinks):
            self._sinks.append(sink)
        incoming = IncomingStream(
            described,
            decryptor=decryptor,
            sink=sink,
            report=self._report,
            verdict=self._judge,
            authenticated=epochs.authenticated,
            lips=self._lips[_SOUND_OF.get(described.stream, described.stream)],
            first_epoch=path.epoch,
            after=None if path is self._path else self._path.incoming.get(described.stream),
        )
        incoming.silenced = described.stream in self._silenced
        return incoming

    async def _live(self, remote: MediaDescription, candidates: Sequence[Candidate]) -> None:
        """Connect, send, watch; then end media and say why."""
        event: MediaEvent
        try:
            failure = await self._bring_up(self._path, remote, candidates)
            event = await self._watch() if failure is None else MediaFailed(failure)
        except Exception:
            logger.exception("the media transport failed")
            event = MediaFailed(FailureReason.INTERNAL)
        # The last event comes last: what is decoded from here on is neither told nor rendered.
        for known in filter(None, (self._path, self._next)):
            known.end()
        self._report(event)
        self._over = True
        await self._release()

    async def _bring_up(
        self, path: MediaPath, remote: MediaDescription, candidates: Sequence[Candidate]
    ) -> FailureReason | None:
        """Connect the first path and send on it; return why that failed, or None."""
        failure = await path.connect(remote, candidates, self._settings.connect_timeout)
        if failure is None:
            await self._ready_to_send.wait()
            await path.send(self._outgoing)
            self._up = True
            self._report(MediaConnected(time.monotonic()))
            self._spawn(self._tell_quality())
        return failure

    async def _tell_quality(self) -> None:
        meter = QualityMeter(time.monotonic())
        while True:
            await asyncio.sleep(self._settings.quality_interval)
            quality: Quality = meter.measure(await self._counted(), time.monotonic())
            self._report(quality)

    async def _counted(self) -> Counted:
        sent = [track.stats for track in self._outgoing.values()]
        incoming = tuple(self._path.incoming.values())
        arrivals = [stream.arrivals for stream in incoming]
        reports = [
            entry
            for sender in self._path.senders
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

    async def _watch(self) -> MediaEvent:
        """Tell when the path is lost and heard again; return why media is over."""
        told = late = False
        while True:
            looked_at = time.monotonic()
            await asyncio.sleep(self._settings.watch_interval)
            stood_still = time.monotonic() - looked_at > 2 * self._settings.watch_interval
            late = stood_still and not late
            if late:  # MEDIA-40: what came meanwhile is not read yet
                continue
            path = self._path
            silent = time.monotonic() - path.heard_at
            # MEDIA-41: a peer ends the path that it left, also where this end could not follow.
            if path.ended_by_peer and path.epoch == self._begun:
                return PeerClosed()
            lost = path.ended.is_set() or silent > self._settings.lost_after
            if lost and not told:
                self._report(PathLost(silent))
            elif told and not lost:
                self._report(PathAlive(path.epoch))
            told = lost
            if silent > self._settings.silence_timeout:
                return MediaFailed(FailureReason.SILENT)
            if self._refused_in_a_row >= self._settings.undecryptable_frames:
                return MediaFailed(FailureReason.UNDECRYPTABLE)

    def _report(self, event: MediaEvent) -> None:
        if not self._over:
            self._send_report(event)

    def _judge(self, authentic: bool) -> None:
        self._refused_in_a_row = 0 if authentic else self._refused_in_a_row + 1

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks = [*(known for known in self._tasks if not known.done()), task]
        return task

    async def _release(self) -> None:
        """Stop what was started, once; goes on to its end whoever waits for it is cancelled."""
        if self._releasing is None:
            self._releasing = asyncio.get_running_loop().create_task(self._stop_all())
        await asyncio.shield(self._releasing)

    async def _stop_all(self) -> None:
        """Stop everything; every step, whatever an earlier one did."""
        if self._epochs is not None:
            self._epochs.close()
        await close_all([self._end_tasks])  # before the paths: one may be taking over
        paths = [path for path in (self._next, self._path) if path is not None]
        tracks = list(self._outgoing.values())
        await close_all([path.stop_sending for path in paths])
        await close_all([track.close for track in tracks])
        await close_all([path.close for path in paths])
        for task in self._former:
            await asyncio.wait([task])
        await close_all([sink.close for sink in self._sinks])

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            if task is not self._life:
                await cancelled(task)


def _sum(earlier: MediaStats, path: MediaPath) -> MediaStats:
    """Add what a path counted; what is sent is counted by the streams, over all paths."""
    connection = path.connection
    received = dict(earlier.received)
    for stream, incoming in path.incoming.copy().items():
        received[stream] = received.get(stream, ReceivedStats()) + incoming.stats
    ignored = (connection.datagrams_ignored if connection else 0) + path.malformed
    return MediaStats(
        datagrams_sent=earlier.datagrams_sent + (connection.datagrams_sent if connection else 0),
        datagrams_received=earlier.datagrams_received
        + (connection.datagrams_received if connection else 0),
        datagrams_ignored=earlier.datagrams_ignored + ignored,
        received=received,
    )
