"""Ed25519 at the relay: what it verifies and the one thing it signs (spec/identity.md).

The only file of the relay that imports nacl. It decrypts nothing and agrees on no key.
"""

from typing import Final, Self, final

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import SigningKey, VerifyKey

from relay.errors import SignatureError

SEED_BYTES: Final = 32


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Check a 64-byte signature by the 32-byte public ``key`` over ``message``.

    Low-order and non-canonical keys and signatures are refused by libsodium.

    Raises:
        SignatureError: it does not hold.
    """
    try:
        VerifyKey(key).verify(message, signature)
    except (BadSignatureError, CryptoError, ValueError) as error:
        raise SignatureError("the signature does not hold") from error


@final
class RelayKey:
    """The relay's signing key, which attests in sender certificates who logged in."""

    __slots__ = ("_key", "public")

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.public: Final = bytes(key.verify_key)

    @classmethod
    def generate(cls) -> Self:
        """Draw a new key."""
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Read the key that `seed` gave.

        Raises:
            ValueError: the seed has not 32 bytes.
        """
        if len(seed) != SEED_BYTES:
            raise ValueError("a signing key has 32 bytes")
        return cls(SigningKey(seed))

    def seed(self) -> bytes:
        """Return the 32 secret bytes, for the relay's key file."""
        return bytes(self._key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over ``message``."""
        return self._key.sign(message).signature

    def __repr__(self) -> str:
        return "<relay key>"
