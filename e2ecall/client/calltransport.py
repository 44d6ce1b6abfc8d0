"""What a call does for its media (spec/call.md): allocate, connect, new keys, another path.

When each of it is due the protocol says; what media does then is `e2ecall.client.callmedia`.
"""

import logging
from typing import Final

import anyio

from e2ecall.client import events as public
from e2ecall.client.callbase import CallBase
from e2ecall.client.callmedia import STREAMS
from e2ecall.errors import E2ECallError, MediaError
from e2ecall.protocol.call_core import MEDIA_STATES
from e2ecall.protocol.call_events import (
    EndReason,
    EpochConfirmed,
    NewEpoch,
    PathAgreed,
    PathDue,
    PathProposed,
    RekeyDue,
    RekeyProposed,
    RemoteCandidates,
    ReplacePath,
    StartMedia,
)
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import Candidate, MediaDescription, Path, Stream
from relay.wire.messages import TurnCredential

PATH_PAUSE: Final = 1.0
LONGEST_PATH_PAUSE: Final = 8.0
"""Seconds after which a callee that could not answer a Path tries again: doubled each time."""

_log = logging.getLogger(__name__)


class CallTransport(CallBase):
    """A call with what it does for its media."""

    def allocate(self, credential: TurnCredential) -> None:
        """Make this end's TURN allocation, and nothing else, while it rings."""
        self._spawn(self._gather, credential)

    def _apply_controls(self) -> None:
        """Have media send and play what the user wants, and no more."""
        wanted = self._wanted
        for stream in STREAMS:
            self.media.hold_back(stream, not wanted.lets_out(stream))
            unwanted = self._peer_muted if stream is Stream.MICROPHONE else self._hides_pictures
            quiet = wanted.held or unwanted
            self.media.silence(stream, quiet)

    def _rekey(self, event: RekeyDue | RekeyProposed | NewEpoch | EpochConfirmed) -> None:
        match event:
            case RekeyDue():
                self._machine.rekey(RekeySecrets.generate(), self._clock())
            case RekeyProposed(rekey):
                self._machine.answer_rekey(CalleeSecrets.generate(rekey), self._clock())
            case NewEpoch() | EpochConfirmed():
                try:  # CALLKEY-15: media has the keys before the reply, or a frame, can leave
                    if isinstance(event, NewEpoch):
                        self.media.change_epoch(event)
                    else:
                        self.media.enter_epoch(event.epoch)
                except MediaError as error:
                    _log.warning("new frame keys cannot be used: %s", error)
                    self.fail(EndReason.MEDIA_FAILED)

    def _change_path(
        self, event: RemoteCandidates | PathDue | PathProposed | PathAgreed | ReplacePath
    ) -> None:
        match event:
            case RemoteCandidates(candidates):
                # Both allocate before they answer, so the first ones decide; see `_start_media`.
                self._remote_candidates += candidates
            case PathDue():
                self._path_is_replaced()
                self._machine.replace_path(
                    RekeySecrets.generate(), self.media.draw(), self._clock()
                )
            case PathProposed(path):
                self._path_is_replaced()
                self._proposed = path
                self._spawn(self._answer_path, path)
            case PathAgreed():
                self._spawn(self._ready_path, event)
            case ReplacePath():
                self._spawn(self._replace_path, event)

    def _path_is_replaced(self) -> None:
        """Tell the program of it, once: this end misses the peer, or the peer this end."""
        if self.state is CallState.CONNECTED and not self._reconnecting:
            self._reconnecting = True
            self._tell(public.Reconnecting())

    async def _answer_path(self, path: Path) -> None:
        """Callee: allocate and answer, for as long as this Path is the one to be answered."""
        assert self.fetch_ticket is not None  # set before it rang
        pause = PATH_PAUSE
        while self._proposed is path:
            try:
                ticket = await self.fetch_ticket()
                local = self.media.draw()
                candidates = await self._gather_path(local, path.epoch, ticket.a)
            except E2ECallError as error:
                _log.warning("another path cannot be allocated: %s", error)
                await anyio.sleep(pause)
                pause = min(2 * pause, LONGEST_PATH_PAUSE)
                continue
            # The call may have ended in the same moment in which the allocation was made.
            if self._proposed is path and self._machine.state in MEDIA_STATES:
                self._proposed = None
                secrets = CalleeSecrets.generate(path)
                self._machine.answer_path(secrets, local, ticket.b, candidates, self._clock())
                self._pump()

    async def _ready_path(self, agreed: PathAgreed) -> None:
        """Caller: allocate, and say where this end can be reached."""
        try:
            candidates = await self._gather_path(agreed.local, agreed.epoch, agreed.turn)
        except E2ECallError as error:
            _log.warning("another path cannot be allocated: %s", error)
            self._machine.path_failed(agreed.epoch, self._clock())
        else:
            if self._machine.state in MEDIA_STATES:
                self._machine.ready_path(agreed.epoch, candidates, self._clock())
        self._pump()

    async def _gather_path(
        self, local: MediaDescription, epoch: int, credential: TurnCredential
    ) -> tuple[Candidate, ...]:
        assert self._link is not None
        uris = await self._link.wait_turn_uris(credential)
        return await self.media.gather_path(local, epoch, uris, credential)

    async def _replace_path(self, event: ReplacePath) -> None:
        try:
            await self.media.replace_path(event)
        except E2ECallError as error:
            _log.warning("another path cannot be used: %s", error)
            self._machine.path_failed(event.keys.keys.epoch, self._clock())
            self._pump()

    async def _gather(self, credential: TurnCredential) -> None:
        assert self._link is not None
        try:
            self._candidates = await self.media.gather(self._link.turn_uris(credential), credential)
            if self._machine.role is Role.CALLER:
                await self.media.prepare()
        except E2ECallError as error:
            _log.warning("media cannot be allocated: %s", error)
            self.fail(EndReason.MEDIA_FAILED)
            return
        self._gathered = True
        if self._machine.role is Role.CALLER and self._machine.state is not CallState.ENDED:
            self._machine.add_candidates(self._candidates, self._clock())
        self._pump()

    async def _start_media(self, start: StartMedia) -> None:
        """Open media under the first keys, which nothing else here keeps (CALLKEY-16)."""
        try:
            await self.media.prepare()
            while not (self._gathered and self._remote_candidates):
                await self._changed.wait()
            async with self._controlling:
                self._apply_controls()
                await self.media.start(self._machine.role, start, self._remote_candidates)
        except E2ECallError as error:
            _log.warning("media cannot start: %s", error)
            self.fail(EndReason.MEDIA_FAILED)
