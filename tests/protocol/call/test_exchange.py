"""The whole exchange between two ends (spec/call.md)."""

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_events import (
    Alert,
    Ended,
    EndReason,
    PeerMediaState,
    PeerRinging,
    RemoteCandidates,
    SasReady,
    StartMedia,
)
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.messages import (
    Cancel,
    Candidate,
    CandidateType,
    Decline,
    Hangup,
    LeaveReason,
    Stream,
    decode_call_message,
    encode_call_message,
)
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from relay.wire.messages import TurnCredential


def test_both_ends_agree_on_code_and_frame_keys(kit, pair):
    """A complete exchange gives the same spoken code and frame keys on both sides."""
    pair.run(6)
    assert pair.caller.state is pair.callee.state is CallState.CONNECTED
    assert pair.caller.sas == pair.callee.sas
    caller = next(e for e in pair.caller.events() if isinstance(e, StartMedia))
    callee = next(e for e in pair.callee.events() if isinstance(e, StartMedia))
    for stream in Stream:
        assert caller.keys.sending(stream) == callee.keys.receiving(stream)
        assert callee.keys.sending(stream) == caller.keys.receiving(stream)
    assert caller.remote == callee.local
    assert callee.remote == caller.local
    assert caller.remote_candidates == (kit.relayed,)


def test_frame_travels_from_sender_to_receiver(pair):
    """What one end encrypts under its keys the other decrypts under them."""
    pair.run(5)
    caller = next(e for e in pair.caller.events() if isinstance(e, StartMedia)).keys
    callee = next(e for e in pair.callee.events() if isinstance(e, StartMedia)).keys
    key, other = caller.sending(Stream.CAMERA), callee.receiving(Stream.CAMERA)
    receiver = SFrameReceiver()
    receiver.add_key(other.kid, other.base_key)
    protected = SFrameSender(key.base_key, key.kid).encrypt(b"\x01frame", 1)
    assert receiver.decrypt(protected, 1) == b"\x01frame"


def test_events_come_in_order(pair):
    """Caller: ringing, code, media. Callee: code, alert, media."""
    pair.run(6)
    caller = [type(event) for event in pair.caller.events()]
    callee = [type(event) for event in pair.callee.events()]
    assert caller == [PeerRinging, SasReady, StartMedia]
    assert callee == [SasReady, Alert, StartMedia]


def test_nothing_alerts_before_the_reveal(pair):
    """CALL-04, SAS-04: the phone is silent, and no code shows, while the nonce is not shown."""
    pair.run(2)
    assert pair.callee.events() == []
    assert pair.callee.sas is None


def test_ringing_brings_the_callers_turn_credential(pair):
    """The credential the callee fetched reaches the caller with the Ringing."""
    pair.run(2)
    assert pair.caller.events()[0] == PeerRinging(TurnCredential("user", "password"))


def test_messages_survive_the_wire(pair):
    """Encoding and decoding each message on the way changes nothing about the exchange."""
    pair.ring()
    pair.ringing = decode_call_message(encode_call_message(pair.ringing))
    pair.show_ringing()
    pair.reveal = decode_call_message(encode_call_message(pair.reveal))
    pair.show_reveal()
    pair.accept()
    pair.answer = decode_call_message(encode_call_message(pair.answer))
    pair.show_answer()
    assert pair.caller.state is pair.callee.state is CallState.CONNECTING


def test_boxes_of_the_peer(pair):
    """The caller's messages go to the account until a Ringing named a box."""
    assert pair.caller.peer_box is None
    assert pair.callee.peer_box == b"c" * 32
    pair.run(2)
    assert pair.caller.peer_box == b"d" * 32


def test_callers_candidates_wait_for_the_answer(kit, pair):
    """CALL-07: what the caller gathers while it rings is used by the callee after accept alone."""
    pair.run(3)
    pair.caller.add_candidates([kit.relayed], kit.now)
    (message,) = pair.caller.messages_to_send()
    pair.callee.events()
    pair.callee.receive(message, kit.now)
    assert pair.callee.events() == []
    pair.accept()
    (start,) = pair.callee.events()
    assert start.remote_candidates == (kit.relayed,)


