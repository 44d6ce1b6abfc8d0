"""Another path within a call (spec/call.md, "Another path"): when, who, and with which description.

The caller begins, the callee asks; each new path has an epoch of its own, which is agreed on as
`e2ecall.protocol.call_epochs` does. It opens no path and hears none: the media tells `path_lost`,
`path_alive` and `path_failed`, and is told `ReplacePath`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec.structs

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_channel import UNSIGNED
from e2ecall.protocol.call_core import MEDIA_STATES, CallBasis
from e2ecall.protocol.call_epochs import OLD_KEYS_LIFETIME, REKEY_INTERVAL, check_shares
from e2ecall.protocol.call_events import (
    EndReason,
    EpochConfirmed,
    PathAgreed,
    PathDue,
    PathProposed,
    ReplacePath,
)
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_rekey import CallRekeying
from e2ecall.protocol.call_table import Action, Received, Role
from e2ecall.protocol.description import check_candidates, check_replacement
from e2ecall.protocol.messages import (
    MAX_CANDIDATES,
    Candidate,
    LeaveReason,
    MediaDescription,
    Path,
    PathReady,
    PathReply,
    PathRequest,
    Rekey,
    RekeyRequest,
)
from e2ecall.protocol.rekey_table import RekeyState
from relay.wire.messages import TurnCredential

PATH_TIMEOUT: Final = 30.0
"""Seconds without anything authentic from the peer's media after which the call ends."""
PATH_REPEAT: Final = 3.0
"""Seconds between two copies of a message about a path that had no effect yet."""
PATH_INTERVAL: Final = 5.0
"""Seconds between the beginnings of two paths."""
PATH_WINDOW: Final = 600.0
MAX_PATHS: Final = 10
"""Paths that a caller begins within `PATH_WINDOW`."""
MAX_PATHS_TAKEN: Final = 12
"""Paths that a callee takes within it: messages may be under way for a while."""


@dataclass(frozen=True, slots=True)
class _Move:
    """A path that is agreed on, until it is heard or given up."""

    epoch: int
    local: MediaDescription
    remote: MediaDescription
    candidates: tuple[Candidate, ...] = ()
    """The peer's."""
    ready: PathReady | None = None


