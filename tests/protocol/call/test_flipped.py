"""M1 at the state machine: what a call does with its messages after one bit of them was flipped."""

import pytest

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_events import Alert, Ended, EndReason
from e2ecall.protocol.call_table import CallState, Received, Role
from e2ecall.protocol.messages import decode_call_message, encode_call_message
from tests.protocol.flips import flipped, flips

WHERE = {
    Received.DECLINE: (Role.CALLER, CallState.RINGING),
    Received.CANCEL: (Role.CALLEE, CallState.ALERTING),
    Received.HANGUP: (Role.CALLER, CallState.CONNECTED),
    Received.CANDIDATES: (Role.CALLEE, CallState.CONNECTED),
    Received.MEDIA_STATE: (Role.CALLER, CallState.CONNECTING),
    Received.TEXT: (Role.CALLER, CallState.CONNECTING),
    Received.RENEGOTIATE: (Role.CALLEE, CallState.CONNECTED),
    Received.REKEY: (Role.CALLEE, CallState.CONNECTED),
    Received.REKEY_REPLY: (Role.CALLER, CallState.CONNECTED),
    Received.REKEY_REQUEST: (Role.CALLER, CallState.CONNECTED),
    Received.PATH: (Role.CALLEE, CallState.CONNECTED),
    Received.PATH_REPLY: (Role.CALLER, CallState.CONNECTED),
    Received.PATH_REQUEST: (Role.CALLER, CallState.CONNECTED),
}


def peer_of(role):
    return Role.CALLEE if role is Role.CALLER else Role.CALLER


def decoded(data):
    """Return the message, or None where it is none."""
    try:
        return decode_call_message(data)
    except RemoteProtocolError:
        return None


@pytest.mark.parametrize("kind", WHERE)
def test_every_flipped_bit(kit, kind):
    """M1, CALLKEY-05: with any bit flipped a message is refused, and the call is as before."""
    role, state = WHERE[kind]
    pair, call = kit.at(role, state)
    message = pair.message(kind, peer_of(role))
    before = kit.snapshot(call)
    for changed in filter(None, map(decoded, flips(encode_call_message(message)))):
        with pytest.raises(RemoteProtocolError):
            call.receive(changed, kit.now)
        assert kit.snapshot(call) == before
    call.receive(message, kit.now)
    assert kit.snapshot(call) != before


@pytest.mark.parametrize("kind", [Received.REVEAL, Received.ANSWER])
def test_flipped_confirmation(kit, kind):
    """M1, CALL-05: with a bit flipped Reveal or Answer is refused, or ends the call: no third."""
    role, state = (
        (Role.CALLEE, CallState.AWAITING_REVEAL)
        if kind is Received.REVEAL
        else (Role.CALLER, CallState.RINGING)
    )
    for number in range(160):
        pair, call = kit.at(role, state)
        data = encode_call_message(pair.message(kind, peer_of(role)))
        changed = decoded(flipped(data, number * 8 * len(data) // 160))
        if changed is None:
            continue
        before = kit.snapshot(call)
        try:
            call.receive(changed, kit.now)
        except RemoteProtocolError:
            assert kit.snapshot(call) == before
        else:
            assert call.events() == [Ended(EndReason.NOT_AUTHENTIC, False, Reason.BAD_MAC)]


def test_flipped_ringing(kit):
    """M1, R8: with a bit of Ringing flipped it is refused, or the call ends before it rings."""
    for pair, ringing in flipped_samples(lambda pair: pair.run(1).ringing, kit):
        before = kit.snapshot(pair.caller)
        try:
            pair.caller.receive(ringing, kit.now)
        except RemoteProtocolError:
            assert kit.snapshot(pair.caller) == before
            continue
        ended_unheard(pair.callee, *pair.caller.messages_to_send(), now=kit.now)


def test_flipped_offer(kit):
    """M1, R8: with a bit of Offer flipped it is refused, or the call ends before it rings."""
    for pair, offer in flipped_samples(lambda pair: pair.offer, kit):
        try:
            callee = Call.incoming(kit.callee, kit.caller, offer, sent_at=kit.now, now=kit.now)
            kit.ring(callee)
            (ringing,) = callee.messages_to_send()
            pair.caller.receive(ringing, kit.now)
        except RemoteProtocolError as error:
            found = error.reason
            assert found in (
                Reason.BAD_POINT,
                Reason.BAD_KEM_KEY,
                Reason.WRONG_CALL,
                Reason.BAD_MEDIA_DESCRIPTION,
            )
            continue
        ended_unheard(callee, *pair.caller.messages_to_send(), now=kit.now)


def flipped_samples(message, kit, count=120):
    """Give pairs of a fresh call and one of its messages with a bit flipped, over all of it."""
    for number in range(count):
        pair = kit.Pair()
        data = encode_call_message(message(pair))
        changed = decoded(flipped(data, number * 8 * len(data) // count))
        if changed is not None:
            yield pair, changed


def ended_unheard(callee, reveal, *, now):
    """Expect that the Reveal ends the call, and that nobody was alerted."""
    callee.receive(reveal, now)
    events = callee.events()
    assert events == [Ended(EndReason.NOT_AUTHENTIC, False, Reason.BAD_MAC)]
    assert not any(isinstance(event, Alert) for event in events)
