"""What ends draw, tell, keep and refuse to do themselves (spec/call.md, spec/callkeys.md)."""

import gc

import pytest
from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_channel import CallChannel
from e2ecall.protocol.call_events import StartMedia
from e2ecall.protocol.call_exchange import CallerSecrets
from e2ecall.protocol.call_table import TABLE, CallState, Received, Role
from e2ecall.protocol.callkeys import CallKeys
from e2ecall.protocol.messages import (
    Answer,
    LeaveReason,
    MediaState,
    Offer,
    Payload,
    PayloadKind,
    Ringing,
    encode_call_message,
)
from e2ecall.secret import Secret


def test_fresh_values_in_every_ringing(kit, pair):
    """CALL-02: no two Ringings, also to one Offer, share a key or an encapsulation."""
    first, second = pair.shadow_ringing(), pair.shadow_ringing()
    assert first.x25519_share != second.x25519_share
    assert first.mlkem_ciphertext != second.mlkem_ciphertext


def test_fresh_nonce_in_every_offer():
    """CALL-02: no two Offers have a nonce in common."""
    assert CallerSecrets.generate().nonce != CallerSecrets.generate().nonce


def test_the_peer_is_told_three_things_and_what_the_user_says():
    """CALL-14: of failures the wire knows no more than NORMAL, NO_ANSWER and FAILED."""
    chosen = {"OTHER_CALL", "CALL_BACK"}
    assert {reason.name for reason in LeaveReason} == {"NORMAL", "NO_ANSWER", "FAILED"} | chosen


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("bad_mac", [False, True])
def test_breaches_look_like_failures(kit, role, bad_mac):
    """CALL-14: a peer that is found out is told what any failing end would tell it."""
    state = CallState.RINGING if role is Role.CALLER else CallState.AWAITING_REVEAL
    pair, call = kit.at(role, state)
    kind = Received.ANSWER if role is Role.CALLER else Received.REVEAL
    message = pair.message(kind, Role.CALLEE if role is Role.CALLER else Role.CALLER)
    if bad_mac:
        message = replace(message, mac=bytes(64))
    elif role is Role.CALLER:
        outside = (replace(kit.relayed, address="192.0.2.1"),)
        message = pair.sign(Role.CALLEE, replace(message, candidates=outside))
    else:
        message = pair.sign(Role.CALLER, replace(message, nonce=bytes(32)))
    call.messages_to_send()
    call.receive(message, kit.now)
    (told,) = call.messages_to_send()
    assert told.reason is LeaveReason.FAILED


def test_late_media_states_are_verified(kit, pair):
    """CALL-15: a MediaState that was overtaken still needs its MAC, and counts once."""
    pair.run(6)
    pair.callee.receive(pair.message(Received.MEDIA_STATE, Role.CALLER, counter=9), kit.now)
    pair.callee.events()
    late = pair.message(Received.MEDIA_STATE, Role.CALLER, counter=8)
    for message, reason in (
        (replace(late, mac=bytes(64)), Reason.BAD_MAC),
        (late, None),
        (late, Reason.REPLAYED),
    ):
        if reason is None:
            pair.callee.receive(message, kit.now)
        else:
            with pytest.raises(RemoteProtocolError) as refused:
                pair.callee.receive(message, kit.now)
            assert refused.value.reason is reason
        assert pair.callee.events() == []


@pytest.mark.parametrize("role", list(Role))
def test_media_states_start_and_stop_nothing(role):
    """CALL-15: in no state does a MediaState lead to another one."""
    for state, steps in TABLE[role].items():
        assert steps.get(Received.MEDIA_STATE, state) is state


