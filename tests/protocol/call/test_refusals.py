"""What a peer may not do in a call (spec/call.md): P1, P3, P5, P6, R6, R8 at the state machine."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from e2ecall.errors import E2ECallError, LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_events import Alert, Ended, EndReason, StartMedia
from e2ecall.protocol.call_exchange import CalleeSecrets
from e2ecall.protocol.call_table import TABLE, CallState, Received, Role
from e2ecall.protocol.messages import CandidateType, LeaveReason

STATES = [(role, state) for role in Role for state in TABLE[role] if state is not CallState.IDLE]
MACED = [kind for kind in Received if kind not in (Received.OFFER, Received.RINGING)]
OPTIONAL_MAC = (Received.DECLINE, Received.BUSY, Received.CANCEL)
CONFIRMING = (Received.REVEAL, Received.ANSWER)


def peer_of(role):
    return Role.CALLEE if role is Role.CALLER else Role.CALLER


def refuse(kit, call, message, now=None):
    """Expect a refusal that leaves the call as it was, and return its reason."""
    before = kit.snapshot(call)
    with pytest.raises(RemoteProtocolError) as refused:
        call.receive(message, kit.now if now is None else now)
    assert kit.snapshot(call) == before
    return refused.value.reason


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("kind", list(Received))
def test_every_message_in_every_state(kit, role, state, kind):
    """CALL-12: a message that the table does not list is refused and changes nothing."""
    pair, call = kit.at(role, state)
    message = pair.message(kind, peer_of(role))
    if kind not in TABLE[role][state]:
        assert refuse(kit, call, message) is Reason.UNEXPECTED_MESSAGE
        return
    if call._channel.has_keys or kind is Received.RINGING:
        call.receive(message, kit.now)
        expected = TABLE[role][state][kind]
        assert call.state is expected
    else:
        assert refuse(kit, call, message) is Reason.BAD_MAC


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("kind", MACED)
def test_flipped_mac_in_every_state(kit, role, state, kind):
    """CALL-05: a wrong MAC is refused; on Reveal and Answer it proves another key and ends all."""
    pair, call = kit.at(role, state)
    message = pair.message(kind, peer_of(role))
    wrong = bytes((message.mac[0] ^ 1,)) + message.mac[1:]
    message = replace(message, mac=wrong)
    if kind in TABLE[role][state] and kind in CONFIRMING:
        call.receive(message, kit.now)
        assert call.events() == [Ended(EndReason.NOT_AUTHENTIC, False, Reason.BAD_MAC)]
        return
    expected = {Reason.BAD_MAC} if kind in TABLE[role][state] else {Reason.UNEXPECTED_MESSAGE}
    assert refuse(kit, call, message) in expected


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("kind", OPTIONAL_MAC)
def test_missing_mac_in_every_state(kit, role, state, kind):
    """CALL-06: a MAC may be absent only while its sender can be without keys."""
    pair, call = kit.at(role, state)
    message = pair.message(kind, peer_of(role), signed=False)
    if kind not in TABLE[role][state]:
        assert refuse(kit, call, message) is Reason.UNEXPECTED_MESSAGE
    elif state in (CallState.OFFERED, CallState.INVITED, CallState.AWAITING_REVEAL):
        call.receive(message, kit.now)
        assert call.state is CallState.ENDED
    else:
        assert refuse(kit, call, message) is Reason.BAD_MAC


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("kind", list(Received))
def test_message_of_another_call(kit, role, state, kind):
    """P6: a message with another CallId is refused in every state."""
    pair, call = kit.at(role, state)
    message = replace(pair.message(kind, peer_of(role)), call_id=b"?" * 16)
    assert refuse(kit, call, message) is Reason.WRONG_CALL


def test_message_of_another_call_under_this_calls_id(kit, pair):
    """P6: renaming a message of another call with the same peer does not make it fit."""
    other = kit.Pair().run(6)
    pair.run(6)
    hangup = other.message(Received.HANGUP, Role.CALLEE)
    message = replace(hangup, call_id=pair.offer.call_id)
    assert refuse(kit, pair.caller, message) is Reason.BAD_MAC


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("kind", list(Received))
def test_reflected_messages(kit, role, state, kind):
    """R6: what an end could have sent itself never moves it, in any state."""
    pair, call = kit.at(role, state)
    if kind is Received.RINGING and role is Role.CALLER:
        return  # a caller sends none
    message = pair.message(kind, role)
    if kind in CONFIRMING and kind in TABLE[role][state]:
        call.receive(message, kit.now)
        assert call.events() == [Ended(EndReason.NOT_AUTHENTIC, False, Reason.BAD_MAC)]
    else:
        assert refuse(kit, call, message) in (Reason.BAD_MAC, Reason.UNEXPECTED_MESSAGE)


@pytest.mark.parametrize("kind", [Received.CANDIDATES, Received.MEDIA_STATE])
def test_repeated_counter(kit, pair, kind):
    """A counter counts once, whichever message carries it."""
    pair.run(6)
    pair.caller.receive(pair.message(Received.MEDIA_STATE, Role.CALLEE, counter=7), kit.now)
    message = pair.message(kind, Role.CALLEE, counter=7)
    assert refuse(kit, pair.caller, message) is Reason.REPLAYED


def test_counter_beyond_the_limit(kit, pair):
    """A counter that no end reaches cannot push the window away."""
    pair.run(6)
    message = pair.message(Received.MEDIA_STATE, Role.CALLEE, counter=0xFFFF)
    assert refuse(kit, pair.caller, message) is Reason.LIMIT


@pytest.mark.parametrize("field", ["counter", "muted", "camera"])
def test_every_field_is_under_the_mac(kit, pair, field):
    """CALLKEY-05: changing any field of a signed message makes its MAC wrong."""
    pair.run(6)
    message = pair.message(Received.MEDIA_STATE, Role.CALLEE)
    value = getattr(message, field)
    changed = replace(message, **{field: value + 1 if field == "counter" else not value})
    assert refuse(kit, pair.caller, changed) is Reason.BAD_MAC


def test_mac_of_another_type(kit, pair):
    """CALLKEY-05: the type is under the MAC, so a Hangup cannot pass as a Decline."""
    pair.run(3)
    hangup = pair.message(Received.HANGUP, Role.CALLEE)
    message = replace(pair.message(Received.DECLINE, Role.CALLEE), mac=hangup.mac)
    assert refuse(kit, pair.caller, message) is Reason.BAD_MAC


def test_broken_commitment_ends_the_call(kit, pair):
    """P5: a nonce that does not open C ends the call visibly, and nothing ever rang."""
    pair.run(2)
    reveal = pair.sign(Role.CALLER, replace(pair.reveal, nonce=b"!" * 32))
    pair.callee.receive(reveal, kit.now)
    ended = Ended(EndReason.NOT_AUTHENTIC, by_peer=False, detail=Reason.BAD_COMMITMENT)
    assert pair.callee.events() == [ended]
    assert pair.callee.sas is None
    (told,) = pair.callee.messages_to_send()
    assert told.reason is LeaveReason.FAILED


def test_second_reveal(kit, pair):
    """P5: a nonce is shown once."""
    pair.run(3)
    assert refuse(kit, pair.callee, pair.reveal) is Reason.UNEXPECTED_MESSAGE


def test_first_ringing_is_final(kit, pair):
    """CALL-03: a second Ringing, which could choose the code, is refused."""
    pair.run(2)
    code = pair.caller.sas
    assert refuse(kit, pair.caller, pair.shadow_ringing()) is Reason.UNEXPECTED_MESSAGE
    assert pair.caller.sas == code


def test_one_ringing_per_call(kit, pair):
    """CALL-03: the callee cannot be brought to ring twice in one call."""
    pair.run(1)
    with pytest.raises(LocalProtocolError):
        kit.ring(pair.callee)
    assert refuse(kit, pair.callee, pair.offer) is Reason.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_bad_point_in_ringing(kit, pair, point):
    """P3: a share that no honest end has is refused and the call still waits for a Ringing."""
    ringing = replace(pair.shadow_ringing(), x25519_share=point)
    assert refuse(kit, pair.caller, ringing) is Reason.BAD_POINT


def test_bad_shares_in_offer(kit):
    """P3: an Offer with a bad point or KEM key cannot be answered."""
    offer = kit.place().offer
    with pytest.raises(RemoteProtocolError) as refused:
        CalleeSecrets.generate(replace(offer, x25519_share=bytes(32)))
    assert refused.value.reason is Reason.BAD_POINT
    with pytest.raises(RemoteProtocolError) as refused:
        CalleeSecrets.generate(replace(offer, mlkem_key=b"\xff" * 1184))
    assert refused.value.reason is Reason.BAD_KEM_KEY


@pytest.mark.parametrize("name", ["mlkem_ciphertext", "media", "reply_box", "turn"])
def test_altered_ringing_is_found_out(kit, pair, name):
    """R8: whatever of a Ringing is exchanged on the way, the call ends before it rings."""
    pair.ring()
    other = kit.Pair().run(1).ringing
    changes = {"media": kit.media("e"), "reply_box": b"e" * 32}
    changes |= {"mlkem_ciphertext": other.mlkem_ciphertext}
    changes |= {"turn": replace(other.turn, password="other")}
    pair.ringing = replace(pair.ringing, **{name: changes[name]})
    pair.show_ringing()
    pair.show_reveal()
    ended = Ended(EndReason.NOT_AUTHENTIC, by_peer=False, detail=Reason.BAD_MAC)
    assert pair.callee.events() == [ended]


@pytest.mark.parametrize("name", ["mlkem_key", "seed", "media", "wants_video", "reply_box"])
def test_altered_offer_is_found_out(kit, name):
    """R8: whatever of an Offer is exchanged on the way, the call ends before it rings."""
    caller = kit.place()
    (offer,) = caller.messages_to_send()
    other = kit.place().offer
    changes = {"media": kit.media("e"), "wants_video": False, "reply_box": b"e" * 32}
    changes |= {"mlkem_key": other.mlkem_key, "seed": other.seed}
    altered = replace(offer, **{name: changes[name]})
    callee = Call.incoming(kit.callee, kit.caller, altered, sent_at=kit.now, now=kit.now)
    kit.ring(callee)
    caller.receive(callee.messages_to_send()[0], kit.now)
    callee.receive(caller.messages_to_send()[0], kit.now)
    ended = Ended(EndReason.NOT_AUTHENTIC, by_peer=False, detail=Reason.BAD_MAC)
    assert callee.events() == [ended]


@pytest.mark.parametrize("name", ["address", "device_id", "identity_key", "session_hash"])
def test_ends_must_agree_who_they_are(kit, name):
    """CALLKEY-02: two ends that take each other for somebody else share no key."""
    values = {"address": "mallory@relay.example", "device_id": 9}
    values |= {"identity_key": b"M" * 32, "session_hash": b"m" * 64}
    parts = {n: getattr(kit.caller, n) for n in values} | {name: values[name]}
    stranger = type(kit.caller)(**parts)
    caller = kit.place()
    (offer,) = caller.messages_to_send()
    callee = Call.incoming(kit.callee, stranger, offer, sent_at=kit.now, now=kit.now)
    kit.ring(callee)
    caller.receive(callee.messages_to_send()[0], kit.now)
    callee.receive(caller.messages_to_send()[0], kit.now)
    ended = Ended(EndReason.NOT_AUTHENTIC, by_peer=False, detail=Reason.BAD_MAC)
    assert callee.events() == [ended]


@pytest.mark.parametrize("change", [{"type": CandidateType.HOST}, {"address": "192.0.2.1"}])
def test_candidate_outside_the_relay_in_answer(kit, pair, change):
    """CALL-11: an Answer that leads past the relay ends the call before media."""
    pair.run(3)
    answer = pair.message(Received.ANSWER, Role.CALLEE)
    answer = pair.sign(Role.CALLEE, replace(answer, candidates=(replace(kit.relayed, **change),)))
    pair.caller.events()
    pair.caller.receive(answer, kit.now)
    ended = Ended(EndReason.PROTOCOL_ERROR, by_peer=False, detail=Reason.BAD_CANDIDATE)
    assert pair.caller.events() == [ended]


@pytest.mark.parametrize("steps", [2, 3, 5, 6])
def test_candidate_outside_the_relay_in_candidates(kit, pair, steps):
    """CALL-11: so do Candidates, at whatever moment they come."""
    pair.run(steps)
    pair.callee.events()
    message = pair.message(Received.CANDIDATES, Role.CALLER)
    outside = replace(kit.relayed, address="127.0.0.1")
    message = pair.sign(Role.CALLER, replace(message, candidates=(outside,)))
    pair.callee.receive(message, kit.now)
    ended = Ended(EndReason.PROTOCOL_ERROR, by_peer=False, detail=Reason.BAD_CANDIDATE)
    assert pair.callee.events() == [ended]


def test_candidates_are_bounded(kit, pair):
    """A peer cannot make an end remember more than eight candidates a call."""
    pair.run(3)
    for counter in range(10, 18):
        message = pair.message(Received.CANDIDATES, Role.CALLER, counter=counter)
        pair.callee.receive(message, kit.now)
    message = pair.message(Received.CANDIDATES, Role.CALLER, counter=18)
    assert refuse(kit, pair.callee, message) is Reason.LIMIT


def test_answer_for_a_stream_that_was_not_described(kit, pair):
    """An Answer that announces a camera the Ringing did not describe ends the call."""
    microphone = replace(kit.media(), streams=kit.media().streams[:1])
    kit.ring(pair.callee, media=microphone)
    (pair.ringing,) = pair.callee.messages_to_send()
    pair.keys = pair.callee._channel._sending
    pair.show_ringing()
    pair.caller.events()
    pair.caller.receive(pair.message(Received.ANSWER, Role.CALLEE), kit.now)
    ended = Ended(EndReason.PROTOCOL_ERROR, False, Reason.BAD_MEDIA_DESCRIPTION)
    assert pair.caller.events() == [ended]


def test_bad_description_in_offer_and_ringing(kit, pair):
    """CALL-10: a description that contradicts itself is refused on both ways."""
    twice = replace(kit.media(), streams=kit.media().streams[:1] * 2)
    bad = replace(pair.offer, media=twice)
    with pytest.raises(RemoteProtocolError) as refused:
        Call.incoming(kit.callee, kit.caller, bad, sent_at=kit.now, now=kit.now)
    assert refused.value.reason is Reason.BAD_MEDIA_DESCRIPTION
    ringing = replace(pair.shadow_ringing(), media=twice)
    assert refuse(kit, pair.caller, ringing) is Reason.BAD_MEDIA_DESCRIPTION


ACTIONS = {
    "ring": lambda kit, pair, call: kit.ring(call),
    "accept": lambda kit, pair, call: call.accept(audio=True, video=True, now=kit.now),
    "decline": lambda kit, pair, call: call.decline(kit.now),
    "busy": lambda kit, pair, call: call.busy(kit.now),
    "cancel": lambda kit, pair, call: call.cancel(kit.now),
    "hangup": lambda kit, pair, call: call.hangup(kit.now),
    "superseded": lambda kit, pair, call: call.superseded(kit.now),
    "connected": lambda kit, pair, call: call.media_connected(kit.now),
    "candidates": lambda kit, pair, call: call.add_candidates([kit.relayed], kit.now),
    "text": lambda kit, pair, call: call.send_text("hello", kit.now),
    "ask": lambda kit, pair, call: call.renegotiate(video=True, now=kit.now),
    "state": lambda kit, pair, call: call.set_media_state(muted=True, camera=False, now=kit.now),
}


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("action", list(ACTIONS))
def test_every_action_in_every_state(kit, role, state, action):
    """CALL-12: an action the state does not allow raises LocalProtocolError and does nothing."""
    pair, call = kit.at(role, state)
    before = kit.snapshot(call)
    try:
        ACTIONS[action](kit, pair, call)
    except LocalProtocolError:
        assert kit.snapshot(call) == before
    started = any(isinstance(event, StartMedia) for event in call.events())
    assert started == (action == "accept" and state is CallState.ALERTING)


@settings(max_examples=120)
@given(
    steps=st.integers(0, 3),
    moves=st.lists(
        st.tuples(st.sampled_from(list(Received)), st.booleans(), st.booleans()), max_size=12
    ),
)
def test_no_order_of_messages_starts_a_callees_media(steps, moves):
    """P1: without `accept` no trace of messages, signed or not, brings a callee to media."""
    kit = KIT
    pair = kit.Pair().run(steps)
    events = pair.callee.events()
    counters = itertools.count(100)
    for kind, signed, flip in moves:
        message = pair.message(kind, Role.CALLER, counter=next(counters), signed=signed)
        if flip and getattr(message, "mac", None):
            message = replace(message, mac=bytes(64))
        with_error = None
        try:
            pair.callee.receive(message, kit.now)
        except E2ECallError as error:
            with_error = error
        assert with_error is None or isinstance(with_error, RemoteProtocolError)
        events += pair.callee.events()
        assert pair.callee.state not in (CallState.CONNECTING, CallState.CONNECTED)
    assert not any(isinstance(event, StartMedia) for event in events)
    assert sum(isinstance(event, Alert) for event in events) <= 1
    assert sum(isinstance(event, Ended) for event in events) <= 1


@settings(max_examples=60)
@given(moves=st.lists(st.sampled_from(list(Received)), max_size=12))
def test_caller_starts_media_with_the_answer_alone(moves):
    """P1: a caller starts media exactly when an authentic Answer came in, and at most once."""
    kit = KIT
    pair = kit.Pair().run(3)
    counters = itertools.count(100)
    pair.caller.events()
    for kind in moves:
        try:
            pair.caller.receive(pair.message(kind, Role.CALLEE, counter=next(counters)), kit.now)
        except RemoteProtocolError:
            continue
        started = any(isinstance(event, StartMedia) for event in pair.caller.events())
        assert started == (kind is Received.ANSWER)


@pytest.fixture(autouse=True)
def _kit(kit):
    global KIT  # noqa: PLW0603 - hypothesis refuses function-scoped fixtures
    KIT = kit
