"""HPKE (RFC 9180), base mode, one suite: MLKEM768-X25519, HKDF-SHA-512, AES-256-GCM.

Each call is one single-shot message. Base mode authenticates no sender: the ratchet inside does.
"""

from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from e2ecall.crypto import mlkem, x25519
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.secret import Beside, Secret

PUBLIC_KEY_BYTES: Final = mlkem.MLKEM768.public_bytes + x25519.KEY_BYTES
PRIVATE_KEY_BYTES: Final = mlkem.SEED_BYTES + x25519.KEY_BYTES
OVERHEAD: Final = 1136
"""Bytes that a message grows by: encapsulated key (1088 + 32) and tag (16)."""

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA512, AEAD.AES_256_GCM)

_loaded: Final = Beside[MLKEM768X25519PrivateKey]()
"""Private keys that are in use: expanding one costs more than to open an envelope with it."""


@dataclass(frozen=True, slots=True)
class SealingKeyPair:
    """Private: ML-KEM-768 seed (64) || X25519 (32). Public: ML-KEM-768 (1184) || X25519 (32)."""

    private: Secret
    public: bytes

    @classmethod
    def generate(cls) -> Self:
        """Draw a fresh key pair."""
        kem = mlkem.MLKEM768.generate()
        dh = x25519.X25519KeyPair.generate()
        private = Secret(kem.seed.expose() + dh.private.expose())
        return cls(private, kem.public + dh.public)


def x25519_half(public: bytes) -> bytes:
    """Return the X25519 half of a public key, for `x25519.expect_public_keys`."""
    return public[mlkem.MLKEM768.public_bytes :]


def check_public_key(public: bytes) -> None:
    """Accept ``public`` only if both halves are valid keys.

    Raises:
        RemoteProtocolError: `Reason.BAD_KEM_KEY` or `Reason.BAD_POINT`.
    """
    if len(public) != PUBLIC_KEY_BYTES:
        raise RemoteProtocolError(Reason.BAD_KEM_KEY)
    mlkem.MLKEM768.check_public_key(public[: mlkem.MLKEM768.public_bytes])
    x25519.check_public_key(x25519_half(public))


def generate_sealed(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Encrypt to ``public`` with fresh randomness: encapsulated key (1120) || ciphertext || tag.

    ``info`` is bound to the message and has to be equal on opening.

    Raises:
        RemoteProtocolError: the key is not valid, as in `check_public_key`.
    """
    check_public_key(public)
    key = MLKEM768X25519PublicKey(
        mlkem.MLKEM768.load_public_key(public[: mlkem.MLKEM768.public_bytes]),
        X25519PublicKey.from_public_bytes(x25519_half(public)),
    )
    return _SUITE.encrypt(plaintext, key, info)


def open_sealed(private: Secret, sealed: bytes, info: bytes) -> bytes:
    """Return the plaintext.

    Raises:
        RemoteProtocolError: `Reason.NOT_AUTHENTIC`: another key, other ``info``, or altered.
    """
    key = _loaded.get(private)
    if key is None:
        key = _load(private)
        _loaded.put(private, key)
    try:
        return _SUITE.decrypt(sealed, key, info)
    except InvalidTag as error:
        raise RemoteProtocolError(Reason.NOT_AUTHENTIC) from error


def _load(private: Secret) -> MLKEM768X25519PrivateKey:
    exposed = private.expose()
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(exposed[: mlkem.SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(exposed[mlkem.SEED_BYTES :]),
    )
