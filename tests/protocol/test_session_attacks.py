"""What a hostile relay or peer tries on the session; ids as in spec/threat-model.md."""

from dataclasses import replace

import msgspec
import pytest

from e2ecall.crypto.ed25519 import Ed25519KeyPair
from e2ecall.crypto.mlkem import MLKEM1024
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import IdentityChangedError, Reason
from e2ecall.protocol import session
from e2ecall.protocol.sealing import Frame, generate_envelope, open_envelope
from relay.wire.codec import encode
from relay.wire.records import (
    SenderCertificate,
    SignedSenderCertificate,
    sender_certificate_bytes,
)


def altered(receiver, envelope, **changes) -> bytes:
    """Return the envelope with fields of its initial message replaced, sealed again."""
    frame = open_envelope(receiver.local, receiver.prekeys, envelope)
    initial = msgspec.structs.replace(frame.initial, **changes)
    return generate_envelope(
        Frame(frame.session_id, initial, frame.message),
        receiver.prekeys.sealing_key,
        recipient=receiver.address,
        device_id=1,
        call=False,
        now=receiver.now,
    )


def certify(relay, endpoint, *, expires=None, identity=None) -> None:
    body = encode(
        SenderCertificate(
            str(endpoint.address),
            identity or endpoint.local.identity.public,
            expires or int(endpoint.now) + 86_400,
        )
    )
    unsigned = SignedSenderCertificate(body, bytes(64))
    signed = SignedSenderCertificate(body, relay.sign(sender_certificate_bytes(unsigned)))
    endpoint.local = endpoint.local.with_certificate(signed)


@pytest.fixture
def relay():
    return Ed25519KeyPair.generate()


def test_r2_altered_kem_ciphertext(alice, bob):
    """R2: a re-encapsulated or altered KEM ciphertext gives a message that does not decrypt."""
    alice.initiate(bob)
    envelope = alice.send(bob, b"m")
    kem_id = alice.peers[bob.address].active.handshake.kem_prekey_id
    _, other = MLKEM1024.encapsulate(
        MLKEM1024.from_seed(bob.prekeys.one_time_mlkem1024[kem_id]).public
    )
    for ciphertext in (other, bytes(1568)):
        bad = altered(bob, envelope, kem_ciphertext=ciphertext)
        assert bob.refuses(bad).reason is Reason.NOT_AUTHENTIC
    assert bob.receive(envelope).plaintext == b"m"


def test_r1_other_key_ids(alice, bob):
    """R1: an initial message whose key ids were swapped for others does not decrypt."""
    alice.initiate(bob)
    envelope = alice.send(bob, b"m")
    handshake = alice.peers[bob.address].active.handshake
    for change, reason in (
        ({"one_time_prekey_id": None}, Reason.NOT_AUTHENTIC),
        ({"one_time_prekey_id": handshake.one_time_prekey_id + 1}, Reason.NOT_AUTHENTIC),
        ({"kem_prekey_id": handshake.kem_prekey_id + 1}, Reason.NOT_AUTHENTIC),
        ({"kem_prekey_id": 3}, Reason.NOT_AUTHENTIC),
        ({"one_time_prekey_id": 100_000}, Reason.UNKNOWN_KEY),
        ({"kem_prekey_id": handshake.one_time_prekey_id}, Reason.UNKNOWN_KEY),
        ({"signed_prekey_id": 2}, Reason.UNKNOWN_KEY),
    ):
        assert bob.refuses(altered(bob, envelope, **change)).reason is reason
    assert bob.receive(envelope).plaintext == b"m"


def test_r4_replayed_initial_message(alice, bob):
    """R4: a replayed initial message is refused, and no second session begins."""
    alice.initiate(bob, one_time=False)
    envelope = alice.send(bob, b"m")
    bob.receive(envelope)
    assert bob.refuses(envelope).reason is Reason.REPLAYED
    assert len(bob.peers[alice.address].sessions) == 1


def test_r4_replay_after_the_session_is_gone(alice, bob):
    """R4: also when the session was deleted, with last-resort and with one-time keys."""
    for one_time in (False, True):
        alice.initiate(bob, one_time=one_time)
        envelope = alice.send(bob, b"m")
        bob.receive(envelope)
        bob.peers.clear()
        assert bob.refuses(envelope).reason is Reason.REPLAYED


def test_r4_one_ephemeral_one_session(alice, bob):
    """R4: an EK that made a session makes no second one, whatever else is changed."""
    alice.initiate(bob, one_time=False)
    envelope = alice.send(bob, b"m")
    bob.receive(envelope)
    bob.peers.clear()
    kem = MLKEM1024.encapsulate(bob.bundle(one_time=False).kem_prekey.key)[1]
    changed = altered(bob, envelope, kem_ciphertext=kem)
    assert bob.refuses(changed).reason is Reason.REPLAYED


def test_refused_initial_message_consumes_nothing(alice, bob):
    """PQXDH-05: a message that does not decrypt uses up no one-time key and no EK."""
    alice.initiate(bob)
    envelope = alice.send(bob, b"m")
    frame = open_envelope(bob.local, bob.prekeys, envelope)
    damaged = Frame(frame.session_id, frame.initial, frame.message[:-1] + b"\0")
    bad = generate_envelope(
        damaged,
        bob.prekeys.sealing_key,
        recipient=bob.address,
        device_id=1,
        call=False,
        now=bob.now,
    )
    assert bob.refuses(bad).reason is Reason.NOT_AUTHENTIC
    assert bob.receive(envelope).initial


