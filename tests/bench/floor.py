"""The library calls under a handshake and under an envelope, without any protocol around them."""

import os

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from nacl import bindings

from tests.bench.harness import Thunk

VERIFICATIONS = 7
"""Device list on both sides, four prekeys at the initiator, the sealing key at the responder."""

EXCHANGES = 10
"""Four of PQXDH and one of the first ratchet step, on both sides."""

OWN_KEYS = 2
"""X25519 keys that the initiator draws. The responder's are loaded already, as its KEM key is."""

SIGNED = bytes(1_300)


def handshake() -> Thunk:
    """Prepare what one handshake calls, point checks and hashes left out."""
    public, private = bindings.crypto_sign_keypair()
    signed = bindings.crypto_sign(SIGNED, private)
    scalar = os.urandom(32)
    point = bindings.crypto_scalarmult_base(os.urandom(32))
    small = MLKEM768PrivateKey.generate().public_key().public_bytes_raw()
    large = MLKEM1024PrivateKey.generate()
    key = large.public_key().public_bytes_raw()

    def calls() -> None:
        for _ in range(VERIFICATIONS):
            bindings.crypto_sign_open(signed, public)
        for _ in range(EXCHANGES):
            bindings.crypto_scalarmult(scalar, point)
        for _ in range(OWN_KEYS):
            bindings.crypto_scalarmult_base(scalar)
        for _ in range(3):  # the sealing key on both sides, the first ratchet key
            MLKEM768PublicKey.from_public_bytes(small)
        MLKEM768PrivateKey.generate().public_key().public_bytes_raw()
        _, ciphertext = MLKEM1024PublicKey.from_public_bytes(key).encapsulate()
        large.decapsulate(ciphertext)

    return calls


def sealing(padded: bytes) -> tuple[Thunk, Thunk]:
    """Return HPKE encryption and decryption with keys that are loaded already."""
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA512, AEAD.AES_256_GCM)
    kem, dh = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    public = MLKEM768X25519PublicKey(kem.public_key(), dh.public_key())
    private = MLKEM768X25519PrivateKey(kem, dh)
    sealed = suite.encrypt(padded, public, b"")
    return lambda: suite.encrypt(padded, public, b""), lambda: suite.decrypt(sealed, private, b"")
