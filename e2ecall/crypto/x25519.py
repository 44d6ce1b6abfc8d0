"""X25519 (RFC 7748) that refuses every public key an honest peer cannot have.

The libraries underneath accept non-canonical encodings and points of the twist; here each
public key is checked before it is used (spec/pqxdh.md, PQXDH-02). It authenticates nothing.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from nacl import bindings
from nacl.exceptions import CryptoError

from e2ecall.crypto.random import generate_secret
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.secret import Secret

KEY_BYTES: Final = 32

_P: Final = 2**255 - 19
_LOW_ORDER: Final = frozenset(
    (
        0,
        1,
        _P - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)
"""u-coordinates of the points of order 1, 2, 4 and 8, on the curve and on its twist."""

_EDWARDS_BASE: Final = (4 * pow(5, -1, _P) % _P).to_bytes(32, "little")
_CHECKED_KEYS: Final = 256
"""Keys remembered as good: a peer's long-lived keys are checked once, not in each handshake."""


@lru_cache(maxsize=_CHECKED_KEYS)
def check_public_key(public: bytes) -> None:
    """Accept ``public`` only as the canonical encoding of a point that X25519 can produce.

    Raises:
        RemoteProtocolError: `Reason.BAD_POINT` for a wrong length, a value of 2^255 - 19 or
            more, a point of low order, or a point of the twist.
    """
    u = int.from_bytes(public, "little")
    if len(public) != KEY_BYTES or u >= _P or u in _LOW_ORDER:
        raise RemoteProtocolError(Reason.BAD_POINT)
    # The birational map of RFC 7748 section 4.1 has an image on edwards25519 exactly when the
    # point is on the curve and not on its twist; the addition decodes it and so finds out.
    y = (u - 1) * pow(u + 1, -1, _P) % _P
    try:
        bindings.crypto_core_ed25519_add(y.to_bytes(KEY_BYTES, "little"), _EDWARDS_BASE)
    except CryptoError as error:
        raise RemoteProtocolError(Reason.BAD_POINT) from error


def public_key(private: Secret) -> bytes:
    """Return the 32-byte public key of a 32-byte private key."""
    return bindings.crypto_scalarmult_base(private.expose())


def exchange(private: Secret, public: bytes) -> Secret:
    """Return the 32-byte shared secret with a peer's public key.

    Raises:
        RemoteProtocolError: `Reason.BAD_POINT`, as in `check_public_key`, or when the
            result is all zero.
    """
    check_public_key(public)
    try:
        shared = bindings.crypto_scalarmult(private.expose(), public)
    except CryptoError as error:
        raise RemoteProtocolError(Reason.BAD_POINT) from error
    return Secret(shared)


@dataclass(frozen=True, slots=True)
class X25519KeyPair:
    """A private key of 32 bytes with its public key."""

    private: Secret
    public: bytes

    @classmethod
    def generate(cls) -> Self:
        """Draw a fresh key pair."""
        return cls.from_private(generate_secret(KEY_BYTES))

    @classmethod
    def from_private(cls, private: Secret) -> Self:
        """Derive the public key of a stored private key."""
        return cls(private, public_key(private))

    def exchange(self, public: bytes) -> Secret:
        """Return the shared secret with ``public``; raises as `exchange` does."""
        return exchange(self.private, public)
