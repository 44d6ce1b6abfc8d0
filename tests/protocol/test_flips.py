"""M1: every prefix and every flipped bit of every inner message and stored record.

What is signed or encrypted is refused with the module's own error. What is plain encoding is
refused, or is another value in its only spelling; nothing else ever comes out.
"""

from contextlib import suppress
from dataclasses import replace

import pytest

from e2ecall.crypto.ed25519 import Ed25519KeyPair
from e2ecall.errors import (
    LocalProtocolError,
    Reason,
    RemoteProtocolError,
    StoreError,
)
from e2ecall.protocol import prekeys as prekeys_module
from e2ecall.protocol.bundle import verify_prekey
from e2ecall.protocol.devices import verify_device_list
from e2ecall.protocol.encoding import decode_remote, decode_stored, encode_stored
from e2ecall.protocol.exchange_guard import ExchangeGuard
from e2ecall.protocol.identity import verify_sender_certificate
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.messages import (
    decode_call_message,
    decode_payload,
    encode_call_message,
    encode_payload,
)
from e2ecall.protocol.peerstore import peer_from_bytes, peer_to_bytes
from e2ecall.protocol.prekeystore import prekeys_from_bytes, prekeys_to_bytes
from e2ecall.protocol.ratchetstore import StoredRatchet, from_stored, to_stored
from e2ecall.protocol.sealing import (
    CALL_CLASSES,
    OTHER_CLASSES,
    Frame,
    InitialMessage,
    open_envelope,
)
from relay.wire.codec import encode
from relay.wire.records import (
    PreKey,
    PreKeyKind,
    SenderCertificate,
    SignedDeviceList,
    SignedSenderCertificate,
    sender_certificate_bytes,
)
from tests.protocol.conftest import Endpoint
from tests.protocol.flips import check_encoding, flipped, flips, prefixes, refused
from tests.protocol.test_messages import MESSAGES, NAMES, PAYLOADS
from tests.protocol.test_ratchet import start


@pytest.fixture(scope="module")
def pair(endpoints):
    """Two endpoints in the middle of a conversation, with skipped keys and archived sessions."""
    alice, bob = endpoints
    alice.initiate(bob)
    bob.receive(alice.send(bob, b"1"))
    alice.receive(bob.send(alice, b"2"))
    bob.initiate(alice)
    alice.send(bob, b"lost")
    bob.receive(alice.send(bob, b"3"))
    return alice, bob