def test_r5_changed_identity_on_sending(talking, endpoint):
    """R5: a bundle with another identity for a known contact is IdentityChanged."""
    alice, bob = talking
    impostor = endpoint("bob")
    before = alice.peers[bob.address]
    with pytest.raises(IdentityChangedError):
        alice.initiate(impostor)
    assert alice.peers[bob.address] == before


def test_r5_changed_identity_on_receiving(talking, endpoint):
    """R5: so is an initial message that names a known address with another identity."""
    alice, _ = talking
    impostor = endpoint("bob")
    impostor.initiate(alice)
    assert isinstance(alice.refuses(impostor.send(alice, b"m")), IdentityChangedError)


def test_r6_reflected_envelope(talking):
    """R6: an own envelope that comes back does not open."""
    alice, bob = talking
    envelope = alice.send(bob, b"m")
    assert alice.refuses(envelope).reason is Reason.NOT_AUTHENTIC


def test_r6_reflected_frame(talking):
    """R6: nor does its ratchet message decrypt when it is sealed to its sender."""
    alice, bob = talking
    frame = open_envelope(bob.local, bob.prekeys, alice.send(bob, b"m"))
    reflected = generate_envelope(
        frame,
        alice.prekeys.sealing_key,
        recipient=alice.address,
        device_id=1,
        call=False,
        now=alice.now,
    )
    assert alice.refuses(reflected).reason is Reason.NOT_AUTHENTIC


def test_r6_own_name(alice, bob):
    """R6: an initial message that claims to come from ourselves is refused."""
    alice.initiate(bob)
    envelope = alice.send(bob, b"m")
    claimed = altered(bob, envelope, sender=str(bob.address))
    assert bob.refuses(claimed).reason is Reason.WRONG_ADDRESS


def test_another_senders_handshake(alice, bob, endpoint):
    """P12: somebody else's name or device list over an own handshake does not decrypt."""
    mallory = endpoint("mallory")
    mallory.initiate(bob)
    envelope = mallory.send(bob, b"m")
    renamed = altered(bob, envelope, sender=str(alice.address))
    assert bob.refuses(renamed).reason is Reason.WRONG_ADDRESS
    borrowed = altered(
        bob,
        envelope,
        sender=str(alice.address),
        device_list=alice.local.device_list,
        sealing_key=alice.prekeys.sealing_key,
    )
    assert bob.refuses(borrowed).reason is Reason.NOT_AUTHENTIC


def test_r12_wrong_parts(alice, bob):
    """R12: a sealing key of another device, or an older version of the handshake, is refused."""
    alice.initiate(bob)
    envelope = alice.send(bob, b"m")
    foreign = altered(bob, envelope, sealing_key=bob.prekeys.sealing_key)
    assert bob.refuses(foreign).reason is Reason.BAD_SIGNATURE
    other = X25519KeyPair.generate().public
    assert bob.refuses(altered(bob, envelope, ephemeral=other)).reason is (Reason.NOT_AUTHENTIC)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32], ids=str)
def test_p3_bad_ephemeral(alice, bob, point):
    """P3: an EK that is no valid point is refused, the state unchanged."""
    alice.initiate(bob)
    bad = altered(bob, alice.send(bob, b"m"), ephemeral=point)
    assert bob.refuses(bad).reason is Reason.BAD_POINT


def test_p12_unproven_name(alice, bob, relay):
    """P12: a name counts as proven only by the relay in it, if the user chose that relay."""
    certify(relay, alice)
    alice.initiate(bob)
    assert not bob.receive(alice.send(bob, b"m")).proven
    bob.relay_keys = {"other.example": relay.public}
    alice.initiate(bob)
    assert not bob.receive(alice.send(bob, b"m")).proven
    bob.relay_keys = {"relay.example": relay.public}
    assert bob.receive(alice.send(bob, b"m")).proven
    alice.receive(bob.send(alice, b"m"))
    assert bob.receive(alice.send(bob, b"m")).proven


def test_p12_worthless_certificates(alice, bob, relay):
    """P12: a foreign, expired, borrowed or missing certificate proves nothing."""
    bob.relay_keys = {"relay.example": relay.public}
    for arguments in (
        {"relay": Ed25519KeyPair.generate()},
        {"expires": int(alice.now)},
        {"identity": bob.local.identity.public},
    ):
        certify(**{"relay": relay, "endpoint": alice, **arguments})
        alice.initiate(bob)
        assert not bob.receive(alice.send(bob, b"m")).proven
    alice.local = replace(alice.local, certificate=None)
    alice.initiate(bob)
    assert not bob.receive(alice.send(bob, b"m")).proven


def test_wrong_peer(talking, endpoint, refused):
    """SESSION-01: a message is not decrypted with the state of another sender."""
    alice, bob = talking
    carol = endpoint("carol")
    carol.initiate(bob)
    unsealed = session.unseal(bob.local, bob.prekeys, carol.send(bob, b"m"))
    with refused(Reason.WRONG_ADDRESS):
        session.receive(
            bob.local,
            bob.prekeys,
            bob.peers[alice.address],
            unsealed,
            relay_keys={},
            now=bob.now,
        )
