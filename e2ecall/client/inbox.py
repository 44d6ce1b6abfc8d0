"""Text messages that came in (spec/store.md, "Inbox"): kept until the program has taken them.

They are stored in the same step as the session that decrypted them, so a crash loses none. How
many may wait depends on who sent them, so that strangers take no room from contacts.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Annotated, Final

import anyio
from msgspec import Meta, Struct

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.encoding import decode_stored, encode_stored
from e2ecall.protocol.messages import Payload, decode_text
from relay.wire.names import Address

MAX_WAITING: Final = 1000
"""Texts that wait for the program to take them, of everybody together."""


@unique
class Standing(IntEnum):
    """What the sender of a text was to this account when it came."""

    CONTACT = 0
    """Somebody whom the user wrote to, called or verified."""
    STRANGER = 1
    UNPROVEN = 2


_ROOM: Final[Mapping[Standing, int]] = {
    Standing.CONTACT: MAX_WAITING,
    Standing.STRANGER: 300,
    Standing.UNPROVEN: 100,
}
"""INBOX-04: texts of one standing that may wait."""

_NUMBER_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A text; ``proven`` says that a relay the user chose vouches for the sender's name."""

    sender: str
    proven: bool
    sent_at: float
    """Unix seconds, as the sender says."""
    text: str


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    sender: str
    proven: bool
    sent_at_ms: Annotated[int, Meta(ge=0)]
    body: bytes


def arrival(
    waiting: Mapping[bytes, bytes],
    sender: Address,
    payload: Payload,
    *,
    proven: bool,
    standing: Standing,
) -> Change:
    """Return the change that puts a text behind the ``waiting`` ones (INBOX-01).

    Raises:
        RemoteProtocolError: `LIMIT`: too many wait; `MALFORMED`: it is no text.
    """
    alike = sum(key[_NUMBER_BYTES:] == bytes([standing]) for key in waiting)
    if len(waiting) >= MAX_WAITING or alike >= _ROOM[standing]:
        raise RemoteProtocolError(Reason.LIMIT)
    decode_text(payload.body)
    number = 1 + max((int.from_bytes(key[:_NUMBER_BYTES]) for key in waiting), default=0)
    stored = _Stored(str(sender), proven, payload.sent_at_ms, payload.body)
    key = number.to_bytes(_NUMBER_BYTES) + bytes([standing])
    return Change(RecordKind.INBOX, key, encode_stored(stored))


class Inbox:
    """The texts in a store that nobody has taken yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._arrived = anyio.Event()

    def notify(self) -> None:
        """Say that a text was stored."""
        self._arrived.set()
        self._arrived = anyio.Event()

    def messages(self) -> Callable[[anyio.Event], Awaitable[TextMessage | None]]:
        """Return a reader: each call forgets the text it returned before and returns the next.

        It is given an event that says that no more can arrive, and then returns None at the end.
        Cancelled, it loses none (INBOX-06).
        """
        taken: tuple[bytes, bytes] | None = None

        async def following(closed: anyio.Event) -> TextMessage | None:
            nonlocal taken
            # INBOX-06: a request that was cancelled may have deleted it, and its number may be
            # that of another text by now.
            if taken is not None and self._store.get(RecordKind.INBOX, taken[0]) is taken[1]:
                await self._store.write([Change(RecordKind.INBOX, taken[0], None)])
            while not (waiting := self._store.all(RecordKind.INBOX)):
                if closed.is_set():
                    return None
                await self._arrived.wait()
            taken = min(waiting.items())
            stored = decode_stored(taken[1], _Stored)
            text = decode_text(stored.body)
            return TextMessage(stored.sender, stored.proven, stored.sent_at_ms / 1000, text)

        return following
