"""Media tickets: TURN credentials for the two sides of one call (spec/ticket-ids.md).

Stateless: a username carries the ticket and the side, sealed under a key derived from the TURN
secret, so that the data plane needs no table and an observer cannot pair the two sides. It draws
no randomness, decides nothing about who may have a ticket, and counts no allocations.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

from relay.errors import TicketError
from relay.wire.labels import labelled
from relay.wire.messages import TurnCredential
from relay.wire.turn_servers import host_of, hosts_of, urls_for

TICKET_ID_BYTES: Final = 16
TAG_BYTES: Final = 16
DEFAULT_LIFETIME: Final = 12 * 3600
"""Seconds. Longer than a call is likely to last; an allocation cannot be refreshed beyond it."""
MAX_LIFETIME: Final = 24 * 3600
EXPIRY_STEP: Final = 60
"""Expiries are rounded up to it, or the second of issue would pair the two sides of a call."""
MIN_SECRET_BYTES: Final = 8

_USERNAME: Final = re.compile(r"([1-9][0-9]{0,11}):([A-Za-z0-9_-]{44})", re.ASCII)


@unique
class Side(IntEnum):
    """Which of the two credentials of a ticket: ``A`` asked for it, ``B`` is the peer's."""

    A = 0
    B = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """What a TURN username stands for: 16-byte ticket, side, and Unix time of its end."""

    ticket_id: bytes
    side: Side
    expires: int


def issue(
    secret: bytes, now: float, ttl: int, ticket_id: bytes
) -> tuple[TurnCredential, TurnCredential]:
    """Return the credentials of side A and side B, valid for ``ttl`` seconds or a little more.

    ``ticket_id`` is 16 bytes that were never used before (random). Anyone with both credentials
    of a ticket can talk to oneself through the relay, and to nobody else.

    Raises:
        ValueError: the ticket id has another length, or ``ttl`` is not within 1 s and 24 h.
    """
    if len(ticket_id) != TICKET_ID_BYTES:
        raise ValueError("a ticket id has 16 bytes")
    if not 1 <= ttl <= MAX_LIFETIME:
        raise ValueError("a ticket lives between one second and 24 hours")
    expires = -(-(int(now) + ttl) // EXPIRY_STEP) * EXPIRY_STEP
    return (
        _credential(secret, Identity(ticket_id, Side.A, expires)),
        _credential(secret, Identity(ticket_id, Side.B, expires)),
    )


def issue_for(
    secret: bytes,
    now: float,
    ttl: int,
    *,
    urls: Sequence[str],
    own_host: str,
    random_id: Callable[[], bytes],
) -> tuple[TurnCredential, TurnCredential]:
    """Return credentials as `issue` does, which both name one TURN server of ``urls``.

    That is the one at ``own_host`` or, if this is empty, any. With n servers it takes n ids from
    ``random_id`` on average, or n * n for a certain one.

    Raises:
        ValueError: as `issue`, or ``own_host`` is no host of ``urls``.
    """
    if own_host and own_host not in hosts_of(urls):
        raise ValueError("the own host is none of the servers")
    while True:
        a, b = issue(secret, now, ttl, random_id())
        chosen = urls_for(urls, a.username)
        wanted = not own_host or own_host == host_of(chosen[0])
        # TICKET-07 MUST: two sides at two servers would never meet.
        if wanted and chosen == urls_for(urls, b.username):
            return a, b


def open_id(secret: bytes, username: str, now: float) -> Identity:
    """Return the identity inside a TURN username.

    Raises:
        TicketError: it is not canonical, was not sealed under this secret, or is out of date.
    """
    match = _USERNAME.fullmatch(username)
    if match is None:
        raise TicketError("not a username of this relay")
    expires = int(match[1])
    try:
        sealed = base64.b64decode(match[2], altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise TicketError("not a username of this relay") from error
    tag, hidden = sealed[:TAG_BYTES], sealed[TAG_BYTES:]
    content = _mask(secret, tag, hidden)
    if not hmac.compare_digest(tag, _tag(secret, expires, content)):
        raise TicketError("not a username of this relay")
    if expires <= now:
        raise TicketError("the credential is out of date")
    if expires > now + MAX_LIFETIME + EXPIRY_STEP:
        raise TicketError("the credential is valid for too long")
    return Identity(content[:TICKET_ID_BYTES], Side(content[TICKET_ID_BYTES]), expires)


def password(secret: bytes, username: str) -> str:
    """Return base64(HMAC-SHA1(secret, username)), the password of any time-limited username.

    That is the form that ordinary TURN servers check (draft-uberti-behave-turn-rest-00).
    """
    digest = hmac.new(secret, username.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")


def expires_at(credential: TurnCredential) -> int:
    """Return the Unix time at which a credential made by `issue` ends."""
    return int(credential.username.partition(":")[0])


def _credential(secret: bytes, identity: Identity) -> TurnCredential:
    content = identity.ticket_id + bytes([identity.side])
    tag = _tag(secret, identity.expires, content)
    sealed = base64.urlsafe_b64encode(tag + _mask(secret, tag, content)).decode("ascii")
    username = f"{identity.expires}:{sealed}"
    return TurnCredential(username, password(secret, username))


def _tag(secret: bytes, expires: int, content: bytes) -> bytes:
    message = labelled("turn ticket tag", expires.to_bytes(8), content)
    return hmac.new(secret, message, hashlib.sha256).digest()[:TAG_BYTES]


def _mask(secret: bytes, tag: bytes, content: bytes) -> bytes:
    """XOR with a key stream that belongs to the tag: sealing and opening are the same."""
    stream = hmac.new(secret, labelled("turn ticket stream", tag), hashlib.sha256).digest()
    return bytes(a ^ b for a, b in zip(content, stream, strict=False))
