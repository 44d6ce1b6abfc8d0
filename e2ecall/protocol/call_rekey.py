"""New epochs within a call (spec/callkeys.md, "Rekeying"): when, who, and with which keys.

The caller begins, the callee asks; the steps are those of `e2ecall.protocol.rekey_table`. Which
frames are sent under which keys is the media's part: it is told by `NewEpoch`, and tells
`CallRekeying.enter_epoch` and `CallRekeying.key_worn`.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Final

from msgspec.structs import replace

from e2ecall.crypto.mlkem import MLKEM768
from e2ecall.crypto.x25519 import check_public_key
from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_channel import UNSIGNED
from e2ecall.protocol.call_core import CallCore
from e2ecall.protocol.call_events import NewEpoch, RekeyDue, RekeyProposed
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import Action, CallState, Received, Role, Trigger
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.messages import (
    Offer,
    Path,
    PathReply,
    Rekey,
    RekeyReply,
    RekeyRequest,
)
from e2ecall.protocol.rekey_table import RekeyState, next_rekey_state

REKEY_INTERVAL: Final = 300.0
"""Seconds from the beginning of an epoch to the Rekey for the next."""
REKEY_OVERDUE: Final = 60.0
"""Seconds from there to the end of the call, if no new epoch began."""
REKEY_REPEAT: Final = 15.0
"""Seconds between two copies of a Rekey, or of a RekeyRequest, that had no effect yet."""
OLD_KEYS_LIFETIME: Final = 10.0
"""Seconds that the former epoch's keys live, from when this end sends in the new one."""