def secrets_in(root) -> set[bytes]:
    """Return the values of all `Secret`s that can be reached from an object."""
    found, seen, waiting = set(), set(), [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        if isinstance(thing, Secret):
            found.add(thing.expose())
        elif not hasattr(thing, "__globals__"):  # code is no state
            waiting += gc.get_referents(thing)
    return found


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("steps", range(7))
def test_keys_are_gone_with_the_call(kit, pair, role, steps):
    """CALL-16, CALLKEY-09: whenever a call ends, none of its keys and secrets can be reached."""
    pair.run(steps)
    call = pair.caller if role is Role.CALLER else pair.callee
    call.events()
    had = secrets_in(call)
    assert bool(had) == (role is Role.CALLER or steps > 0)
    call.leave(kit.now)
    call.messages_to_send()
    call.events()
    assert secrets_in(call) == set()
    for kind in Received:
        message = pair.message(kind, Role.CALLEE if role is Role.CALLER else Role.CALLER)
        with pytest.raises(RemoteProtocolError) as refused:
            call.receive(message, kit.now)
        assert refused.value.reason is Reason.UNEXPECTED_MESSAGE


def test_call_keys_have_no_stored_form(pair):
    """CALLKEY-09: neither a call nor its keys can be turned into bytes to keep."""
    pair.run(6)
    start = next(event for event in pair.caller.events() if isinstance(event, StartMedia))
    for thing in (pair.caller, pair.callee._channel, start.keys, start.keys.keys, CallKeys):
        assert not hasattr(thing, "to_bytes")


def test_secrets_of_messages_are_not_shown(pair):
    """S4: neither an Offer shows its seed, nor a payload what was said or its token."""
    body, token = encode_call_message(pair.offer), b"TOKEN-TOKEN-TOKE"
    payload = Payload(PayloadKind.CALL, 1, None, token, body)
    for shown in (f"{pair.offer!r} {pair.offer}", f"{payload!r} {payload}"):
        assert repr(pair.offer.seed)[2:-1] not in shown
        assert "TOKEN" not in shown


def test_the_answer_brings_nothing_that_the_key_covers():
    """CALLKEY-08: of what Offer and Ringing have, an Answer has the CallId alone."""
    covered = {*Offer.__struct_fields__, *Ringing.__struct_fields__}
    assert covered & {*Answer.__struct_fields__} == {"call_id"}


@pytest.mark.parametrize(
    "changes", [{}, {"video": False}, {"audio": False}, {"candidates": ()}, {"counter": 77}]
)
def test_the_code_is_fixed_with_the_nonce(kit, pair, changes):
    """CALLKEY-08: no message after Reveal changes the code, whatever the callee chooses to say."""
    pair.run(3)
    code = pair.callee.sas
    answer = replace(pair.message(Received.ANSWER, Role.CALLEE), **changes)
    pair.caller.receive(pair.sign(Role.CALLEE, answer), kit.now)
    for counter, kind in enumerate((Received.CANDIDATES, Received.MEDIA_STATE), 60):
        pair.caller.receive(pair.message(kind, Role.CALLEE, counter=counter), kit.now)
    assert pair.caller.sas == pair.callee.sas == code


# What an end refuses to do for its own program.


def test_own_media_must_be_consistent(kit, pair):
    """CALL-10: a description that contradicts itself does not leave, in Offer or Ringing."""
    twice = replace(kit.media(), streams=kit.media().streams[:1] * 2)
    with pytest.raises(LocalProtocolError):
        kit.place(media=twice)
    microphone = replace(kit.media(), streams=kit.media().streams[:1])
    with pytest.raises(LocalProtocolError):
        kit.place(media=microphone, wants_video=True)
    before = kit.snapshot(pair.callee)
    with pytest.raises(LocalProtocolError):
        kit.ring(pair.callee, media=twice)
    assert kit.snapshot(pair.callee) == before


def test_own_candidates_are_bounded(kit, pair):
    """An end tells eight candidates in a call and never an empty list."""
    pair.run(5)
    for count, fits in ((0, False), (9, False), (8, True), (1, False)):
        if fits:
            pair.caller.add_candidates([kit.relayed] * count, kit.now)
            continue
        before = kit.snapshot(pair.caller)
        with pytest.raises(LocalProtocolError):
            pair.caller.add_candidates([kit.relayed] * count, kit.now)
        assert kit.snapshot(pair.caller) == before


def test_no_keys_no_macs(kit):
    """Without keys a channel signs nothing, has no frame keys, and takes no MAC for right."""
    channel = CallChannel(Role.CALLER)
    message = MediaState(bytes(16), 0, True, False, False, False, False, kit.unsigned)
    with pytest.raises(LocalProtocolError):
        channel.sign(message)
    with pytest.raises(LocalProtocolError):
        _ = channel.media_keys
    with pytest.raises(RemoteProtocolError) as refused:
        channel.verify(message)
    assert refused.value.reason is Reason.BAD_MAC


@pytest.mark.parametrize("role", list(Role))
def test_an_end_knows_its_role(kit, role):
    """What the roles decide, such as who is ICE controlling, can be asked of a call."""
    _, call = kit.at(role, CallState.CONNECTING)
    assert call.role is role