def test_later_candidates_follow_as_events(kit, pair):
    """Candidates that come after the Answer are passed on at once, in both directions."""
    pair.run(6)
    for here, there in ((pair.caller, pair.callee), (pair.callee, pair.caller)):
        there.events()
        here.add_candidates([kit.relayed], kit.now)
        (message,) = here.messages_to_send()
        there.receive(message, kit.now)
        assert there.events() == [RemoteCandidates((kit.relayed,))]


def test_callee_gathers_nothing_before_accept(kit, pair):
    """A callee that has not accepted tells no candidate."""
    pair.run(3)
    with pytest.raises(LocalProtocolError):
        pair.callee.add_candidates([kit.relayed], kit.now)


@pytest.mark.parametrize("kind", [CandidateType.HOST, CandidateType.SRFLX, CandidateType.PRFLX])
def test_own_address_is_never_sent(kit, pair, kind):
    """CALL-11: a candidate that is not relayed does not leave, whatever the media engine says."""
    pair.run(5)
    with pytest.raises(LocalProtocolError):
        pair.caller.add_candidates([replace(kit.relayed, type=kind)], kit.now)
    with pytest.raises(LocalProtocolError):
        pair.caller.add_candidates([Candidate(CandidateType.RELAY, "10.0.0.1", 9)], kit.now)
    assert pair.caller.messages_to_send() == []


def test_media_state_reaches_the_peer(kit, pair):
    """CALL-15: muting is shown to the peer; an older state that comes late is not."""
    pair.run(6)
    pair.callee.events()
    pair.caller.set_media_state(muted=True, camera=True, now=kit.now)
    pair.caller.set_media_state(muted=False, camera=False, now=kit.now)
    older, newer = pair.caller.messages_to_send()
    pair.callee.receive(newer, kit.now)
    pair.callee.receive(older, kit.now)
    assert pair.callee.events() == [PeerMediaState(Controls(muted=False, camera=False))]


def test_answer_says_what_the_callee_sends(kit, pair):
    """The callee's directions reach the caller's media start."""
    pair.run(3)
    pair.callee.accept(audio=True, video=False, now=kit.now)
    (pair.answer,) = pair.callee.messages_to_send()
    pair.show_answer()
    start = pair.caller.events()[-1]
    assert (start.audio, start.video, start.peer_audio, start.peer_video) == (True,) * 3 + (False,)


def test_stream_must_be_described_to_be_sent(kit, pair):
    """Accepting with a camera that the Ringing did not describe is refused and changes nothing."""
    microphone = replace(kit.media(), streams=kit.media().streams[:1])
    kit.ring(pair.callee, media=microphone)
    (pair.ringing,) = pair.callee.messages_to_send()
    pair.show_ringing()
    pair.show_reveal()
    with pytest.raises(LocalProtocolError):
        pair.callee.accept(audio=True, video=True, now=kit.now)
    assert pair.callee.state is CallState.ALERTING


def test_decline_while_it_rings(kit, pair):
    """A declined call ends on both sides, with a MAC on the message."""
    pair.run(3)
    pair.callee.decline(kit.now)
    (message,) = pair.callee.messages_to_send()
    assert isinstance(message, Decline)
    assert message.mac is not None
    pair.caller.receive(message, kit.now)
    assert pair.caller.events()[-1] == Ended(EndReason.DECLINED, by_peer=True)
    assert pair.callee.events()[-1] == Ended(EndReason.DECLINED, by_peer=False)


def test_decline_before_ringing(kit, pair):
    """An Offer can be declined before any key exists, without a MAC."""
    pair.callee.decline(kit.now)
    (message,) = pair.callee.messages_to_send()
    assert message.mac is None
    pair.caller.receive(message, kit.now)
    assert pair.caller.events() == [Ended(EndReason.DECLINED, by_peer=True)]