@pytest.fixture(scope="module")
def endpoints():
    """Two endpoints with few one-time keys, so that every bit of what is stored can be tried."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prekeys_module, "ONE_TIME_TARGET", 2)
        patch.setattr(prekeys_module, "REFILL_BELOW", 1)
        yield Endpoint.generate("alice"), Endpoint.generate("bob")


# Messages.


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_call_messages(message):
    """M1: a call message that was cut or changed is refused or is another one."""
    check_encoding(
        encode_call_message(message), decode_call_message, encode_call_message, RemoteProtocolError
    )


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads(payload):
    """M1: so is a payload."""
    check_encoding(encode_payload(payload), decode_payload, encode_payload, RemoteProtocolError)


def test_initial_message(pair):
    """M1: so is the handshake of an initial message."""
    alice, bob = pair
    envelope_frame = frame_of(alice, bob)
    check_encoding(
        encode(envelope_frame.initial),
        lambda data: decode_remote(data, InitialMessage, limit=8_192),
        encode,
        RemoteProtocolError,
    )


def frame_of(one, other) -> Frame:
    """Return what ``other`` seals to ``one`` in a session that it has just begun."""
    other.initiate(one)
    return open_envelope(one.local, one.prekeys, other.send(one, b"text"))


def test_frames(pair):
    """M1, SEALING-05: a padded frame has one reading; not one bit of its padding can be set."""
    alice, bob = pair
    for frame, classes in (
        (Frame(b"s" * 16, None, b"message" * 50), OTHER_CLASSES[:1]),
        (frame_of(alice, bob), CALL_CLASSES[:1]),
    ):
        data = frame.to_bytes(classes)
        assert Frame.from_bytes(data) == frame
        end = len(data.rstrip(b"\0"))
        for bit in range(8 * end, 8 * len(data)):
            refused(Frame.from_bytes, flipped(data, bit), RemoteProtocolError)
        for changed in flips(data[:end]):
            with suppress(RemoteProtocolError):
                assert Frame.from_bytes(changed + data[end:]) != frame
        for prefix in prefixes(data):
            refused(Frame.from_bytes, prefix, RemoteProtocolError)


def test_envelopes(pair):
    """M1: a seeded sample of flips and cuts of a sealed envelope; nothing changes at its reader."""
    alice, bob = pair
    envelope = alice.send(bob, b"text")
    for changed in flips(envelope, sample=150):
        assert isinstance(bob.refuses(changed), RemoteProtocolError)
    for end in range(0, len(envelope), 97):
        assert bob.refuses(envelope[:end]).reason in (Reason.BAD_VERSION, Reason.BAD_PADDING)
    assert bob.receive(envelope).plaintext == b"text"


# What is signed.


def test_device_list(endpoints):
    """M1, IDENTITY-02: no bit of a device list or its signature can change."""
    local = endpoints[0].local
    known = local.verified_list

    def read(signed):
        verify_device_list(signed, address=local.address, now=0, known=known)

    check_signed(local.device_list, SignedDeviceList, read)


def test_sender_certificate(endpoints):
    """M1, IDENTITY-09: nor of a sender certificate."""
    local, relay = endpoints[0].local, Ed25519KeyPair.generate()
    body = encode(SenderCertificate(str(local.address), local.identity.public, 1))
    unsigned = SignedSenderCertificate(body, bytes(64))
    signed = SignedSenderCertificate(body, relay.sign(sender_certificate_bytes(unsigned)))
    check_signed(
        signed,
        SignedSenderCertificate,
        lambda read: verify_sender_certificate(read, relay.public, now=0),
    )


def check_signed(signed, kind, verify):
    """Expect that a signed record verifies as it is, and in no other form of the same length."""
    verify(signed)
    for body in (*flips(signed.body), *prefixes(signed.body)):
        refused(verify, kind(body, signed.signature), RemoteProtocolError)
    for signature in (*flips(signed.signature), *prefixes(signed.signature)):
        refused(verify, kind(signed.body, signature), RemoteProtocolError)


@pytest.mark.parametrize("kind", list(PreKeyKind))
def test_prekeys(endpoints, kind):
    """M1, PREKEYS-02: nor of a prekey, whatever it is for."""
    endpoint = endpoints[0]
    _, published = prekeys_module.generate(endpoint.local, now=endpoint.now)
    prekey = next(key for key in published if key.kind == kind)
    device = endpoint.local.keys.public

    def read(data):
        verify_prekey(
            decode_remote(data, PreKey, limit=2_048),
            kinds={kind},
            address=endpoint.address,
            device=device,
            now=0,
        )

    data = encode(prekey)
    read(data)
    for changed in flips(data, sample=None if len(data) < 200 else 2_000):
        refused(read, changed, RemoteProtocolError)
    for prefix in prefixes(data):
        refused(read, prefix, RemoteProtocolError)


# What is encrypted.


@pytest.mark.parametrize("position", ["same_chain", "next_chain", "skipped"])
def test_ratchet_messages(position):
    """M1, RATCHET-06: no bit of a ratchet message can change, and a refusal changes no state."""
    one, two = start()
    two.receive(one.send())
    one.receive(two.send())
    if position == "same_chain":
        two.receive(one.send())
    message = one.send(b"text")
    if position == "skipped":
        two.receive(one.send())
    before = to_stored(two.state)
    for changed in (*flips(message), *prefixes(message)):
        assert two.refuses(changed) in (Reason.NOT_AUTHENTIC, Reason.MALFORMED)
    assert to_stored(two.state) == before
    assert two.receive(message) == b"text"


# What the store keeps.


def test_local_device(endpoints):
    """M1, S1: a stored device that is not what was written is refused or is another one."""
    local = endpoints[0].local
    check_encoding(local.to_bytes(), LocalDevice.from_bytes, LocalDevice.to_bytes, StoreError)


def test_prekey_state(pair):
    """M1, S1: so is the stored state of prekeys."""
    state = pair[1].prekeys
    assert any(key.used_ephemerals for key in state.rotated)
    state = replace(state, rotated=state.rotated[:2])
    check_encoding(prekeys_to_bytes(state), prekeys_from_bytes, prekeys_to_bytes, StoreError)


def test_peer(pair):
    """M1, S1: so is a stored peer with all its sessions."""
    state = pair[1].peers[pair[0].address]
    assert len(state.sessions) > 1
    data = peer_to_bytes(state)
    check_encoding(data, peer_from_bytes, peer_to_bytes, StoreError, sample=4_000)
    address = data.index(b"alice@")
    for bit in range(8 * address, 8 * (address + len(str(state.address)))):
        with suppress(StoreError):
            assert peer_from_bytes(flipped(data, bit)).address != state.address


def test_ratchet_state(pair):
    """M1, S1: so is a stored ratchet, skipped keys included."""
    state = pair[1].peers[pair[0].address].active.ratchet
    check_encoding(
        encode_stored(to_stored(state)),
        lambda data: from_stored(decode_stored(data, StoredRatchet)),
        lambda value: encode_stored(to_stored(value)),
        StoreError,
    )


def test_exchange_guard():
    """M1, S1: so is the count of unfinished exchanges."""
    guard = ExchangeGuard().start(b"1" * 16, 1.0).start(b"2" * 16, 2.0)
    check_encoding(
        guard.to_bytes(), ExchangeGuard.from_bytes, ExchangeGuard.to_bytes, LocalProtocolError
    )
