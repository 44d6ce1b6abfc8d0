"""Ed25519 signatures (RFC 8032), verified strictly.

PyNaCl verifies: it refuses low-order keys, non-canonical encodings and unreduced scalars that
other libraries accept. What is signed is built by the callers, always under a label.
"""

from dataclasses import dataclass
from typing import Final, Self

from nacl import bindings
from nacl.exceptions import CryptoError

from e2ecall.crypto.random import generate_secret
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.secret import Secret

SEED_BYTES: Final = 32
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Ed25519KeyPair:
    """A private key as its 32-byte seed, with the public key."""

    seed: Secret
    public: bytes

    @classmethod
    def generate(cls) -> Self:
        """Draw a fresh key pair."""
        return cls.from_seed(generate_secret(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: Secret) -> Self:
        """Derive the public key of a stored seed."""
        public, _ = bindings.crypto_sign_seed_keypair(seed.expose())
        return cls(seed, public)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of ``message``."""
        signed = bindings.crypto_sign(message, self.seed.expose() + self.public)
        return signed[:SIGNATURE_BYTES]


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Accept ``signature`` of ``message`` under the 32-byte key ``public``.

    Raises:
        RemoteProtocolError: `Reason.BAD_SIGNATURE`, also for a key that is no valid point.
    """
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise RemoteProtocolError(Reason.BAD_SIGNATURE)
    try:
        bindings.crypto_sign_open(signature + message, public)
    except CryptoError as error:
        raise RemoteProtocolError(Reason.BAD_SIGNATURE) from error
