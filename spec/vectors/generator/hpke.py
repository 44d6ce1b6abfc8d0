"""HPKE (RFC 9180), base mode, single shot, over X-Wing: sealing with chosen randomness.

KEM MLKEM768-X25519 (0x647A), KDF HKDF-SHA-512 (0x0003), AEAD AES-256-GCM (0x0002).
"""

import hashlib
from dataclasses import dataclass

from spec.vectors.generator.mlkem import encapsulate
from spec.vectors.generator.primitives import DH, dh_key, gcm, hkdf_expand, hkdf_extract, u16

_SUITE = b"HPKE" + u16(0x647A) + u16(0x0003) + u16(0x0002)
_XWING = b"\\.//^\\"


@dataclass(frozen=True)
class Sealed:
    """One sealing, with everything on its way."""

    enc: bytes
    shared_secret: bytes
    key: bytes
    nonce: bytes
    ciphertext: bytes


def xwing(mlkem_secret: bytes, dh_secret: bytes, dh_ciphertext: bytes, dh_public: bytes) -> bytes:
    """Combine both secrets: SHA3-256(ss_M || ss_X || ct_X || pk_X || label)."""
    parts = mlkem_secret + dh_secret + dh_ciphertext + dh_public + _XWING
    return hashlib.sha3_256(parts).digest()


def xwing_encapsulate(public: bytes, m: bytes, ephemeral: bytes) -> tuple[bytes, bytes]:
    """Return ``(shared secret, enc)``; ``public`` is ML-KEM-768 (1184) || X25519 (32)."""
    mlkem_secret, mlkem_ciphertext = encapsulate(768, public[:1184], m)
    dh_ciphertext = dh_key(ephemeral)
    dh_secret = DH(ephemeral, public[1184:])
    secret = xwing(mlkem_secret, dh_secret, dh_ciphertext, public[1184:])
    return secret, mlkem_ciphertext + dh_ciphertext


def key_schedule(shared_secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Return key and base nonce (RFC 9180 section 5.1, mode 0, without PSK)."""
    context = b"\0" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", info)
    secret = _extract(shared_secret, b"secret", b"")
    return _expand(secret, b"key", context, 32), _expand(secret, b"base_nonce", context, 12)


def seal(public: bytes, plaintext: bytes, info: bytes, *, m: bytes, ephemeral: bytes) -> Sealed:
    """Seal one message; ``m`` (32) and ``ephemeral`` (32) are what is random about it."""
    shared_secret, enc = xwing_encapsulate(public, m, ephemeral)
    key, nonce = key_schedule(shared_secret, info)
    return Sealed(enc, shared_secret, key, nonce, gcm(key, nonce, plaintext, b""))


def _extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hkdf_extract("sha512", salt, b"HPKE-v1" + _SUITE + label + ikm)


def _expand(key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled_info = u16(length) + b"HPKE-v1" + _SUITE + label + info
    return hkdf_expand("sha512", key, labelled_info, length)