def test_busy(kit, pair):
    """A busy callee sends no Ringing, and the caller learns why."""
    pair.callee.busy(kit.now)
    (message,) = pair.callee.messages_to_send()
    pair.caller.receive(message, kit.now)
    assert pair.caller.events() == [Ended(EndReason.BUSY, by_peer=True)]


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_cancel_at_each_step_before_the_answer(kit, pair, steps):
    """The caller can give up at any moment, and the callee's phone stops."""
    pair.run(steps)
    pair.caller.cancel(kit.now)
    (message,) = pair.caller.messages_to_send()
    assert isinstance(message, Cancel)
    assert (message.mac is None) == (steps < 2)
    pair.callee.receive(message, kit.now)
    assert pair.callee.events()[-1] == Ended(EndReason.CANCELLED, by_peer=True)


def test_cancel_crosses_the_answer(kit, pair):
    """A Cancel sent before the Answer arrived ends the accepted call as well."""
    pair.run(4)
    pair.caller.cancel(kit.now)
    (message,) = pair.caller.messages_to_send()
    pair.callee.receive(message, kit.now)
    assert pair.callee.state is CallState.ENDED


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("steps", [5, 6])
def test_hangup_from_either_side(kit, pair, role, steps):
    """Both ends of an accepted call can end it."""
    pair.run(steps)
    ends = (pair.caller, pair.callee)
    here, there = ends if role is Role.CALLER else ends[::-1]
    here.hangup(kit.now)
    (message,) = here.messages_to_send()
    assert isinstance(message, Hangup)
    there.receive(message, kit.now)
    assert here.events()[-1] == Ended(EndReason.HANGUP, by_peer=False)
    assert there.events()[-1] == Ended(EndReason.HANGUP, by_peer=True)


@pytest.mark.parametrize("steps", range(7))
@pytest.mark.parametrize("role", list(Role))
def test_leave_fits_every_state(kit, pair, role, steps):
    """CALL-16: leaving ends the call from every state, once, and the keys are gone."""
    pair.run(steps)
    call = pair.caller if role is Role.CALLER else pair.callee
    call.messages_to_send()
    call.leave(kit.now)
    call.leave(kit.now)
    assert call.state is CallState.ENDED
    assert len(call.messages_to_send()) == 1
    assert not call._channel.has_keys


def test_failure_tells_the_peer_no_reason(kit, pair):
    """CALL-14: a failure ends the call at both ends; the peer learns only that it failed."""
    pair.run(6)
    pair.caller.failed(EndReason.NOT_AUTHENTIC, kit.now)
    (message,) = pair.caller.messages_to_send()
    assert message.reason is LeaveReason.FAILED
    pair.callee.receive(message, kit.now)
    assert pair.callee.events()[-1] == Ended(EndReason.PEER_FAILED, by_peer=True)


def test_only_failures_can_fail(kit, pair):
    """A reason that is no failure is refused."""
    with pytest.raises(LocalProtocolError):
        pair.caller.failed(EndReason.BUSY, kit.now)


def test_message_budget_keeps_room_for_the_end(kit, pair):
    """When an end has used up its messages it can still hang up."""
    pair.run(6)
    pair.caller._channel._counter = 0xFFFE
    with pytest.raises(LocalProtocolError):
        pair.caller.set_media_state(muted=True, camera=True, now=kit.now)
    pair.caller.hangup(kit.now)
    (message,) = pair.caller.messages_to_send()
    pair.callee.receive(message, kit.now)
    assert pair.callee.state is CallState.ENDED


def test_fresh_values_in_every_offer(kit):
    """CALL-02, P11: no two Offers share a value that enters key or code."""
    first, second = kit.place().offer, kit.place().offer
    for name in ("call_id", "x25519_share", "mlkem_key", "seed", "commitment"):
        assert getattr(first, name) != getattr(second, name)
