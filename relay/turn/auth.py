"""Long-term credentials with stateless nonces (RFC 8489 section 9.2; spec/turn.md).

Who a username belongs to and what its password is comes from outside (`Credentials`); nothing is
remembered between requests, so any worker that has the nonce key can check any request.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from relay.turn.attributes import AttributeType, TransportAddress
from relay.turn.errors import ErrorCode, RefusedError, STUNError
from relay.turn.stun import STUNMessage

NONCE_LIFETIME: Final = 3600
"""Seconds; RFC 8656 section 5 advises that a nonce expires at least once an hour."""

MIN_NONCE_KEY: Final = 16
_TAG_LENGTH: Final = 11
"""Bytes of the nonce's tag: with the expiry it fills 20 base64 characters without padding, and
88 bits are out of reach of guesses that each cost a datagram. Short, as each 401 carries it."""

NONCE_LENGTH: Final = 20
"""Characters of a nonce of this server."""


class Identity(Protocol):
    """Whom a username stands for: one side of one call ticket."""

    @property
    def ticket_id(self) -> bytes:
        """The ticket; allocations exchange data within it only."""

    @property
    def side(self) -> int:
        """Which of the ticket's two sides."""

    @property
    def expires(self) -> int:
        """Unix seconds after which the credential is worth nothing."""


Identify = Callable[[str, float], Identity | None]
"""``identify(username, now)``: None where the username is unknown, tampered with or expired."""

Password = Callable[[str], str]
"""``password(username)``: derived, so that there is none to store."""


@dataclass(frozen=True, slots=True)
class Credential:
    """An authenticated requester; ``key`` signs the response."""

    username: str
    identity: Identity
    key: bytes


class Nonces:
    """Nonces that need no table: expiry and tag, bound to the client's transport address."""

    __slots__ = ("_key", "_lifetime")

    def __init__(self, key: bytes, lifetime: int = NONCE_LIFETIME) -> None:
        if len(key) < MIN_NONCE_KEY:
            raise ValueError(f"a nonce key has at least {MIN_NONCE_KEY} bytes")
        self._key = key
        self._lifetime = lifetime

    def issue(self, now: float, client: TransportAddress) -> bytes:
        """Return the nonce that this client may use until ``now`` plus the lifetime."""
        expiry = (int(now) + self._lifetime).to_bytes(4)
        return base64.b64encode(expiry + self._tag(expiry, client))

    def is_valid(self, now: float, nonce: bytes, client: TransportAddress) -> bool:
        """Say whether this client was given this nonce and may still use it."""
        if len(nonce) != NONCE_LENGTH:
            return False
        try:
            raw = base64.b64decode(nonce, validate=True)
        except ValueError:
            return False
        expiry, tag = raw[:4], raw[4:]
        return hmac.compare_digest(self._tag(expiry, client), tag) and now < int.from_bytes(expiry)

    def _tag(self, expiry: bytes, client: TransportAddress) -> bytes:
        # Binding to the address makes a captured request worthless from anywhere else.
        covered = b"turn nonce" + expiry + client.port.to_bytes(2) + client.ip
        return hmac.digest(self._key, covered, "sha256")[:_TAG_LENGTH]


class LongTermCredentials:
    """Decides whether a request is who it says it is."""

    __slots__ = ("_identify", "_password", "nonces", "realm")

    def __init__(
        self, *, identify: Identify, password: Password, nonces: Nonces, realm: str
    ) -> None:
        self._identify = identify
        self._password = password
        self.nonces = nonces
        self.realm = realm

    def authenticate(
        self, now: float, message: STUNMessage, client: TransportAddress
    ) -> Credential:
        """Return whose request this is.

        Raises:
            RefusedError: 401 without (valid) credential, 400 for half of one, 438 where only the
                nonce is not, or no longer, the client's.
        """
        if message.integrity is None:
            raise RefusedError(ErrorCode.UNAUTHENTICATED)
        username = message.first(AttributeType.USERNAME)
        realm = message.first(AttributeType.REALM)
        nonce = message.first(AttributeType.NONCE)
        # RFC 8489 section 9.2.4: MESSAGE-INTEGRITY without one of these is a 400.
        if username is None or realm is None or nonce is None:
            raise RefusedError(ErrorCode.BAD_REQUEST)
        if realm != self.realm.encode():
            raise RefusedError(ErrorCode.UNAUTHENTICATED)
        credential = self._credential(now, username)
        try:
            message.verify_integrity(credential.key)
        except STUNError as error:
            raise RefusedError(ErrorCode.UNAUTHENTICATED) from error
        # A stale nonce is only told to whom the password is known, so 438 comes last.
        if not self.nonces.is_valid(now, nonce, client):
            raise RefusedError(ErrorCode.STALE_NONCE)
        return credential

    def _credential(self, now: float, raw_username: bytes) -> Credential:
        try:
            username = raw_username.decode()
        except UnicodeDecodeError as error:
            raise RefusedError(ErrorCode.UNAUTHENTICATED) from error
        identity = self._identify(username, now)
        if identity is None or identity.expires <= now:
            raise RefusedError(ErrorCode.UNAUTHENTICATED)
        key = long_term_key(username, self.realm, self._password(username))
        return Credential(username, identity, key)


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """Return ``MD5(username ":" realm ":" password)`` (RFC 8489 section 9.2.2).

    The names here are ASCII, on which OpaqueString changes nothing.
    """
    joined = f"{username}:{realm}:{password}".encode()
    return hashlib.md5(joined, usedforsecurity=False).digest()
