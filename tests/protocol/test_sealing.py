"""Sealed envelopes (spec/sealing.md): size classes, binding, refusals."""

import msgspec
import pytest

from e2ecall.crypto import hpke
from e2ecall.errors import Reason
from e2ecall.protocol.prekeys import maintain, sign_prekey
from e2ecall.protocol.sealing import (
    CALL_CLASSES,
    OTHER_CLASSES,
    Frame,
    MessageTooLongError,
    SealingKeyExpiredError,
    generate_envelope,
    open_envelope,
)
from relay.wire.labels import labelled
from relay.wire.limits import MAX_ENVELOPE
from relay.wire.messages import PrekeyCounts
from relay.wire.records import PreKeyKind

DAY = 86_400
ID = b"i" * 16


def sealed(bob, message=b"m", *, call=False, now=None, device_id=1):
    return generate_envelope(
        Frame(ID, None, message),
        bob.prekeys.sealing_key,
        recipient=bob.address,
        device_id=device_id,
        call=call,
        now=now or bob.now,
    )


def raw(bob, padded, **changes):
    """Seal any bytes as a frame, as only a deviating sender does."""
    parts = {
        "address": str(bob.address).encode(),
        "device": (1).to_bytes(2),
        "key": bob.prekeys.sealing_key.key_id.to_bytes(4),
        **changes,
    }
    info = labelled("sealing", *parts.values())
    return b"\x01" + hpke.generate_sealed(bob.prekeys.sealing_key.key, padded, info)


def test_classes(bob):
    """SEALING-04: an envelope's length is one of four, for calls one of two."""
    overhead = hpke.OVERHEAD + 1
    for call, classes in ((False, OTHER_CLASSES), (True, CALL_CLASSES)):
        lengths = {
            len(sealed(bob, bytes(size), call=call)) - overhead
            for size in (0, 1, 4075, 4076, 8171, 8172, 16_363)
        }
        assert lengths <= set(classes)
    assert len(sealed(bob, bytes(4075))) == 4096 + overhead
    assert len(sealed(bob, bytes(4076))) == 8192 + overhead
    assert len(sealed(bob, call=True)) == 8192 + overhead
    assert len(sealed(bob, bytes(32_768 - 21))) <= MAX_ENVELOPE


def test_too_long(bob):
    """SEALING-04: what fits no class is refused before anything is sealed."""
    with pytest.raises(MessageTooLongError):
        sealed(bob, bytes(16_384 - 20), call=True)
    with pytest.raises(MessageTooLongError):
        sealed(bob, bytes(32_768 - 20))


def test_round_trip(bob):
    """SEALING-01: the recipient gets session id and message back."""
    frame = open_envelope(bob.local, bob.prekeys, sealed(bob, b"message"))
    assert frame == Frame(ID, None, b"message")


def test_kept_keys(bob):
    """SEALING-02: envelopes to a retired key open as long as it is kept, and name no key."""
    envelope = sealed(bob)
    state, _ = maintain(bob.prekeys, bob.local, PrekeyCounts(100, 100), now=bob.now + 2 * DAY)
    assert open_envelope(bob.local, state, envelope).message == b"m"
    assert bob.prekeys.sealing_key.key_id.to_bytes(4) not in envelope[:5]


def test_wrong_recipient(alice, bob, refused):
    """SEALING-02: another device's keys do not open an envelope (R6)."""
    with refused(Reason.NOT_AUTHENTIC):
        open_envelope(alice.local, alice.prekeys, sealed(bob))


@pytest.mark.parametrize(
    "changes", [{"address": b"eve@relay.example"}, {"device": b"\0\2"}, {"key": bytes(4)}], ids=str
)
def test_binding(bob, refused, changes):
    """SEALING-03: recipient address, device and sealing key id are bound."""
    padded = Frame(ID, None, b"m").to_bytes(OTHER_CLASSES)
    open_envelope(bob.local, bob.prekeys, raw(bob, padded))
    with refused(Reason.NOT_AUTHENTIC):
        open_envelope(bob.local, bob.prekeys, raw(bob, padded, **changes))


def test_r12_version(bob, refused):
    """R12: any version but 1 is refused."""
    envelope = sealed(bob)
    for altered in (b"\0" + envelope[1:], b"\x02" + envelope[1:], b""):
        with refused(Reason.BAD_VERSION):
            open_envelope(bob.local, bob.prekeys, altered)


def test_altered(bob, refused):
    """SEALING-01: a changed byte is refused."""
    envelope = bytearray(sealed(bob))
    for position in (1, 1100, 1121, 2000, len(envelope) - 1):
        envelope[position] ^= 1
        with refused(Reason.NOT_AUTHENTIC):
            open_envelope(bob.local, bob.prekeys, bytes(envelope))
        envelope[position] ^= 1


def test_padding(bob, refused):
    """SEALING-05: other sizes, non-zero padding and a length beyond the frame are refused."""
    good = Frame(ID, None, b"m").to_bytes(OTHER_CLASSES)
    long = good[:17] + (4096).to_bytes(4) + good[21:]
    for padded in (good[:-1] + b"\x01", long, good[:-1], good + b"\0", b""):
        with refused(Reason.BAD_PADDING):
            open_envelope(bob.local, bob.prekeys, raw(bob, padded))


def test_malformed(bob, refused):
    """SEALING-06: an unknown kind, or an initial message that is none, is refused."""
    good = Frame(ID, None, b"\0\x03abc").to_bytes(OTHER_CLASSES)
    for kind in (0, 1, 3, 255):
        with refused(Reason.MALFORMED):
            open_envelope(bob.local, bob.prekeys, raw(bob, bytes([kind]) + good[1:]))


def test_r12_handshake_version(alice, bob, refused):
    """R12, PQXDH-07: an initial message of another version is refused."""
    alice.initiate(bob)
    frame = open_envelope(bob.local, bob.prekeys, alice.send(bob, b"m"))
    for version in (2, 65535):
        altered = msgspec.structs.replace(frame.initial, version=version)
        padded = Frame(ID, altered, frame.message).to_bytes(OTHER_CLASSES)
        with refused(Reason.BAD_VERSION):
            open_envelope(bob.local, bob.prekeys, raw(bob, padded))


def test_expired_key(bob):
    """SEALING-07: nothing is sealed to an expired key; the error says what to do."""
    with pytest.raises(SealingKeyExpiredError) as error:
        sealed(bob, now=bob.now + 18 * DAY)
    assert "bundle" in error.value.hint


def test_no_name_outside(alice, bob):
    """SEALING-01: an envelope shows no name, id or key of sender or recipient."""
    alice.initiate(bob)
    envelope = alice.send(bob, b"a text to be found")
    for part in (
        b"alice",
        b"bob",
        b"text",
        alice.peers[bob.address].active.session_id,
        alice.local.identity.public,
        bob.prekeys.sealing_key.key[:32],
    ):
        assert part not in envelope


def test_sealing_key_must_be_signed(bob):
    """A sealing key is a signed record like any prekey (PREKEYS-02)."""
    key = sign_prekey(bob.local, PreKeyKind.SEALING, 9, expires=1, key=bob.prekeys.sealing_key.key)
    assert key.signature != bob.prekeys.sealing_key.signature
