"""X25519 (RFC 7748) that refuses every public key an honest peer cannot have.

The libraries underneath accept non-canonical encodings and points of the twist; here each
public key is checked before it is used (spec/pqxdh.md, PQXDH-02). It authenticates nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from nacl import bindings
from nacl.exceptions import CryptoError

from e2ecall.crypto.random import generate_secret
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.secret import Beside, Secret

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
_MAX_GOOD: Final = 256

_good: set[bytes] = set()
"""Public keys that passed: long-lived ones are checked once, not in each handshake."""

_derived: Final = Beside[bytes]()
"""The public keys of private keys that are in use."""


def check_public_key(public: bytes) -> None:
    """Accept ``public`` only as the canonical encoding of a point that X25519 can produce.

    Raises:
        RemoteProtocolError: `Reason.BAD_POINT` for a wrong length, a value of 2^255 - 19 or
            more, a point of low order, or a point of the twist.
    """
    if public in _good:
        return
    if not _is_candidate(public) or not _are_on_curve([public]):
        raise RemoteProtocolError(Reason.BAD_POINT)
    _remember([public])


def expect_public_keys(publics: Iterable[bytes]) -> None:
    """Check several keys at once, because that costs half as much, and remember the good ones.

    It accepts nothing and raises nothing: each key still has to pass `check_public_key`, at its
    place among the other checks, which is then a look-up.
    """
    new = [public for public in publics if public not in _good and _is_candidate(public)]
    if len(new) > 1 and _are_on_curve(new):
        _remember(new)


def forget_checked_keys() -> None:
    """Forget which keys passed, for measurements of what a check costs."""
    _good.clear()


def _is_candidate(public: bytes) -> bool:
    """Tell whether it is the canonical encoding of a point that is not of low order."""
    u = int.from_bytes(public, "little")
    return len(public) == KEY_BYTES and u < _P and u not in _LOW_ORDER


def _are_on_curve(publics: list[bytes]) -> bool:
    """Tell whether all candidates are on the curve and none is on its twist.

    The birational map of RFC 7748 section 4.1, y = (u - 1) / (u + 1), has an image on edwards25519
    exactly when the point is on the curve; an addition decodes its two operands and so finds
    out. One inversion serves all: that of the product gives each by multiplications.
    """
    us = [int.from_bytes(public, "little") for public in publics]
    products = [1]
    for u in us:
        products.append(products[-1] * (u + 1) % _P)
    inverse = pow(products[-1], -1, _P)  # no factor is 0: u = -1 has low order
    points = [_EDWARDS_BASE] if len(us) % 2 else []
    for u, product in zip(reversed(us), reversed(products[:-1]), strict=True):
        y = (u - 1) * inverse * product % _P
        points.append(y.to_bytes(KEY_BYTES, "little"))
        inverse = inverse * (u + 1) % _P
    try:
        for one, other in zip(points[::2], points[1::2], strict=True):
            bindings.crypto_core_ed25519_add(one, other)
    except CryptoError:
        return False
    return True


def _remember(publics: list[bytes]) -> None:
    if len(_good) + len(publics) > _MAX_GOOD:
        _good.clear()
    _good.update(publics)


def public_key(private: Secret) -> bytes:
    """Return the 32-byte public key of a 32-byte private key."""
    public = _derived.get(private)
    if public is None:
        public = bindings.crypto_scalarmult_base(private.expose())
        _derived.put(private, public)
    return public


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
