"""The media of one call (spec/media.md): from the protocol's keys to a transport that carries them.

Joins `e2ecall.protocol` and `e2ecall.media`; it decides neither when media may begin nor what a
failure means for the call.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from e2ecall.errors import MediaError
from e2ecall.protocol.call_epochs import OLD_KEYS_LIFETIME
from e2ecall.protocol.call_events import NewEpoch, ReplacePath, StartMedia
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.callkeys import FrameKey, MediaKeys
from e2ecall.protocol.messages import Candidate, MediaDescription, Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from relay.wire.messages import TurnCredential

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream

    from e2ecall.media.engine import MediaEngine, MediaIdentity, MediaPeer
    from e2ecall.media.epochs import EpochChange
    from e2ecall.media.events import MediaEvent, MediaStats
    from e2ecall.media.sinks import Sink
    from e2ecall.media.sources import AudioSource, Source, VideoSource

_log = logging.getLogger(__name__)

STREAMS = (Stream.MICROPHONE, Stream.CAMERA, Stream.SCREEN)
"""Every call describes these, so that a picture can come later without a new transport."""


@dataclass(frozen=True, slots=True)
class MediaChoice:
    """What this end of a call sends, and where what it receives goes; None: nothing."""

    audio: "AudioSource | None" = None
    video: "VideoSource | None" = None
    output: "Sink | None" = None


_MAX_DRAWN = 4
"""Identities of paths that were begun and are not used yet; older ones were given up."""


class CallMedia:
    """The media of one end, its sources and its sink. Used for one call."""

    def __init__(self, peer: "MediaPeer", identity: "MediaIdentity") -> None:
        self._peer = peer
        self._identity = identity
        self._sources: dict[Stream, Source] = {}
        self._sink: Sink | None = None
        self._prepared = False
        self._drawn: dict[bytes, MediaIdentity] = {}

    @classmethod
    async def create(cls, engine: "MediaEngine") -> Self:
        """Draw a fresh transport identity; nothing is sent."""
        from e2ecall.media.engine import MediaIdentity

        identity = MediaIdentity.generate(STREAMS)
        return cls(await engine.create_peer(local=identity), identity)

    @property
    def description(self) -> MediaDescription:
        """What the peer has to know of this transport."""
        return self._identity.description

    @property
    def events(self) -> "MemoryObjectReceiveStream[MediaEvent]":
        """What the transport reports."""
        return self._peer.events

    @property
    def sends_video(self) -> bool:
        """Whether there is a camera to send."""
        return Stream.CAMERA in self._sources

    @property
    def sends_audio(self) -> bool:
        """Whether there is a microphone to send; without one, silence is sent."""
        return Stream.MICROPHONE in self._sources

    def use(self, choice: MediaChoice) -> None:
        """Say what is sent, and where what is received goes; what was said before is closed."""
        for stream, source in (
            (Stream.MICROPHONE, choice.audio),
            (Stream.CAMERA, choice.video),
        ):
            former = self._sources.pop(stream, None)
            if former is not source:
                release(former)
            if source is not None:
                self._sources[stream] = source
        self._sink = choice.output

    async def gather(
        self, uris: tuple[str, ...], credential: TurnCredential
    ) -> tuple[Candidate, ...]:
        """Allocate at the relay; raises MediaError."""
        return await self._peer.gather(uris, credential.username, credential.password)

    async def prepare(self) -> None:
        """Open sources and encoders; nothing is sent."""
        if not self._prepared:
            self._prepared = True
            await self._peer.prepare(self._sources)

    async def start(self, role: Role, start: StartMedia, candidates: tuple[Candidate, ...]) -> None:
        """Connect, send and receive under the call's keys."""
        senders, receiving = _frame_keys(start.keys)
        receiver = SFrameReceiver()
        for key in receiving:
            receiver.add_key(key.kid, key.base_key)
        sinks = {} if self._sink is None else dict.fromkeys(STREAMS, self._sink)
        await self._peer.start(
            controlling=role is Role.CALLER,
            remote=start.remote,
            remote_candidates=candidates,
            sender_keys=senders,
            receiver=receiver,
            sinks=sinks,
        )

    def change_epoch(self, event: NewEpoch) -> None:
        """Go on under the keys of a new epoch; raises MediaError."""
        self._peer.change_epoch(_epoch_change(event.keys, send=event.send))

    def enter_epoch(self, epoch: int) -> None:
        """Send in a new epoch as well; raises MediaError."""
        self._peer.enter_epoch(epoch)

    def draw(self) -> MediaDescription:
        """Draw the identity of another path, and return how it is described."""
        from e2ecall.media.engine import MediaIdentity

        identity = MediaIdentity.generate(STREAMS)
        self._drawn[identity.description.fingerprint] = identity
        while len(self._drawn) > _MAX_DRAWN:
            del self._drawn[next(iter(self._drawn))]
        return identity.description

    async def gather_path(
        self,
        local: MediaDescription,
        epoch: int,
        uris: tuple[str, ...],
        credential: TurnCredential,
    ) -> tuple[Candidate, ...]:
        """Allocate for a path that was drawn; raises MediaError."""
        identity = self._drawn.pop(local.fingerprint, None)
        if identity is None:
            raise MediaError("this path was given up")
        return await self._peer.gather_path(
            identity, epoch, uris, credential.username, credential.password
        )

    async def replace_path(self, event: ReplacePath) -> None:
        """Connect the path that was gathered, under its own keys; raises MediaError."""
        await self._peer.replace_path(
            event.remote, event.remote_candidates, _epoch_change(event.keys, send=True)
        )

    def hold_back(self, stream: Stream, held: bool) -> None:
        """Send silence of the same size and rate, or a black picture, instead; or go on."""
        self._peer.set_muted(stream, held)

    def silence(self, stream: Stream, silenced: bool) -> None:
        """Do not play or show what comes of the peer's stream; or go on."""
        self._peer.set_silenced(stream, silenced)

    async def show(self, stream: Stream, source: "VideoSource | None") -> None:
        """Send this picture from now on, or none; the former source is closed."""
        if self._prepared or self._peer.closed:  # which closes what comes too late
            await self._peer.set_source(stream, source)
            return
        former = self._sources.pop(stream, None)
        if source is not None:
            self._sources[stream] = source
        if former is not None:
            former.close()

    def stats(self) -> "MediaStats":
        """Return the counters so far."""
        return self._peer.stats()

    async def close(self) -> None:
        """End the transport and close the sources; idempotent."""
        try:
            await self._peer.close()
        finally:
            if not self._prepared:  # else they are the transport's
                release(*self._sources.values())


def release(*sources: "Source | None") -> None:
    """MEDIA-50: close sources that no transport has, or that it has closed; raises nothing."""
    for source in sources:
        if source is not None:
            try:
                source.close()
            except Exception:  # noqa: BLE001 - it is the program's, and others are to be closed too
                _log.exception("a source failed to close")


def keeps(output: "Sink | None") -> bool:
    """Return whether a sink keeps what it gets, so that the peer has to know (CALL-32)."""
    return bool(getattr(output, "keeps", False))


def _epoch_change(keys: MediaKeys, *, send: bool) -> "EpochChange":
    from e2ecall.media.epochs import EpochChange

    senders, receiving = _frame_keys(keys)
    return EpochChange(keys.keys.epoch, senders, receiving, send, OLD_KEYS_LIFETIME)


def _frame_keys(keys: MediaKeys) -> tuple[dict[Stream, SFrameSender], tuple[FrameKey, ...]]:
    """Return a sender for each own stream, and what the peer's frames are opened with."""
    senders = {}
    for stream in STREAMS:
        own = keys.sending(stream)
        senders[stream] = SFrameSender(own.base_key, own.kid)
    return senders, tuple(keys.receiving(stream) for stream in STREAMS)