class CallPaths(CallRekeying):
    """The paths of one end of a call."""

    def __init__(self, basis: CallBasis) -> None:
        super().__init__(basis)
        self._described: tuple[MediaDescription, MediaDescription] | None = None
        self._move: _Move | None = None
        self._wanted = False
        self._begun: tuple[float, ...] = ()
        self._path_due: float | None = None
        self._lost_deadline: float | None = None
        self._moved = 0
        """The epoch that began with the path in use."""
        self._agreed = 0
        """The epoch of the newest path that both ends have the keys of."""

    def on_time(self, now: float) -> bool:
        """Do what is due, or end the call where its time is over; every other method does so first.

        Returns whether it ended just now.
        """
        if super().on_time(now):
            return True
        if self._lost_deadline is not None and now >= self._lost_deadline:
            self._end(Action.TIME_OUT, EndReason.CONNECTION_LOST, LeaveReason.FAILED)
            return True
        if self._path_due is not None and now >= self._path_due:
            self._path_due = None
            self._pursue(now)
        return False

    def _times(self) -> tuple[float | None, ...]:
        return (*super()._times(), self._path_due, self._lost_deadline)

    # --- what the media tells -----------------------------------------------------------------

    def path_lost(self, since: float, now: float) -> None:
        """Nothing authentic came from the peer's media since then, so the path is to be replaced.

        Without effect where the call has no media.
        """
        if self.on_time(now) or self._state not in MEDIA_STATES:
            return
        if self._lost_deadline is None:
            self._lost_deadline = min(since, now) + PATH_TIMEOUT
            if not self._replacing:
                self._want(now)
            self.on_time(now)

    def path_alive(self, epoch: int, now: float) -> None:
        """Something authentic came over the path that was begun in this epoch, 0 for the first.

        Without effect where the call has no media.
        """
        if self.on_time(now) or self._state not in MEDIA_STATES:
            return
        self._lost_deadline = None
        if epoch > self._moved:
            self._moved = epoch
            began, due = self._began, self._due
            self._begin_epoch(now)
            if due is not None and due < began + REKEY_INTERVAL:
                self._due = due  # a Rekey was asked for meanwhile, or is under way
        if self._move is not None and epoch == self._move.epoch:
            self._move = None
            self._retire_former(now)
        # CALL-45: what was agreed on and given up is followed by another, whatever is heard.
        if self._move is None and self._moved >= self._agreed:
            self._wanted = False
            self._path_due = None

    def path_failed(self, epoch: int, now: float) -> None:
        """The path of this epoch cannot be had, here or at all; another one is begun.

        Without effect where it is not the one under way.
        """
        if self.on_time(now) or self._move is None or epoch != self._move.epoch:
            return
        self._give_up(now)

    # --- what this end does -------------------------------------------------------------------

    def replace_path(self, secrets: RekeySecrets, media: MediaDescription, now: float) -> None:
        """Caller: begin another path, after `PathDue`. ``secrets`` and ``media`` must be fresh.

        Without effect where the deadline has passed, where the path is wanted no more, and while a
        Rekey is out, after which `PathDue` comes again.
        """
        if self.on_time(now):
            return
        self._check(Action.REPLACE_PATH)
        if not self._wanted or self._rekey is not None:
            return
        self._check_own(media)
        following = self._check_rekey(Action.REPLACE_PATH)
        counter = self._channel.next_counter()
        path = secrets.path(self.call_id, counter, self.epoch + 1, media)
        self._begin_path(now)
        self._propose(path, secrets, following, now + PATH_REPEAT)

    def answer_path(
        self,
        secrets: CalleeSecrets,
        media: MediaDescription,
        turn: TurnCredential,
        candidates: Sequence[Candidate],
        now: float,
    ) -> None:
        """Callee: answer the Path of `PathProposed`. All must be fresh; ``turn`` is the caller's.

        Without effect where the deadline has passed.
        """
        if self.on_time(now):
            return
        following = self._check_rekey(Action.ANSWER_PATH)
        path = self._rekey
        if not isinstance(path, Path):
            raise LocalProtocolError("there is no Path to answer")
        self._check_own(media)
        self._check_own_addresses(candidates)
        reply = secrets.path_reply(
            path, self._channel.next_counter(), media, turn, tuple(candidates)
        )
        self._agree(secrets, reply, following)
        self._agreed = path.epoch
        self._move = _Move(path.epoch, media, path.media)

    def ready_path(self, epoch: int, candidates: Sequence[Candidate], now: float) -> None:
        """Caller: say where this end can be reached on the path of `PathAgreed`, and use it.

        Without effect where the deadline has passed, or the path was given up meanwhile.
        """
        if self.on_time(now):
            return
        self._check(Action.READY_PATH)
        move = self._move
        if move is None or move.epoch != epoch or move.ready is not None:
            return
        self._check_own_addresses(candidates)
        counter = self._channel.next_counter()
        ready = PathReady(self.call_id, counter, epoch, tuple(candidates), UNSIGNED)
        self._move = replace(move, ready=ready)
        self._path_due = now + PATH_REPEAT
        self._outgoing.append(self._channel.sign(ready))
        self._use(move, move.candidates)

    # --- what the peer does -------------------------------------------------------------------

    def _receive_about_epoch(
        self, message: Rekey | RekeyRequest | Path | PathReady | PathRequest, now: float
    ) -> None:
        match message:
            case Rekey():
                self._receive_rekey(message)
            case RekeyRequest():
                self._receive_rekey_request(message, now)
            case Path():
                self._receive_path(message, now)
            case PathReady():
                self._receive_path_ready(message, now)
            case _:
                self._receive_path_request(message, now)

    def _receive_path(self, path: Path, now: float) -> None:
        if self._is_late(path):
            return
        if path.epoch > self.epoch + 1:
            self._check_proposal(path, now)
            # CALLKEY-19: it is authentic in the epoch that was agreed on and not entered yet.
            self._cross(self._check_rekey(Received.PATH), now)
            self._events.append(EpochConfirmed(self.epoch))
        elif self._rekey is None:
            self._check_proposal(path, now)
        else:
            self._repeat_reply(path)
            return
        self._rekey = path
        self._begin_path(now)
        self._events.append(PathProposed(path))

    def _receive_path_reply(self, reply: PathReply, now: float) -> None:
        path = self._rekey
        if not self._awaits(reply):
            return  # overtaken: a copy of one that had its effect
        assert isinstance(path, Path)  # what is awaited is of its kind
        check_replacement(reply.media, self._descriptions[1])
        self._accept_reply(reply, Received.PATH_REPLY, now)
        if self._are_relayed(reply.candidates):
            self._agreed = reply.epoch
            self._move = _Move(reply.epoch, path.media, reply.media, reply.candidates)
            self._events.append(PathAgreed(reply.epoch, reply.turn, path.media))

    def _receive_path_ready(self, ready: PathReady, now: float) -> None:
        if ready.epoch <= self.epoch:
            return  # a copy of one that had its effect
        move = self._move
        if move is None or move.epoch != ready.epoch:
            raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)  # a Rekey leads to this epoch
        if self._are_relayed(ready.candidates):
            self._cross(self._check_rekey(Received.PATH_READY), now)
            self._use(move, ready.candidates)

    def _receive_path_request(self, request: PathRequest, now: float) -> None:
        # CALL-41: else overtaken, or a Path for this epoch is out already.
        if request.epoch == self.epoch + 1 and not isinstance(self._rekey, Path):
            self._give_up(now)

    # --- helpers ------------------------------------------------------------------------------

    @property
    def _replacing(self) -> bool:
        return self._move is not None or isinstance(self._rekey, Path)

    @property
    def _descriptions(self) -> tuple[MediaDescription, MediaDescription]:
        """This end's and the peer's, of the newest path that was used."""
        if self._described is not None:
            return self._described
        assert self._ringing is not None  # no state without it asks
        both = self._offer.media, self._ringing.media
        return both if self._role is Role.CALLER else both[::-1]

    def _give_up(self, now: float) -> None:
        """Use the path under way no more, if there is one; another one is wanted."""
        if self._move is not None:
            self._move = None
            self._retire_former(now)
        self._want(now)
        self.on_time(now)

    def _retire_former(self, now: float) -> None:
        """Caller: count what the keys of the former epoch have left, see `_cross`."""
        if self._role is Role.CALLER and self._retire_at is None:
            self._retire_at = now + OLD_KEYS_LIFETIME

    def _want(self, now: float) -> None:
        self._wanted = True
        self._path_due = self._allowed_at(now) if self._role is Role.CALLER else now

    def _allowed_at(self, now: float) -> float:
        """Return when the next path may be begun (CALL-44)."""
        recent = self._recent(now)
        times = [now]
        if recent:
            times.append(recent[-1] + PATH_INTERVAL)
        if len(recent) >= MAX_PATHS:
            times.append(recent[-MAX_PATHS] + PATH_WINDOW)
        return max(times)

    def _recent(self, now: float) -> tuple[float, ...]:
        return tuple(time for time in self._begun if time > now - PATH_WINDOW)

    def _begin_path(self, now: float) -> None:
        self._begun = (*self._recent(now), now)
        self._move = None
        self._wanted = False
        self._path_due = None

    def _pursue(self, now: float) -> None:
        """Say, or ask for, what had no effect yet."""
        if self._channel.has_room:
            self._path_due = now + PATH_REPEAT
        if self._path_due is None:
            pass  # then the call ends when the path was lost for too long
        elif self._move is not None and self._move.ready is not None:
            ready = msgspec.structs.replace(self._move.ready, counter=self._channel.next_counter())
            self._outgoing.append(self._channel.sign(ready))
        elif self._role is Role.CALLEE:
            self._check(Action.REQUEST_PATH)
            counter, epoch = self._channel.next_counter(), self._channel.newest.epoch + 1
            request = PathRequest(self.call_id, counter, epoch, UNSIGNED)
            self._outgoing.append(self._channel.sign(request))
        elif self._rekey is None:
            self._events += [PathDue()] if PathDue() not in self._events else []
        else:
            self._remind()  # a Rekey comes first: hurry it

    def _interval(self) -> float:
        return PATH_REPEAT if isinstance(self._rekey, Path) else super()._interval()

    def _remind(self) -> None:
        two = self._replacing or self._rekey_state is RekeyState.CROSSING
        if self._role is Role.CALLER and self._rekey is None and two:
            return  # the new path has new keys; those of a third epoch can wait for it
        super()._remind()

    def _cross(self, following: RekeyState, now: float) -> None:
        began, has_path = self._began, isinstance(self._rekey, Path)
        super()._cross(following, now)
        if has_path:
            self._begin_epoch(began)  # CALLKEY-20: until the path takes over, in `path_alive`
            if self._role is Role.CALLER:
                # CALLKEY-16: the callee stays in the former epoch until a PathReady came.
                self._retire_at = None
        if self._wanted and self._role is Role.CALLER:
            self._path_due = self._allowed_at(now)  # the Rekey that was in the way is done

    def _use(self, move: _Move, candidates: tuple[Candidate, ...]) -> None:
        self._described = move.local, move.remote
        keys = self._channel.media_keys
        self._events.append(ReplacePath(keys, move.local, move.remote, candidates))

    def _check_proposal(self, path: Path, now: float) -> None:
        if len(self._recent(now)) >= MAX_PATHS_TAKEN:  # CALL-44
            raise RemoteProtocolError(Reason.LIMIT)
        check_shares(path)
        check_replacement(path.media, self._descriptions[1])

    def _are_relayed(self, candidates: Sequence[Candidate]) -> bool:
        """Return whether the peer's candidates may be used; if not the call has ended (CALL-11)."""
        try:
            check_candidates(candidates, allowed_networks=self._allowed_networks)
        except RemoteProtocolError as error:
            self._breach(EndReason.PROTOCOL_ERROR, error.reason)
            return False
        return True

    def _check_own(self, media: MediaDescription) -> None:
        try:
            check_replacement(media, self._descriptions[0])
        except RemoteProtocolError as error:
            raise LocalProtocolError("this description does not fit the former one") from error

    def _check_own_addresses(self, candidates: Sequence[Candidate]) -> None:
        if not 0 < len(candidates) <= MAX_CANDIDATES:
            raise LocalProtocolError(f"1 to {MAX_CANDIDATES} candidates belong to a path")
        try:
            check_candidates(candidates, allowed_networks=self._allowed_networks)
        except RemoteProtocolError as error:
            raise LocalProtocolError("only relayed addresses may be sent to a peer") from error

    def _forget_secrets(self) -> None:
        super()._forget_secrets()
        self._move = None
        self._wanted = False
        self._path_due = self._lost_deadline = None
