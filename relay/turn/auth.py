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

from relay.turn.attributes import (
    AttributeType,
    PasswordAlgorithm,
    TransportAddress,
    decode_password_algorithm,
    encode_password_algorithm,
)
from relay.turn.errors import ErrorCode, RefusedError, STUNError
from relay.turn.stun import Method, STUNMessage

NONCE_LIFETIME: Final = 3600
"""Seconds; RFC 8656 section 5 advises that a nonce expires at least once an hour."""

MIN_NONCE_KEY: Final = 16
_TAG_LENGTH: Final = 11
"""Bytes of the nonce's tag: with the expiry it fills 20 base64 characters without padding, and
88 bits are out of reach of guesses that each cost a datagram. Short, as each 401 carries it."""

NONCE_COOKIE: Final = b"obMatJos2" + base64.b64encode(bytes((0b1000_0000, 0, 0)))
"""RFC 8489 section 9.2: a server MUST begin its nonces with this text and the 24 bits of its
security features. Bit 0 is "Password algorithms"; bit 1, "Username anonymity", is not offered."""

NONCE_LENGTH: Final = len(NONCE_COOKIE) + 20
"""Characters of a nonce of this server."""

PASSWORD_ALGORITHMS: Final = b"".join(
    map(encode_password_algorithm, (PasswordAlgorithm.SHA256, PasswordAlgorithm.MD5))
)
"""What is offered, the better one first; the same in every challenge, so that a request that
repeats another list was answered by somebody else."""


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
    """An authenticated requester; ``key`` signs the response, with SHA-256 or as of old."""

    username: str
    identity: Identity
    key: bytes
    sha256: bool


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
        return NONCE_COOKIE + base64.b64encode(expiry + self._tag(expiry, client))

    def is_valid(self, now: float, nonce: bytes, client: TransportAddress) -> bool:
        """Say whether this client was given this nonce and may still use it."""
        if len(nonce) != NONCE_LENGTH or not nonce.startswith(NONCE_COOKIE):
            return False
        try:
            raw = base64.b64decode(nonce[len(NONCE_COOKIE) :], validate=True)
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
        # RFC 8489 section 9.2.4, here and below: without an integrity attribute it MUST be a 401.
        if not message.is_signed:
            raise RefusedError(ErrorCode.UNAUTHENTICATED)
        username = message.first(AttributeType.USERNAME)
        realm = message.first(AttributeType.REALM)
        nonce = message.first(AttributeType.NONCE)
        # With one, but without USERNAME or USERHASH, REALM, or NONCE, it MUST be a 400.
        anonymous = message.first(AttributeType.USERHASH) is not None
        if (username is None and not anonymous) or realm is None or nonce is None:
            raise RefusedError(ErrorCode.BAD_REQUEST)
        algorithm = _algorithm(message)
        # If the value of USERNAME or USERHASH is not valid, it MUST be a 401. No hash is: there is
        # no table of usernames in which it could be looked up (TURN-24).
        if username is None or realm != self.realm.encode():
            raise RefusedError(ErrorCode.UNAUTHENTICATED)
        credential = self._credential(now, username, algorithm)
        try:
            message.verify_integrity(credential.key)
        except STUNError as error:
            raise RefusedError(ErrorCode.UNAUTHENTICATED) from error
        # A stale nonce is only told to whom the password is known, so 438 comes last.
        if not self.nonces.is_valid(now, nonce, client):
            raise RefusedError(ErrorCode.STALE_NONCE)
        return credential

    def _credential(
        self, now: float, raw_username: bytes, algorithm: PasswordAlgorithm | None
    ) -> Credential:
        try:
            username = raw_username.decode()
        except UnicodeDecodeError as error:
            raise RefusedError(ErrorCode.UNAUTHENTICATED) from error
        identity = self._identify(username, now)
        if identity is None or identity.expires <= now:
            raise RefusedError(ErrorCode.UNAUTHENTICATED)
        password = self._password(username)
        key = long_term_key(username, self.realm, password, algorithm or PasswordAlgorithm.MD5)
        # A response MUST carry MESSAGE-INTEGRITY-SHA256, unless the request named no algorithm and
        # so was processed as though it were MD5: then MESSAGE-INTEGRITY.
        return Credential(username, identity, key, sha256=algorithm is not None)


def long_term_key(
    username: str,
    realm: str,
    password: str,
    algorithm: PasswordAlgorithm = PasswordAlgorithm.MD5,
) -> bytes:
    """Return the hash of ``username ":" realm ":" password`` (RFC 8489 sections 9.2.2, 18.5.1).

    The names here are ASCII, on which OpaqueString changes nothing.
    """
    joined = f"{username}:{realm}:{password}".encode()
    if algorithm is PasswordAlgorithm.SHA256:
        return hashlib.sha256(joined).digest()
    return hashlib.md5(joined, usedforsecurity=False).digest()


def _algorithm(message: STUNMessage) -> PasswordAlgorithm | None:
    """Return the password algorithm that the request names, if any."""
    chosen = message.first(AttributeType.PASSWORD_ALGORITHM)
    offered = message.first(AttributeType.PASSWORD_ALGORITHMS)
    # Neither: the request is processed as though the algorithm were MD5.
    if chosen is None and offered is None:
        return None
    # Otherwise, unless both are present, the list is the one that was offered, and the algorithm
    # is one of it, it MUST be a 400: somebody in between offered less. Section 9.2.3.2 has clients
    # leave the list out of what follows their first request, which is the Allocate here.
    if offered is None and message.method != Method.ALLOCATE:
        offered = PASSWORD_ALGORITHMS
    if chosen is None or offered != PASSWORD_ALGORITHMS:
        raise RefusedError(ErrorCode.BAD_REQUEST)
    return decode_password_algorithm(chosen)