class CallRekeying(CallCore):
    """The epochs of one end of a call."""

    def __init__(
        self,
        role: Role,
        local: Party,
        remote: Party,
        offer: Offer,
        allowed_networks: Sequence[IPv4Network],
    ) -> None:
        super().__init__(role, local, remote, offer, allowed_networks)
        self._rekey_state = RekeyState.STEADY
        self._rekey: Rekey | Path | None = None
        self._rekey_secrets: RekeySecrets | None = None
        self._rekey_reply: RekeyReply | PathReply | None = None
        self._due: float | None = None
        self._retire_at: float | None = None
        self._began = 0.0

    @property
    def epoch(self) -> int:
        """The number of the epoch in which this end sends.

        Raises:
            LocalProtocolError: there are no keys, not yet or no longer.
        """
        return self._channel.sending.epoch

    def deadline(self) -> float | None:
        """Return when `on_time` has to be called, in Unix seconds, or None."""
        times = (self._deadline, self._due, self._retire_at)
        return min((time for time in times if time is not None), default=None)

    def on_time(self, now: float) -> bool:
        """Do what is due, or end the call where its time is over; every other method does so first.

        Returns whether it ended just now.
        """
        if super().on_time(now):
            return True
        if self._retire_at is not None and now >= self._retire_at:
            self._retire_keys()
        if self._due is not None and now >= self._due:
            self._due = now + self._interval()
            self._remind()
        return False

    # --- what this end does -------------------------------------------------------------------

    def rekey(self, secrets: RekeySecrets, now: float) -> None:
        """Caller: begin a new epoch, after `RekeyDue`. ``secrets`` must be fresh.

        Without effect where the deadline has passed.
        """
        if self.on_time(now):
            return
        following = self._check_rekey(Action.REKEY)
        counter = self._channel.next_counter()
        self._rekey = secrets.rekey(self.call_id, counter, self.epoch + 1)
        self._rekey_secrets = secrets
        self._rekey_state = following
        self._due = now + REKEY_REPEAT
        self._outgoing.append(self._channel.sign(self._rekey))

    def answer_rekey(self, secrets: CalleeSecrets, now: float) -> None:
        """Callee: answer the Rekey of `RekeyProposed`. ``secrets`` must be fresh and made for it.

        Without effect where the deadline has passed.
        """
        if self.on_time(now):
            return
        following = self._check_rekey(Action.ANSWER_REKEY)
        if not isinstance(self._rekey, Rekey):
            raise LocalProtocolError("there is no Rekey to answer")
        reply = secrets.reply(self._rekey, self._channel.next_counter())
        keys = secrets.following(self._channel.sending, self._rekey, reply)
        self._channel.add_epoch(keys)
        self._rekey_state = following
        self._retire_at = self._due = None
        self._rekey_reply = reply
        self._outgoing.append(self._channel.sign(reply))
        self._tell_epoch(send=False)

    def enter_epoch(self, epoch: int, now: float) -> None:
        """Callee: the caller's first frame of this epoch was authenticated, so send in it too.

        Without effect where the deadline has passed.
        """
        if self.on_time(now):
            return
        following = self._check_rekey(Action.ENTER_EPOCH)
        if epoch != self._channel.newest.epoch or isinstance(self._rekey, Path):
            raise LocalProtocolError("this is not the new epoch, or it has a path of its own")
        self._cross(following, now)

    def key_worn(self, epoch: int, now: float) -> None:
        """A frame key of this end, of this epoch, is nearly used up: the next epoch is due.

        Without effect where it is not the present epoch, or the next one is under way.
        """
        if self.on_time(now) or self._state is not CallState.CONNECTED or epoch != self.epoch:
            return
        self._hasten(now)

    # --- what the peer does -------------------------------------------------------------------

    def _receive_rekey(self, rekey: Rekey) -> None:
        if rekey.epoch <= self.epoch or not self._channel.has_room:
            return  # overtaken: a copy of one that had its effect; or it cannot be answered
        if self._rekey is None:
            check_public_key(rekey.x25519_share)
            MLKEM768.check_public_key(rekey.mlkem_key)
            self._rekey = rekey
            self._events.append(RekeyProposed(rekey))
        else:
            self._repeat_reply(rekey)

    def _repeat_reply(self, first: Rekey | Path) -> None:
        """Answer a copy of what is being answered as before, and refuse anything else."""
        assert self._rekey is not None  # who asks has looked
        if type(first) is not type(self._rekey) or _bare(first) != _bare(self._rekey):
            raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)  # CALLKEY-13: the first is final
        if self._rekey_reply is not None:
            reply = replace(self._rekey_reply, counter=self._channel.next_counter())
            self._outgoing.append(self._channel.sign(reply))

    def _receive_rekey_reply(self, reply: RekeyReply, now: float) -> None:
        if self._awaits(reply):
            self._accept_reply(reply, Received.REKEY_REPLY, now)
            self._tell_epoch(send=True)

    def _awaits(self, reply: RekeyReply | PathReply) -> bool:
        """Return whether a reply is the one to what is out; else it was overtaken, if authentic."""
        if self._rekey_secrets is None or reply.epoch != self.epoch + 1:
            self._channel.verify(reply)
            self._channel.check_counter(reply)
            self._channel.commit(reply)
            return False
        if isinstance(reply, PathReply) is not isinstance(self._rekey, Path):
            raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)
        return True

    def _accept_reply(self, reply: RekeyReply | PathReply, received: Received, now: float) -> None:
        """Enter the epoch that an authentic reply leads to."""
        assert self._rekey is not None  # it is there as long as its secrets are
        assert self._rekey_secrets is not None  # a reply is awaited
        following = self._check_rekey(received)
        keys = self._rekey_secrets.following(self._channel.sending, self._rekey, reply)
        self._channel.verify(reply, keys)
        self._channel.check_counter(reply)
        self._channel.add_epoch(keys)
        self._channel.commit(reply)
        self._cross(following, now)

    def _receive_rekey_request(self, request: RekeyRequest, now: float) -> None:
        if request.epoch == self.epoch + 1:  # else overtaken
            self._hasten(now)

    # --- helpers ------------------------------------------------------------------------------

    def _check_rekey(self, trigger: Trigger) -> RekeyState:
        self._check(trigger)
        return next_rekey_state(self._role, self._rekey_state, trigger)

    def _begin_epoch(self, now: float) -> None:
        """Count the time of the epoch in which this end sends frames from then on."""
        self._began = now
        self._deadline = now + REKEY_INTERVAL + REKEY_OVERDUE
        if self._rekey is None:
            self._due = now + REKEY_INTERVAL if self._role is Role.CALLER else None

    def _cross(self, following: RekeyState, now: float) -> None:
        """Send in the newest epoch, and let the former one's keys live a little longer."""
        self._channel.enter_epoch()
        self._rekey_state = following
        self._rekey = self._rekey_secrets = self._rekey_reply = None
        self._begin_epoch(now)
        self._retire_at = now + OLD_KEYS_LIFETIME

    def _retire_keys(self) -> None:
        self._rekey_state = self._check_rekey(Action.RETIRE_KEYS)
        self._channel.retire()
        self._retire_at = None

    def _hasten(self, now: float) -> None:
        """Make the next epoch due, but not before the keys of the former one are gone."""
        if self._rekey_state in {RekeyState.STEADY, RekeyState.CROSSING}:
            self._due = now if self._retire_at is None else self._retire_at
            self.on_time(now)

    def _interval(self) -> float:
        """Return the seconds to the next copy of what had no effect yet."""
        return REKEY_REPEAT

    def _remind(self) -> None:
        """Do what is due: begin, or say once more what had no effect yet."""
        if not self._channel.has_room:
            self._due = None  # then the call ends when the Rekey is overdue
        elif self._role is Role.CALLEE:
            counter = self._channel.next_counter()
            request = RekeyRequest(self.call_id, counter, self.epoch + 1, UNSIGNED)
            self._outgoing.append(self._channel.sign(request))
        elif self._rekey is None:
            self._events += [RekeyDue()] if RekeyDue() not in self._events else []
        else:
            rekey = replace(self._rekey, counter=self._channel.next_counter())
            self._outgoing.append(self._channel.sign(rekey))

    def _tell_epoch(self, *, send: bool) -> None:
        self._events.append(NewEpoch(self._channel.media_keys, send=send))

    def _forget_secrets(self) -> None:
        super()._forget_secrets()
        self._rekey = self._rekey_secrets = self._rekey_reply = None
        self._due = self._retire_at = None
        # Its owner may not have seen yet what is due no more.
        asking = (RekeyDue, RekeyProposed)
        self._events = [event for event in self._events if not isinstance(event, asking)]


def _bare(message: Rekey | Path) -> Rekey | Path:
    """Return the message without what differs between copies."""
    return replace(message, counter=0, mac=UNSIGNED)
