"""Hashes, key derivation and MACs (spec/pqxdh.md, "Notation"), all domain-separated by label.

SHA-512 throughout: `labelled_hash` is H, `labelled_kdf` is KDF (HKDF, RFC 5869) of the
specification. It draws no randomness and chooses no labels.
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.secret import Secret
from relay.wire.labels import labelled

HASH_BYTES: Final = 64
"""Length of a hash and of a MAC; none is ever truncated."""

_SHA512: Final = SHA512()


def hkdf(*, salt: bytes, ikm: Secret, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-SHA-512 (RFC 5869); at most 255 * 64."""
    return HKDF(_SHA512, length, salt, info).derive(ikm.expose())


def labelled_hash(purpose: str, *parts: bytes) -> bytes:
    """Return H(purpose, parts): the 64-byte SHA-512 of label and length-prefixed parts."""
    return hashlib.sha512(labelled(purpose, *parts)).digest()


def labelled_kdf(
    purpose: str,
    *,
    salt: bytes,
    secrets: Iterable[Secret],
    context: Iterable[bytes] = (),
    length: int,
) -> bytes:
    """Return KDF(purpose): HKDF over several secrets, with label and context as info.

    The input key material is ``u32(len(secret)) || secret`` for each secret in order, so
    no two sequences of secrets give the same input; info is ``labelled(purpose, *context)``.
    """
    pieces: list[bytes] = []
    for secret in secrets:
        pieces.append(len(secret).to_bytes(4))
        pieces.append(secret.expose())
    return HKDF(_SHA512, length, salt, labelled(purpose, *context)).derive(b"".join(pieces))


def hmac_sha512(key: Secret, message: bytes) -> bytes:
    """Return the 64-byte HMAC-SHA-512 (RFC 2104) of ``message``."""
    return hmac.digest(key.expose(), message, "sha512")


def labelled_mac(purpose: str, key: Secret, *parts: bytes) -> bytes:
    """Return the 64-byte HMAC-SHA-512 over label and length-prefixed parts."""
    return hmac.digest(key.expose(), labelled(purpose, *parts), "sha512")


def verify_equal(expected: bytes, received: bytes, reason: Reason) -> None:
    """Compare in constant time, the length included in what has to match.

    Raises:
        RemoteProtocolError: with ``reason``, when they differ.
    """
    if not hmac.compare_digest(expected, received):
        raise RemoteProtocolError(reason)


def verify_mac(expected: bytes, received: bytes) -> None:
    """Compare a received MAC with the computed one, in constant time.

    Raises:
        RemoteProtocolError: `Reason.BAD_MAC`, also for a MAC of another length.
    """
    verify_equal(expected, received, Reason.BAD_MAC)
