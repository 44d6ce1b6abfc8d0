"""Floods of what a peer or stranger may send: they cost others nothing (P4)."""

from dataclasses import replace

from e2ecall.crypto.aead import AES256GCM
from e2ecall.errors import E2ECallError, Reason
from e2ecall.protocol import ratchet
from e2ecall.protocol.chains import MAX_SKIPPED_KEYS, Header, Packet, packet_prefix
from e2ecall.protocol.sealing import Frame, generate_envelope, open_envelope
from tests.protocol.conftest import Endpoint


def introduced(*names):
    """Return endpoints that each exchanged a message with the last."""
    *others, bob = (Endpoint.generate(name) for name in names)
    for other in others:
        other.initiate(bob)
        bob.receive(other.send(bob, b"hello"))
        other.receive(bob.send(other, b"hello yourself"))
    return *others, bob


def skip(sender, receiver, count):
    """Advance a chain as if ``count`` messages were lost."""
    peer = sender.peers[receiver.address]
    state = peer.active.ratchet
    for _ in range(count):
        step = ratchet.generate_step(state)
        state, _ = ratchet.encrypt(state, b"", nonce=ratchet.generate_nonce(), step=step)
    active = replace(peer.active, ratchet=state)
    sender.peers[receiver.address] = peer.with_session(active)


def test_flood_of_skipped_keys_evicts_nobody_elses():
    """P4, RATCHET-09: a peer that skips all it can pushes out its own kept keys alone."""
    alice, eve, bob = introduced("alice", "eve", "bob")
    held = [alice.send(bob, b"%d" % n) for n in range(20)]
    bob.receive(alice.send(bob, b"after them"))
    lost = eve.send(bob, b"lost")
    for _ in range(4):
        skip(eve, bob, 900)
        bob.receive(eve.send(bob, b"x"))
    kept = bob.peers[eve.address].active.ratchet.receiving
    assert sum(len(chain.skipped) for chain in kept) == MAX_SKIPPED_KEYS
    assert bob.refuses(lost).reason is Reason.REPLAYED
    assert [bob.receive(one).plaintext for one in held] == [b"%d" % n for n in range(20)]


def test_flood_by_strangers_evicts_nothing():
    """P4: who knows session, sealing key and even a header key, but no chain, skips nothing."""
    alice, bob = introduced("alice", "bob")
    held = alice.send(bob, b"held")
    bob.receive(alice.send(bob, b"after it"))
    session = alice.peers[bob.address].active
    chain = session.ratchet.sending
    before = bob.peers[alice.address]
    for n in range(2, 200):
        nonce = ratchet.generate_nonce()
        header = Header(n, chain.previous_n, chain.triple).to_bytes()
        aad = session.ratchet.handshake_hash + b"\x01"
        prefix = packet_prefix(nonce, AES256GCM(chain.header_key).encrypt(nonce, header, aad))
        forged = Frame(session.session_id, None, prefix + bytes(32))
        error = bob.refuses(sealed(forged, bob))
        assert error.reason is Reason.NOT_AUTHENTIC
    assert bob.peers[alice.address] == before
    assert bob.receive(held).plaintext == b"held"


def test_session_id_of_another_session():
    """PQXDH-09: an initial message under another session's id is refused and begins nothing."""
    eve, bob = introduced("eve", "bob")
    carol = Endpoint.generate("carol")
    carol.initiate(bob)
    envelope = carol.send(bob, b"hello")
    frame = open_envelope(bob.local, bob.prekeys, envelope)
    for session_id in (bytes(16), eve.peers[bob.address].active.session_id):
        forged = Frame(session_id, frame.initial, frame.message)
        assert bob.refuses(sealed(forged, bob)).reason in (
            Reason.NOT_AUTHENTIC,
            Reason.WRONG_ADDRESS,
        )
    assert bob.receive(envelope).initial


def test_garbage_of_every_kind_changes_nothing():
    """RATCHET-11: whatever fails leaves every state as it was, and gives nothing to send."""
    alice, bob = introduced("alice", "bob")
    envelope = alice.send(bob, b"m")
    frame = open_envelope(bob.local, bob.prekeys, envelope)
    packet = Packet.from_bytes(frame.message)
    broken = [
        Frame(bytes(16), None, frame.message),
        Frame(frame.session_id, None, b""),
        Frame(frame.session_id, None, frame.message[:-1]),
        Frame(frame.session_id, None, packet.prefix + bytes(len(packet.ciphertext))),
        Frame(frame.session_id, None, bytes(12) + packet.prefix[12:] + packet.ciphertext),
    ]
    for bad in (b"", envelope[:-1], bytes(len(envelope)), *(sealed(one, bob) for one in broken)):
        assert isinstance(bob.refuses(bad), E2ECallError)
    assert bob.receive(envelope).plaintext == b"m"


def sealed(frame, receiver):
    """Seal a frame as anybody can who has fetched a bundle."""
    return generate_envelope(
        frame,
        receiver.prekeys.sealing_key,
        recipient=receiver.address,
        device_id=1,
        call=False,
        now=receiver.now,
    )
