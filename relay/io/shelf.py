"""Putting envelopes into a mailbox, alike in every backend (spec/wire.md, Mailboxes).

The order of what is asked and written; the queries are each backend's own. It opens no transaction:
a `Shelf` is one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from relay.services.mailbox import Letter, Load, MailboxName, Stored, outcome_without_room


class Place(NamedTuple):
    """A mailbox by its number, and what it holds."""

    number: int
    held: Load


class Put(NamedTuple):
    """What became of an envelope, and its row where it is new."""

    stored: Stored
    row: int | None = None


class Shelf(Protocol):
    """A transaction in which mail is stored."""

    def destination(
        self, mailbox: MailboxName, shown: bytes | None, now: float
    ) -> tuple[Place | None, bool]:
        """Return the mailbox, if it takes this, and whether that is known by a token or needs none.

        WIRE-23 MUST: with the same queries, whoever exists and whatever is accepted.
        """

    def store(self, place: Place, letters: Sequence[Letter], now: float) -> list[int | None]:
        """Store what is not there yet; return the rows of what is new."""

    def store_nowhere(self, letters: Sequence[Letter], now: float) -> None:
        """Write as `store` does, and leave nothing."""

    def knows(self, place: Place, message_id: bytes) -> bool:
        """Tell whether an envelope with this id is there, or was."""


def put(
    shelf: Shelf,
    mailbox: MailboxName,
    letters: Sequence[Letter],
    shown: bytes | None,
    now: float,
    *,
    takes_strangers: bool,
) -> list[Put]:
    """Store envelopes one after the other; return what became of each."""
    place, is_known = shelf.destination(mailbox, shown, now)
    outcome = outcome_without_room(
        mailbox.capacity,
        None if place is None else place.held,
        Load.of(letters),
        is_known=is_known,
        shows_token=shown is not None,
        takes_strangers=takes_strangers,
    )
    if place is not None and outcome is None:
        rows = shelf.store(place, letters, now)
        return [Put(Stored.AGAIN if row is None else Stored.NEW, row) for row in rows]
    if place is not None and len(letters) > 1:
        # There is no room for all of them; there may be for some.
        return [
            found
            for letter in letters
            for found in put(shelf, mailbox, [letter], shown, now, takes_strangers=takes_strangers)
        ]
    if place is None or outcome is not Stored.FULL:
        shelf.store_nowhere(letters, now)
        return [Put(Stored.REFUSED)] * len(letters)
    return [Put(Stored.AGAIN if shelf.knows(place, letters[0].message_id) else Stored.FULL)]
