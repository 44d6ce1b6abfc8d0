"""Notation of the specification (spec/pqxdh.md, spec/callkeys.md) over library primitives.

Randomness is drawn from names, so that every run gives the same vectors.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM1024PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from nacl import bindings

P = 2**255 - 19
"""The prime of Curve25519."""

L = 2**252 + 27742317777372353535851937790883648493
"""The order of Ed25519's base point."""


def draw(name: str, length: int = 32) -> bytes:
    """Return the bytes that stand for random ones: SHAKE-256 of a name."""
    return hashlib.shake_256(f"e2ecall test vectors: {name}".encode()).digest(length)


def u8(value: int) -> bytes:
    """One byte."""
    return value.to_bytes(1)


def u16(value: int) -> bytes:
    """Two bytes, big-endian."""
    return value.to_bytes(2)


def u32(value: int) -> bytes:
    """Four bytes, big-endian."""
    return value.to_bytes(4)


def u64(value: int) -> bytes:
    """Eight bytes, big-endian."""
    return value.to_bytes(8)


def labelled(purpose: str, *parts: bytes) -> bytes:
    """``u16(len(label)) || label || u32(len(part)) || part ...``."""
    label = f"e2ecall/1 {purpose}".encode("ascii")
    return u16(len(label)) + label + b"".join(u32(len(part)) + part for part in parts)


def H(purpose: str, *parts: bytes) -> bytes:  # noqa: N802 - its name in the specification
    """SHA-512 of the labelled parts, 64 bytes."""
    return hashlib.sha512(labelled(purpose, *parts)).digest()


def hkdf_extract(digest: str, salt: bytes, ikm: bytes) -> bytes:
    """RFC 5869 section 2.2; an empty salt stands for zeros."""
    return hmac.digest(salt, ikm, digest)


def hkdf_expand(digest: str, key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 section 2.3."""
    output, block, counter = b"", b"", 0
    while len(output) < length:
        counter += 1
        block = hmac.digest(key, block + info + u8(counter), digest)
        output += block
    return output[:length]


def hkdf(digest: str, salt: bytes, ikm: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, both steps."""
    return hkdf_expand(digest, hkdf_extract(digest, salt, ikm), info, length)


def KDF(  # noqa: N802 - its name in the specification
    purpose: str, salt: bytes, secrets: list[bytes], context: list[bytes], length: int
) -> bytes:
    """HKDF-SHA-512 over length-prefixed secrets, with label and context as info."""
    ikm = b"".join(u32(len(secret)) + secret for secret in secrets)
    return hkdf("sha512", salt, ikm, labelled(purpose, *context), length)


def MAC(purpose: str, key: bytes, *parts: bytes) -> bytes:  # noqa: N802 - as above
    """HMAC-SHA-512 over the labelled parts, 64 bytes."""
    return hmac.digest(key, labelled(purpose, *parts), "sha512")


def sign_key(seed: bytes) -> bytes:
    """Return the Ed25519 public key of a 32-byte seed."""
    return bindings.crypto_sign_seed_keypair(seed)[0]


def sign(seed: bytes, message: bytes) -> bytes:
    """Ed25519, 64 bytes."""
    return bindings.crypto_sign(message, seed + sign_key(seed))[:64]


def dh_key(private: bytes) -> bytes:
    """Return the X25519 public key of a private key."""
    return bindings.crypto_scalarmult_base(private)


def DH(private: bytes, public: bytes) -> bytes:  # noqa: N802 - its name in the specification
    """X25519, RFC 7748."""
    return bindings.crypto_scalarmult(private, public)


def kem_key(bits: int, seed: bytes) -> bytes:
    """Return the encapsulation key of a 64-byte seed d || z, for ML-KEM-768 or 1024."""
    return _kem(bits, seed).public_key().public_bytes_raw()


def decapsulate(bits: int, seed: bytes, ciphertext: bytes) -> bytes:
    """ML-KEM.Decaps of FIPS 203 with the key of a seed, 32 bytes."""
    return _kem(bits, seed).decapsulate(ciphertext)


def gcm(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """AES-GCM, tag at the end."""
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def gcm_siv(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """AES-256-GCM-SIV, tag at the end."""
    return AESGCMSIV(key).encrypt(nonce, plaintext, aad)


def flipped(data: bytes, position: int, mask: int = 1) -> bytes:
    """Return the data with bits of one byte inverted: what an attacker alters."""
    altered = bytearray(data)
    altered[position] ^= mask
    return bytes(altered)


def _kem(bits: int, seed: bytes) -> MLKEM768PrivateKey | MLKEM1024PrivateKey:
    kind = MLKEM768PrivateKey if bits == 768 else MLKEM1024PrivateKey
    return kind.from_seed_bytes(seed)
