"""The time-outs of a call (spec/call.md, "Time")."""

import pytest

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_events import Ended, EndReason
from e2ecall.protocol.call_table import CallState, Received, Role
from e2ecall.protocol.messages import Cancel, Decline, Hangup, LeaveReason

LIMITS = [
    (Role.CALLER, CallState.OFFERED, 60, EndReason.NO_ANSWER, Cancel, LeaveReason.NO_ANSWER),
    (Role.CALLER, CallState.RINGING, 60, EndReason.NO_ANSWER, Cancel, LeaveReason.NO_ANSWER),
    (Role.CALLER, CallState.CONNECTING, 30, EndReason.TIMEOUT, Hangup, LeaveReason.FAILED),
    (Role.CALLEE, CallState.INVITED, 60, EndReason.NO_ANSWER, None, None),
    (
        Role.CALLEE,
        CallState.AWAITING_REVEAL,
        10,
        EndReason.NOT_AUTHENTIC,
        Decline,
        LeaveReason.FAILED,
    ),
    (Role.CALLEE, CallState.ALERTING, 60, EndReason.NO_ANSWER, Decline, LeaveReason.NO_ANSWER),
    (Role.CALLEE, CallState.CONNECTING, 30, EndReason.TIMEOUT, Hangup, LeaveReason.FAILED),
]


@pytest.mark.parametrize(("role", "state", "limit", "reason", "kind", "told"), LIMITS)
def test_deadline_of_each_state(kit, role, state, limit, reason, kind, told):
    """CALL-13: a state that lasts too long ends, with its reason, and the peer is told."""
    _, call = kit.at(role, state)
    call.messages_to_send()
    assert call.deadline() == kit.now + limit
    call.on_time(kit.now + limit - 0.001)
    assert call.state is state
    call.on_time(kit.now + limit)
    assert call.events() == [Ended(reason, by_peer=False)]
    messages = call.messages_to_send()
    assert [type(message) for message in messages] == ([] if kind is None else [kind])
    assert all(message.reason is told for message in messages)
    assert call.deadline() is None


@pytest.mark.parametrize("role", list(Role))
def test_ended_calls_have_no_deadline(kit, role):
    """A call that is over waits for nothing."""
    _, call = kit.at(role, CallState.ENDED)
    assert call.deadline() is None
    call.on_time(kit.now + 1e9)
    assert call.state is CallState.ENDED


def test_late_reveal_is_late_without_a_timer(kit, pair):
    """CALL-04: a Reveal after 10 s finds the call ended, even if no timer fired in between."""
    pair.run(2)
    with pytest.raises(RemoteProtocolError):
        pair.callee.receive(pair.reveal, kit.now + 10)
    assert pair.callee.events() == [Ended(EndReason.NOT_AUTHENTIC, by_peer=False)]


def test_late_accept_is_late_without_a_timer(kit, pair):
    """A phone that rang for a minute cannot be picked up any more."""
    pair.run(3)
    with pytest.raises(LocalProtocolError):
        pair.callee.accept(audio=True, video=True, now=kit.now + 60)
    assert pair.callee.state is CallState.ENDED


@pytest.mark.parametrize("age", [-30, 0, 60])
def test_fresh_offers_ring(kit, pair, age):
    """CALL-01: an Offer rings up to 60 s after, and with clocks 30 s apart before, it was sent."""
    now = kit.now
    call = Call.incoming(kit.callee, kit.caller, pair.offer, sent_at=now - age, now=now)
    assert call.state is CallState.INVITED


@pytest.mark.parametrize("age", [-31, 61, 86_400])
def test_stale_offers_do_not_ring(kit, pair, age):
    """CALL-01: an older Offer, or one from the future, is refused as expired."""
    with pytest.raises(RemoteProtocolError) as refused:
        Call.incoming(kit.callee, kit.caller, pair.offer, sent_at=kit.now - age, now=kit.now)
    assert refused.value.reason is Reason.EXPIRED


def test_callee_that_timed_out_tells_no_answer(kit, pair):
    """The caller of a phone that nobody picked up learns just that."""
    pair.run(3)
    pair.callee.on_time(kit.now + 60)
    (message,) = pair.callee.messages_to_send()
    pair.caller.receive(message, kit.now + 59)
    assert pair.caller.events()[-1] == Ended(EndReason.NO_ANSWER, by_peer=True)


def test_answer_after_the_caller_gave_up(kit, pair):
    """An Answer that comes too late starts nothing."""
    pair.run(4)
    with pytest.raises(RemoteProtocolError) as refused:
        pair.caller.receive(pair.message(Received.ANSWER, Role.CALLEE), kit.now + 60)
    assert refused.value.reason is Reason.UNEXPECTED_MESSAGE
    assert pair.caller.state is CallState.ENDED
