"""What both roles of a call share (spec/call.md): its state, its queues, its time and its end.

No message is judged here and none but the last is made: that is `e2ecall.protocol.call`.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from e2ecall.errors import LocalProtocolError, Reason
from e2ecall.protocol.call_channel import UNSIGNED, CallChannel
from e2ecall.protocol.call_events import CallEvent, Ended, EndReason
from e2ecall.protocol.call_exchange import CallerSecrets
from e2ecall.protocol.call_table import Action, CallState, Role, Trigger, next_state
from e2ecall.protocol.callkeys import CallKeys, Party
from e2ecall.protocol.messages import (
    Busy,
    CallMessage,
    Cancel,
    Candidate,
    Decline,
    Hangup,
    LeaveReason,
    Offer,
    Ringing,
)
from e2ecall.protocol.sas import SAS

MEDIA_STATES: Final = (CallState.CONNECTING, CallState.CONNECTED)
"""After the Answer: the only states in which media may exist."""

_TIMED_OUT: Final = {
    CallState.OFFERED: (EndReason.NO_ANSWER, LeaveReason.NO_ANSWER),
    CallState.RINGING: (EndReason.NO_ANSWER, LeaveReason.NO_ANSWER),
    CallState.INVITED: (EndReason.NO_ANSWER, None),  # its caller gives up by itself
    CallState.AWAITING_REVEAL: (EndReason.NOT_AUTHENTIC, LeaveReason.FAILED),
    CallState.ALERTING: (EndReason.NO_ANSWER, LeaveReason.NO_ANSWER),
    CallState.CONNECTING: (EndReason.TIMEOUT, LeaveReason.FAILED),
    CallState.CONNECTED: (EndReason.KEYS_EXPIRED, LeaveReason.FAILED),
}
"""Per state: why the call ended, and what the peer is told."""

_CHOSEN: Final = (LeaveReason.NORMAL, LeaveReason.OTHER_CALL, LeaveReason.CALL_BACK)
"""What a user may say at the end."""

_FAILURES: Final = (EndReason.MEDIA_FAILED, EndReason.CONNECTION_LOST, EndReason.NOT_AUTHENTIC)


@dataclass(frozen=True, slots=True)
class CallBasis:
    """What an end has of a call from its Offer on, and what never changes in it."""

    role: Role
    local: Party
    remote: Party
    offer: Offer
    allowed_networks: tuple[IPv4Network, ...]
    """Where the relayed addresses of either end lie."""


class CallCore:
    """The state of one end of a call, and the ways in which it ends."""

    def __init__(self, basis: CallBasis) -> None:
        self._role = basis.role
        self._state = CallState.IDLE
        self._local = basis.local
        self._remote = basis.remote
        self._offer = basis.offer
        self._allowed_networks = basis.allowed_networks
        self._ringing: Ringing | None = None
        self._secrets: CallerSecrets | None = None
        self._call_keys: CallKeys | None = None
        self._channel = CallChannel(basis.role)
        self._sas: SAS | None = None
        self._local_candidates = 0
        self._remote_candidates: tuple[Candidate, ...] = ()
        self._deadline: float | None = None
        self._outgoing: list[CallMessage] = []
        self._events: list[CallEvent] = []

    # --- what can be asked --------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """Which end this is."""
        return self._role

    @property
    def state(self) -> CallState:
        """Where the call stands."""
        return self._state

    @property
    def call_id(self) -> bytes:
        """The 16 bytes that name this call."""
        return self._offer.call_id

    @property
    def local(self) -> Party:
        """This end."""
        return self._local

    @property
    def remote(self) -> Party:
        """The peer, as the ratchet session authenticated it."""
        return self._remote

    @property
    def offer(self) -> Offer:
        """The Offer of this call."""
        return self._offer

    @property
    def sas(self) -> SAS | None:
        """The spoken code, once it is known."""
        return self._sas

    @property
    def peer_box(self) -> bytes | None:
        """The box that messages go to; None while the caller knows the callee's account only."""
        if self._role is Role.CALLEE:
            return self._offer.reply_box
        return None if self._ringing is None else self._ringing.reply_box

    def deadline(self) -> float | None:
        """Return when `on_time` has to be called, in Unix seconds, or None."""
        return min((time for time in self._times() if time is not None), default=None)

    def messages_to_send(self) -> list[CallMessage]:
        """Return what is to be sent now, in order, and forget it."""
        messages, self._outgoing = self._outgoing, []
        return messages

    def events(self) -> list[CallEvent]:
        """Return what happened since this was last called, in order, and forget it."""
        events, self._events = self._events, []
        return events

    # --- endings ------------------------------------------------------------------------------

    def decline(self, now: float, told: LeaveReason = LeaveReason.NORMAL) -> None:
        """Do not take the call; possible until `Call.accept`. ``told`` is as for `leave`."""
        self._leave(Action.DECLINE, EndReason.DECLINED, now, told)

    def busy(self, now: float) -> None:
        """Answer an Offer with Busy: another call is live. Possible until `Call.ring`."""
        self._leave(Action.BUSY, EndReason.BUSY, now)

    def cancel(self, now: float, told: LeaveReason = LeaveReason.NORMAL) -> None:
        """Give up calling; possible until the Answer came in. ``told`` is as for `leave`."""
        self._leave(Action.CANCEL, EndReason.CANCELLED, now, told)

    def hangup(self, now: float, told: LeaveReason = LeaveReason.NORMAL) -> None:
        """End an accepted call. ``told`` is as for `leave`."""
        self._leave(Action.HANG_UP, EndReason.HANGUP, now, told)

    def leave(self, now: float, told: LeaveReason = LeaveReason.NORMAL) -> None:
        """End the call in whichever way its state asks for; an ended one stays as it is.

        ``told`` is what the user says to the peer: NORMAL, OTHER_CALL or CALL_BACK.
        """
        self.on_time(now)
        if self._state is CallState.ENDED:
            return
        if self._state in MEDIA_STATES:
            self.hangup(now, told)
        elif self._role is Role.CALLER:
            self.cancel(now, told)
        else:
            self.decline(now, told)

    def superseded(self, now: float) -> None:
        """End without a word: the peer's own call goes on (`Glare.THEIRS`)."""
        if self.on_time(now):
            return
        self._end(Action.SUPERSEDE, EndReason.SUPERSEDED, None)

    def failed(self, reason: EndReason, now: float) -> None:
        """End because something failed at this end; the peer is told that much and no more.

        ``reason`` is MEDIA_FAILED, CONNECTION_LOST or NOT_AUTHENTIC. Where the deadline has passed
        the call ends for that instead: what fails may do so at any moment.
        """
        if reason not in _FAILURES:
            raise LocalProtocolError(f"{reason} is not a failure")
        if self.on_time(now):
            return
        self._end(Action.FAIL, reason, LeaveReason.FAILED)

    def on_time(self, now: float) -> bool:
        """Do what is due, or end the call where its time is over; every other method does so first.

        Returns whether it ended just now.
        """
        if self._deadline is None or now < self._deadline:
            return False
        reason, told = _TIMED_OUT[self._state]
        self._end(Action.TIME_OUT, reason, told)
        return True

    def _times(self) -> tuple[float | None, ...]:
        """Return when something is due."""
        return (self._deadline,)

    # --- steps --------------------------------------------------------------------------------

    def _check(self, trigger: Trigger) -> CallState:
        """Return where ``trigger`` leads, or raise as `next_state` does."""
        return next_state(self._role, self._state, trigger)

    def _step(self, trigger: Trigger, deadline: float | None) -> None:
        self._state = self._check(trigger)
        self._deadline = deadline

    def _leave(
        self,
        action: Action,
        reason: EndReason,
        now: float,
        told: LeaveReason = LeaveReason.NORMAL,
    ) -> None:
        if told not in _CHOSEN:
            raise LocalProtocolError(f"{told.name} is not for a user to say")
        self.on_time(now)
        self._end(action, reason, told)

    def _breach(self, reason: EndReason, detail: Reason) -> None:
        """End because of what the peer sent; it is told nothing that helps it."""
        self._end(Action.BREACH, reason, LeaveReason.FAILED, detail=detail)

    def _end(
        self,
        trigger: Trigger,
        reason: EndReason,
        told: LeaveReason | None,
        *,
        by_peer: bool = False,
        detail: Reason | None = None,
    ) -> None:
        """Take the step to ENDED, tell the peer where ``told`` is given, and drop the keys."""
        self._check(trigger)
        last = None if told is None else self._last_message(trigger, told)
        self._step(trigger, None)
        if last is not None:
            self._outgoing.append(last)
        self._events.append(Ended(reason, by_peer, detail))
        self._forget_secrets()

    def _forget_secrets(self) -> None:
        self._secrets = None
        self._call_keys = None
        self._channel.forget_keys()

    def _last_message(self, trigger: Trigger, told: LeaveReason) -> CallMessage:
        counter = self._channel.next_counter(last=True)
        if self._state in MEDIA_STATES:
            return self._channel.sign(Hangup(self.call_id, counter, told, UNSIGNED))
        message: Busy | Cancel | Decline
        if trigger is Action.BUSY:
            message = Busy(self.call_id, counter, told, None)
        elif self._role is Role.CALLER:
            message = Cancel(self.call_id, counter, told, None)
        else:
            message = Decline(self.call_id, counter, told, None)
        return self._channel.sign(message) if self._channel.has_keys else message
