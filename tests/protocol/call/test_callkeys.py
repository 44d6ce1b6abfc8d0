"""What enters the keys of a call, and what comes of them (spec/callkeys.md)."""

from dataclasses import replace as party_with

import pytest
from msgspec.structs import replace

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.call_table import Received, Role
from e2ecall.protocol.callkeys import (
    CallKeys,
    MediaKeys,
    commitment,
    transcript_hash,
    verify_commitment,
)
from e2ecall.protocol.messages import Stream
from e2ecall.secret import Secret

ID = b"i" * 16
NONCE = b"n" * 32


def keys(transcript=b"t" * 64, x25519=b"x" * 32, mlkem=b"k" * 32, seed=b"s" * 32):
    return CallKeys.derive(transcript, Secret(x25519), Secret(mlkem), Secret(seed))


@pytest.mark.parametrize("name", ["transcript", "x25519", "mlkem", "seed"])
def test_each_input_changes_the_call_key(name):
    """N3, CALLKEY-03: whoever lacks one input, X25519 or ML-KEM alone included, has no key."""
    changed = keys(**{name: b"?" * (64 if name == "transcript" else 32)})
    assert changed.call_key != keys().call_key


def test_inputs_do_not_run_into_each_other():
    """CALLKEY-03: secrets are length-prefixed, so moving a byte between them changes the key."""
    first = keys(x25519=b"x" * 31, mlkem=b"xk" + b"k" * 31)
    second = keys(x25519=b"x" * 32, mlkem=b"k" * 32)
    assert first.call_key != second.call_key


def test_everything_derived_is_different():
    """CALLKEY-04: MAC keys, frame keys and call key share nothing."""
    call = keys()
    epoch = call.first_epoch()
    secrets = [call.call_key.expose()[:32], epoch.secret.expose()[:32]]
    secrets += [epoch.frame_key(role, s).base_key.expose() for role in Role for s in Stream]
    assert len(set(secrets)) == 2 + 8
    kids = {epoch.frame_key(role, stream).kid for role in Role for stream in Stream}
    assert len(kids) == 8


def test_ends_read_each_others_keys_alone():
    """CALLKEY-07: an end receives under the peer's sender id and never under its own."""
    epoch = keys().first_epoch()
    caller, callee = MediaKeys(epoch, Role.CALLER), MediaKeys(epoch, Role.CALLEE)
    for stream in Stream:
        assert caller.sending(stream) == callee.receiving(stream)
        assert caller.sending(stream) != caller.receiving(stream)


def test_code_depends_on_key_transcript_and_nonce():
    """CALLKEY-06: the spoken code changes with each of its inputs."""
    codes = {keys().sas(NONCE), keys().sas(b"m" * 32), keys(b"u" * 64).sas(NONCE)}
    codes.add(keys(seed=b"?" * 32).sas(NONCE))
    assert len(codes) == 4


def test_commitment_opens_with_its_nonce_alone(kit):
    """CALLKEY-01: another nonce, call, caller or callee does not open C."""
    offer = replace(
        kit.place().offer,
        call_id=ID,
        commitment=commitment(ID, kit.caller, kit.callee, NONCE),
    )
    verify_commitment(offer, kit.caller, kit.callee, NONCE)
    wrong = [
        (offer, kit.caller, kit.callee, b"m" * 32),
        (replace(offer, call_id=b"j" * 16), kit.caller, kit.callee, NONCE),
        (offer, kit.callee, kit.caller, NONCE),
        (offer, kit.caller, party_with(kit.callee, device_id=3), NONCE),
    ]
    for case in wrong:
        with pytest.raises(RemoteProtocolError) as refused:
            verify_commitment(*case)
        assert refused.value.reason is Reason.BAD_COMMITMENT


@pytest.mark.parametrize("name", ["address", "device_id", "identity_key", "session_hash"])
def test_transcript_covers_both_parties(kit, pair, name):
    """CALLKEY-02: T changes with every field of either party."""
    pair.run(1)
    value = {"address": "eve@relay.example", "device_id": 7}.get(name, b"?" * 32)
    base = transcript_hash(kit.caller, kit.callee, pair.offer, pair.ringing)
    caller, callee = (party_with(p, **{name: value}) for p in (kit.caller, kit.callee))
    assert transcript_hash(caller, kit.callee, pair.offer, pair.ringing) != base
    assert transcript_hash(kit.caller, callee, pair.offer, pair.ringing) != base


def test_transcript_covers_every_field_of_offer_and_ringing(kit, pair):
    """CALLKEY-02: T changes with every field of both messages, nested ones included."""
    pair.run(1)
    base = transcript_hash(kit.caller, kit.callee, pair.offer, pair.ringing)
    other = kit.Pair().run(1)
    seen = {base}
    for name in pair.offer.__struct_fields__:
        value = kit.media("o") if name == "media" else getattr(other.offer, name)
        value = {"wants_video": False, "reply_box": b"o" * 32}.get(name, value)
        offer = replace(pair.offer, **{name: value})
        seen.add(transcript_hash(kit.caller, kit.callee, offer, pair.ringing))
    for name in pair.ringing.__struct_fields__[1:]:
        value = kit.media("o") if name == "media" else getattr(other.ringing, name)
        value = {"reply_box": b"o" * 32}.get(name, value)
        if name == "turn":
            value = replace(value, username="other")
        ringing = replace(pair.ringing, **{name: value})
        seen.add(transcript_hash(kit.caller, kit.callee, pair.offer, ringing))
    assert len(seen) == 1 + 8 + 5


def test_macs_of_the_two_directions_differ(pair):
    """CALLKEY-05: the same message signed by the other end has another MAC."""
    pair.run(1)
    message = pair.message(Received.HANGUP, Role.CALLER)
    assert pair.keys.mac(Role.CALLER, message) == message.mac
    assert pair.keys.mac(Role.CALLEE, message) != message.mac
    assert len(message.mac) == 64
