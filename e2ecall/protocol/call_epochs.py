"""New epochs within a call (spec/callkeys.md, "Rekeying"): what Rekey and Path have in common.

Two messages lead to the next epoch: the first one's sender has their secrets, the second one's
sender answers. Then each end sends in it, and lets the former epoch's keys live a little longer.
The steps are those of `e2ecall.protocol.rekey_table`. When a new epoch is due, and what else the
two messages are about, is `e2ecall.protocol.call_rekey` and `e2ecall.protocol.call_path`.
"""

from typing import Final

from msgspec.structs import replace

from e2ecall.crypto.mlkem import MLKEM768
from e2ecall.crypto.x25519 import check_public_key
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.call_channel import UNSIGNED
from e2ecall.protocol.call_core import CallBasis, CallCore
from e2ecall.protocol.call_events import PathAgreed, PathDue, PathProposed, RekeyDue, RekeyProposed
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import Action, CallState, Received, Role, Trigger
from e2ecall.protocol.messages import Path, PathReply, Rekey, RekeyReply
from e2ecall.protocol.rekey_table import RekeyState, next_rekey_state

REKEY_INTERVAL: Final = 300.0
"""Seconds from the beginning of an epoch to the Rekey for the next."""
REKEY_OVERDUE: Final = 60.0
"""Seconds from there to the end of the call, if no new epoch began."""
OLD_KEYS_LIFETIME: Final = 10.0
"""Seconds that the former epoch's keys live, from when this end sends in the new one."""

_ASKING: Final = (RekeyDue, RekeyProposed, PathDue, PathProposed, PathAgreed)
"""Events that ask for a step which a call that has ended does not take."""


class CallEpochs(CallCore):
    """The epochs of one end of a call."""

    def __init__(self, basis: CallBasis) -> None:
        super().__init__(basis)
        self._rekey_state = RekeyState.STEADY
        self._rekey: Rekey | Path | None = None
        self._rekey_secrets: RekeySecrets | None = None
        self._rekey_reply: RekeyReply | PathReply | None = None
        self._due: float | None = None
        """When the next epoch is to begin, or what had no effect is said again."""
        self._retire_at: float | None = None
        self._began = 0.0

    @property
    def epoch(self) -> int:
        """The number of the epoch in which this end sends.

        Raises:
            LocalProtocolError: there are no keys, not yet or no longer.
        """
        return self._channel.sending.epoch

    def on_time(self, now: float) -> bool:
        """Do what is due, or end the call where its time is over; every other method does so first.

        Returns whether it ended just now.
        """
        if super().on_time(now):
            return True
        if self._retire_at is not None and now >= self._retire_at:
            self._rekey_state = self._check_rekey(Action.RETIRE_KEYS)
            self._channel.retire()
            self._retire_at = None
        return False

    def _times(self) -> tuple[float | None, ...]:
        return (*super()._times(), self._due, self._retire_at)

    # --- the two messages -----------------------------------------------------------------------

    def _propose(
        self, first: Rekey | Path, secrets: RekeySecrets, following: RekeyState, again: float
    ) -> None:
        """Caller: send the first message; a copy is due at ``again``."""
        self._rekey, self._rekey_secrets = first, secrets
        self._rekey_state = following
        self._due = again
        # A Path that was due at the same moment comes first, and has new keys, too.
        self._events = [event for event in self._events if event != RekeyDue()]
        self._outgoing.append(self._channel.sign(first))

    def _agree(
        self, secrets: CalleeSecrets, reply: RekeyReply | PathReply, following: RekeyState
    ) -> None:
        """Callee: answer the first message, and receive in the epoch that both lead to."""
        assert self._rekey is not None  # it is what the reply was made for
        self._channel.add_epoch(secrets.following(self._channel.sending, self._rekey, reply))
        self._rekey_state = following
        self._retire_at = self._due = None
        self._rekey_reply = reply
        self._outgoing.append(self._channel.sign(reply))

    def _is_late(self, first: Rekey | Path) -> bool:
        """Return whether it is a copy of one that had its effect; or it cannot be answered."""
        return first.epoch <= self.epoch or not self._channel.has_room

    def _repeat_reply(self, first: Rekey | Path) -> None:
        """Answer a copy of what is being answered as before, and refuse anything else."""
        assert self._rekey is not None  # who asks has looked
        if type(first) is not type(self._rekey) or _bare(first) != _bare(self._rekey):
            raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)  # CALLKEY-13: the first is final
        if self._rekey_reply is not None:
            reply = replace(self._rekey_reply, counter=self._channel.next_counter())
            self._outgoing.append(self._channel.sign(reply))

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

    # --- steps ----------------------------------------------------------------------------------

    def _check_rekey(self, trigger: Trigger) -> RekeyState:
        self._check(trigger)
        return next_rekey_state(self._role, self._rekey_state, trigger)

    def _begin_epoch(self, now: float) -> None:
        """Count the time of the epoch in which this end sends frames from then on."""
        if self._state is not CallState.CONNECTED:
            return  # the first epoch's begins when media is up, and until then the limit for that
        self._began = now
        self._deadline = now + REKEY_INTERVAL + REKEY_OVERDUE
        if self._rekey is None:
            self._due = now + REKEY_INTERVAL if self._role is Role.CALLER else None

    def _cross(self, following: RekeyState, now: float) -> None:
        """Send in the newest epoch, and let the former one's keys live a little longer."""
        self._channel.enter_epoch()
        self._rekey_state = following
        self._rekey = self._rekey_secrets = self._rekey_reply = None
        self._due = None
        self._begin_epoch(now)
        self._retire_at = now + OLD_KEYS_LIFETIME

    def _forget_secrets(self) -> None:
        super()._forget_secrets()
        self._rekey = self._rekey_secrets = self._rekey_reply = None
        self._due = self._retire_at = None
        # Its owner may not have seen yet what is due no more.
        self._events = [event for event in self._events if not isinstance(event, _ASKING)]


def check_shares(first: Rekey | Path) -> None:
    """Refuse shares that no key can be agreed on with, as those of an Offer.

    Raises:
        RemoteProtocolError: BAD_POINT or BAD_KEM_KEY.
    """
    check_public_key(first.x25519_share)
    MLKEM768.check_public_key(first.mlkem_key)


def _bare(message: Rekey | Path) -> Rekey | Path:
    """Return the message without what differs between copies."""
    return replace(message, counter=0, mac=UNSIGNED)
