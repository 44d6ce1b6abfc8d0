"""One side of a call's media, for a program on trio or asyncio (spec/media.md).

A thin shell: each method runs on the media thread, and events come back from there.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from e2ecall.media.epochs import EpochChange
from e2ecall.media.events import FrameRefused, MediaEvent, MediaStats, Quality
from e2ecall.media.identity import MediaIdentity
from e2ecall.media.session import MediaSession
from e2ecall.media.settings import Settings
from e2ecall.media.sinks import Sink
from e2ecall.media.sources import Source, VideoSource
from e2ecall.media.thread import MediaThread
from e2ecall.protocol.messages import Candidate, MediaDescription, Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender

_MAX_EVENTS: Final = 64
_ROOM_FOR_FINAL_EVENTS: Final = 16


class MediaPeer:
    """Made by `MediaEngine.create_peer`; used for one transport, then closed.

    Every method may be cancelled; a cancelled `gather` or `start` leaves a peer that can only be
    closed.
    """

    def __init__(self, thread: MediaThread, identity: MediaIdentity, settings: Settings) -> None:
        self._thread = thread
        self._closed = False
        self._send_event, self._events = anyio.create_memory_object_stream[MediaEvent](_MAX_EVENTS)
        self._session = MediaSession(
            identity, settings, report=lambda event: thread.post(self._deliver, event)
        )

    @property
    def events(self) -> MemoryObjectReceiveStream[MediaEvent]:
        """What happens, in order; `MediaFailed` and `PeerClosed` are last.

        It ends after `close`. Close it, or read it to its end.
        """
        return self._events

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def gather(
        self, turn_uris: Sequence[str], username: str, password: str
    ) -> tuple[Candidate, ...]:
        """Make the allocation at the relay; send nothing towards the peer. Once.

        ``turn_uris`` are those of one TURN server, as the relay's hello says; what is tried first
        is UDP, then TCP, then TLS.

        Raises:
            MediaError: the relay refused it, did not answer within 8 s, or gave an address
                outside of the allowed networks.
        """
        return await self._thread.run(self._session.gather, turn_uris, username, password)

    async def prepare(self, sources: Mapping[Stream, Source]) -> None:
        """Open encoders and read each source's first frame, before the answer, to save time.

        Sends nothing. A described sound stream without a source sends silence, a picture stream
        without one sends nothing. The sources belong to the peer from here on.

        Raises:
            LocalProtocolError: called twice, or a source of the wrong kind.
        """
        await self._thread.run(self._session.prepare, sources)

    async def start(
        self,
        *,
        controlling: bool,
        remote: MediaDescription,
        remote_candidates: Sequence[Candidate],
        sender_keys: Mapping[Stream, SFrameSender],
        receiver: SFrameReceiver,
        sources: Mapping[Stream, Source] | None = None,
        sinks: Mapping[Stream, Sink] | None = None,
    ) -> None:
        """Begin to connect, send and receive; return at once, the rest comes as events.

        ``controlling`` is true for the caller: ICE controlling and DTLS client. ``sender_keys``
        needs one entry for each stream of the own description and belongs to the peer from here
        on, as does ``receiver``. ``sources`` only if `prepare` was not called. Streams without
        a sink are received and dropped.

        Raises:
            RemoteProtocolError: BAD_MEDIA_DESCRIPTION or BAD_CANDIDATE; nothing was sent.
            LocalProtocolError: not gathered, started twice, or a key is missing.
        """
        await self._thread.run(
            self._session.start,
            controlling=controlling,
            remote=remote,
            remote_candidates=remote_candidates,
            sender_keys=sender_keys,
            receiver=receiver,
            sources=sources,
            sinks=sinks or {},
        )

    def change_epoch(self, change: EpochChange) -> None:
        """Take the frame keys of a new epoch; they are there before any packet that comes later.

        Does not wait, so that what tells the peer of the epoch can follow at once. `EpochEntered`
        tells when this end sends in it, unless it does so from now on.

        Raises:
            MediaError: the media engine is closed.
        """
        self._thread.soon(self._session.change_epoch, change)

    def enter_epoch(self, epoch: int) -> None:
        """Send in a new epoch as well, as if the peer's first frame in it had come.

        Raises:
            MediaError: the media engine is closed.
        """
        self._thread.soon(self._session.enter_epoch, epoch)

    async def gather_path(
        self,
        identity: MediaIdentity,
        epoch: int,
        turn_uris: Sequence[str],
        username: str,
        password: str,
    ) -> tuple[Candidate, ...]:
        """Make the allocation for another path, in the place of one that is being made.

        ``epoch`` is the one that begins with it. Raises as `gather`; cancelled, the path is given
        up.

        Raises:
            LocalProtocolError: media has not started, or is over.
        """
        return await self._thread.run(
            self._session.gather_path, identity, epoch, turn_uris, username, password
        )

    async def replace_path(
        self, remote: MediaDescription, candidates: Sequence[Candidate], change: EpochChange
    ) -> None:
        """Begin to connect the path that was gathered; return at once, the rest comes as events.

        `PathAlive` tells that it took the place of the present one, under the keys of ``change``,
        and `PathFailed` that it did not.

        Raises:
            RemoteProtocolError: BAD_MEDIA_DESCRIPTION or BAD_CANDIDATE; nothing was sent.
            LocalProtocolError: no path of this epoch was gathered.
        """
        await self._thread.run(self._session.replace_path, remote, candidates, change)

    def set_muted(self, stream: Stream, muted: bool) -> None:
        """Send silence of the same size and rate, or a black picture once a second, instead.

        It holds for whatever the media thread does next, and nobody can cancel it half-way.

        Raises:
            MediaError: the media engine is closed.
        """
        self._thread.soon(self._session.set_muted, stream, muted)

    def set_silenced(self, stream: Stream, silenced: bool) -> None:
        """Give silence to the sink in the place of the peer's sound, or no picture; or go on.

        The peer is told nothing: what it sends is received as before. Raises as `set_muted`.
        """
        self._thread.soon(self._session.set_silenced, stream, silenced)

    async def set_source(self, stream: Stream, source: VideoSource | None) -> None:
        """Exchange the source of a picture, after `prepare`; None closes it and sends nothing.

        The stream keeps its key and counter. The source belongs to the peer from here on.

        Raises:
            LocalProtocolError: there is no such picture; the source was closed.
        """
        await self._thread.run(self._session.set_source, stream, source)

    def stats(self) -> MediaStats:
        """Return the counters so far, also after `close`."""
        return self._session.stats()

    async def close(self) -> None:
        """End media in milliseconds and tell the peer; idempotent, completes if cancelled."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._thread.run(self._session.close)
            self._send_event.close()

    def _deliver(self, event: MediaEvent) -> None:
        """Take an event of the session, in the program's own event loop."""
        free = _MAX_EVENTS - self._send_event.statistics().current_buffer_used
        # Nobody reads: keep the room for what must not be missed.
        expendable = isinstance(event, FrameRefused | Quality)
        if free > (_ROOM_FOR_FINAL_EVENTS if expendable else 0):
            try:
                self._send_event.send_nowait(event)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                return
