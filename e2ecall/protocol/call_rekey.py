"""New epochs for their own sake (spec/callkeys.md, "Rekeying"): when, and who says so.

The caller begins, the callee asks; how an epoch is agreed on is `e2ecall.protocol.call_epochs`.
Which frames are sent under which keys is the media's part: it is told by `NewEpoch`, and tells
`CallRekeying.enter_epoch` and `CallRekeying.key_worn`.
"""

from typing import Final

from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_channel import UNSIGNED
from e2ecall.protocol.call_epochs import CallEpochs, check_shares
from e2ecall.protocol.call_events import NewEpoch, RekeyDue, RekeyProposed
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import Action, CallState, Received, Role
from e2ecall.protocol.messages import Path, Rekey, RekeyReply, RekeyRequest
from e2ecall.protocol.rekey_table import RekeyState

REKEY_REPEAT: Final = 15.0
"""Seconds between two copies of a Rekey, or of a RekeyRequest, that had no effect yet."""


class CallRekeying(CallEpochs):
    """The rekeying of one end of a call."""

    def on_time(self, now: float) -> bool:
        """Do what is due, or end the call where its time is over; every other method does so first.

        Returns whether it ended just now.
        """
        if super().on_time(now):
            return True
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
        rekey = secrets.rekey(self.call_id, self._channel.next_counter(), self.epoch + 1)
        self._propose(rekey, secrets, following, now + REKEY_REPEAT)

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
        self._agree(secrets, reply, following)
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

        Without effect where it is not the present epoch: what takes the place of a former one's
        keys is agreed on already, and is used or is followed by another (CALLKEY-14).
        """
        if self.on_time(now) or self._state is not CallState.CONNECTED or epoch != self.epoch:
            return
        self._hasten(now)

    # --- what the peer does -------------------------------------------------------------------

    def _receive_rekey(self, rekey: Rekey) -> None:
        if self._is_late(rekey):
            return
        if self._rekey is None:
            check_shares(rekey)
            self._rekey = rekey
            self._events.append(RekeyProposed(rekey))
        else:
            self._repeat_reply(rekey)

    def _receive_rekey_reply(self, reply: RekeyReply, now: float) -> None:
        if self._awaits(reply):
            self._accept_reply(reply, Received.REKEY_REPLY, now)
            self._tell_epoch(send=True)

    def _receive_rekey_request(self, request: RekeyRequest, now: float) -> None:
        if request.epoch == self.epoch + 1:  # else overtaken
            self._hasten(now)

    # --- helpers ------------------------------------------------------------------------------

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
