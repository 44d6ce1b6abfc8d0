"""AEADs, HPKE and Argon2id: round trips, refusals, lengths."""

import pytest

from e2ecall.crypto import aead, hpke
from e2ecall.errors import LocalProtocolError, Reason
from e2ecall.secret import Secret

CIPHERS = [
    (aead.AES256GCM, 12),
    (aead.AES256GCMSIV, 12),
    (aead.XChaCha20Poly1305, 24),
]


@pytest.mark.parametrize(("cipher", "nonce_bytes"), CIPHERS)
def test_round_trip(cipher, nonce_bytes, refused):
    """R12, PQXDH-01: only what was encrypted decrypts; a cut tag is refused like all else."""
    box, nonce = cipher(Secret(b"k" * 32)), bytes(nonce_bytes)
    sealed = box.encrypt(nonce, b"plain", b"aad")
    assert len(sealed) == 5 + aead.TAG_BYTES
    assert box.decrypt(nonce, sealed, b"aad") == b"plain"
    assert box.decrypt(nonce, box.encrypt(nonce, b"", b""), b"") == b""
    for other in (sealed[:-1], sealed[:-4], sealed + b"\0", b"", bytes(16), bytes(40)):
        with refused(Reason.NOT_AUTHENTIC):
            box.decrypt(nonce, other, b"aad")
    with refused(Reason.NOT_AUTHENTIC):
        box.decrypt(nonce, sealed, b"bad")
    with refused(Reason.NOT_AUTHENTIC):
        cipher(Secret(b"x" * 32)).decrypt(nonce, sealed, b"aad")
    with refused(Reason.NOT_AUTHENTIC):
        box.decrypt(b"\x01" * nonce_bytes, sealed, b"aad")


@pytest.mark.parametrize(("cipher", "nonce_bytes"), CIPHERS)
def test_key_length(cipher, nonce_bytes):
    """Only 256-bit keys are accepted: nothing downgrades to AES-128."""
    for length in (0, 16, 24, 31, 33):
        with pytest.raises(LocalProtocolError):
            cipher(Secret(bytes(length)))


def test_gcm_siv_vector():
    """RFC 8452, appendix C.2: the empty message under AES-256."""
    key = bytes.fromhex("01" + "00" * 31)
    nonce = bytes.fromhex("03" + "00" * 11)
    sealed = aead.AES256GCMSIV(Secret(key)).encrypt(nonce, b"", b"")
    assert sealed.hex() == "07f5f4169bbf55a8400cd47ea6fd400f"


def test_hpke(refused):
    """SEALING-01: a sealed message opens with its key and info, and grows by 1 136 bytes."""
    keys = hpke.SealingKeyPair.generate()
    sealed = hpke.generate_sealed(keys.public, b"plain", b"info")
    assert len(sealed) == 5 + hpke.OVERHEAD
    assert len(keys.public) == hpke.PUBLIC_KEY_BYTES
    assert len(keys.private) == hpke.PRIVATE_KEY_BYTES
    assert hpke.open_sealed(keys.private, sealed, b"info") == b"plain"
    other = hpke.SealingKeyPair.generate().private
    for key, data, info in (
        (keys.private, sealed, b"other"),
        (other, sealed, b"info"),
        (keys.private, sealed[:-1], b"info"),
        (keys.private, b"", b"info"),
        (keys.private, bytes(len(sealed)), b"info"),
    ):
        with refused(Reason.NOT_AUTHENTIC):
            hpke.open_sealed(key, data, info)


def test_hpke_bad_keys(refused):
    """P3: a sealing key with a bad half is refused before anything is sealed."""
    good = hpke.SealingKeyPair.generate().public
    for bad, reason in (
        (good[:-32] + bytes(32), Reason.BAD_POINT),
        (b"\xff" * 1184 + good[-32:], Reason.BAD_KEM_KEY),
        (good[:-1], Reason.BAD_KEM_KEY),
    ):
        with refused(reason):
            hpke.generate_sealed(bad, b"plain", b"info")
