"""Mailboxes: their keys, bounds and lifetimes (spec/wire.md, Mailboxes).

Names and limits only; `relay.io` stores the mail, `relay.services.delivery` hands it out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto, unique
from functools import cached_property
from typing import Final, NamedTuple, Self

from relay.wire.labels import labelled
from relay.wire.messages import AccountRecipient, BoxRecipient
from relay.wire.names import or_nobody

MAIL_LIFETIME: Final = 14 * 86_400
"""Seconds. The same for every envelope, so that it tells nothing about what is inside."""
BOX_IDLE_LIFETIME: Final = 2 * 3600
"""Seconds without a reader before a reply box is gone: longer than a call's messages need."""
TOMBSTONE_LIFETIME: Final = 3600
"""Seconds for which a message id is remembered after its acknowledgement: a sender that lost the
reply to Send tries again within that time."""
STRANGERS_PARTS, ALL_PARTS = 3, 4
"""Strangers can fill three quarters of a mailbox, and of a store; the last is for those who were
given a token, and for the calls that go on in reply boxes."""
MAX_TRIES: Final = 5
"""How often an envelope may be the first that a reader is given without being acknowledged: what
stops a client every time must not keep the rest from it."""


class Letter(NamedTuple):
    """An envelope that a sender wants to be stored, under the id by which it names it."""

    message_id: bytes
    envelope: bytes


class Load(NamedTuple):
    """So many envelopes, and their bytes together."""

    envelopes: int
    total_bytes: int

    @classmethod
    def of(cls, letters: Sequence[Letter]) -> Self:
        """Return what these would add."""
        return cls(len(letters), sum(len(letter.envelope) for letter in letters))


@dataclass(frozen=True)
class Capacity:
    """How much unacknowledged mail a mailbox may hold."""

    envelopes: int
    total_bytes: int

    @cached_property
    def of_strangers(self) -> "Capacity":
        """How full it may be for what shows no good delivery token to be taken (WIRE-57)."""
        return Capacity(
            self.envelopes * STRANGERS_PARTS // ALL_PARTS,
            self.total_bytes * STRANGERS_PARTS // ALL_PARTS,
        )

    def has_room(self, held: "Load", more: "Load") -> bool:
        """Tell whether ``more`` fits to what there is."""
        return (
            held.envelopes + more.envelopes <= self.envelopes
            and held.total_bytes + more.total_bytes <= self.total_bytes
        )


DEVICE_CAPACITY: Final = Capacity(1000, 16 * 1024 * 1024)
BOX_CAPACITY: Final = Capacity(128, 2 * 1024 * 1024)
"""A call's exchange is a dozen envelopes; a box is anonymous, so it gets little."""
MAX_BOXES: Final = 100_000
"""Reply boxes of one relay: they cost no account, so their number needs a bound."""
BOX_GRACE: Final = 180
"""Seconds for which a box that nobody reads keeps its place where there are too many: long enough
to come back, and more than a sweep needs to say that a box is read."""
RECOUNT_SECONDS: Final = 5.0
"""How old the number of reply boxes may be. Counting them takes milliseconds, which nobody shall
cause with each request; nodes may exceed the bound by what they add in that time."""


class DeviceMailbox(NamedTuple):
    """The mailbox of one device of an account."""

    username: str
    device_id: int

    @property
    def key(self) -> bytes:
        """Return the bytes under which a backend stores it."""
        return b"\x01" + self.device_id.to_bytes(2) + self.username.encode("ascii")

    @property
    def capacity(self) -> Capacity:
        """Return what it may hold."""
        return DEVICE_CAPACITY


class BoxMailbox(NamedTuple):
    """A reply box. Who knows the key it was made from may read it; who knows the box may write."""

    box: bytes

    @classmethod
    def of_key(cls, key: bytes) -> Self:
        """Return the box that belongs to a 32-byte key."""
        return cls(hashlib.sha256(labelled("box", key)).digest())

    @property
    def key(self) -> bytes:
        """Return the bytes under which a backend stores it."""
        return b"\x02" + self.box

    @property
    def capacity(self) -> Capacity:
        """Return what it may hold."""
        return BOX_CAPACITY


MailboxName = DeviceMailbox | BoxMailbox


def mailbox_of(recipient: AccountRecipient | BoxRecipient) -> MailboxName:
    """Return where an envelope for ``recipient`` goes, if that exists."""
    match recipient:
        case AccountRecipient():
            return DeviceMailbox(or_nobody(recipient.username), recipient.device_id)
        case BoxRecipient():
            return BoxMailbox(recipient.box)


@dataclass(frozen=True, slots=True)
class Mail:
    """One stored envelope; ``row`` orders and names it inside the relay and never leaves it."""

    row: int
    envelope: bytes


@unique
class Stored(Enum):
    """What became of an envelope. The sender sees a difference only for FULL."""

    NEW = auto()
    AGAIN = auto()
    REFUSED = auto()
    FULL = auto()


def outcome_without_room(
    capacity: Capacity,
    held: Load | None,
    more: Load,
    *,
    is_known: bool,
    shows_token: bool,
    takes_strangers: bool = True,
) -> Stored | None:
    """Return what becomes of envelopes that are not stored; None: there is room for all of them.

    ``held`` is what is in a mailbox that would take them, if there is one; ``is_known`` says
    whether they show a token that is good, or need none. A store that is nearly full takes no
    strangers.
    """
    if held is None:
        return Stored.REFUSED
    if not capacity.has_room(held, more):
        return Stored.FULL
    if is_known or (takes_strangers and capacity.of_strangers.has_room(held, more)):
        return None
    # WIRE-57 MUST: who shows a token is answered as if it were good.
    return Stored.REFUSED if shows_token else Stored.FULL
