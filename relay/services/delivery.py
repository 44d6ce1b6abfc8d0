"""Handing out mail: what a connection reads, and who reads here (spec/wire.md, Delivery).

Delivery ids are numbers of one connection: two deliveries tell a client nothing about how much
mail others get, and an acknowledgement can only name what this connection was given. It stores
nothing: mail stays in its mailbox until it is acknowledged.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from relay.services.mailbox import BoxMailbox, Mail, MailboxName
from relay.wire.messages import Deliver

WINDOW: Final = 32
"""Deliveries out and unacknowledged on one connection: at most 1.3 MB of envelopes."""
BATCH: Final = 8
"""Envelopes read from storage at once, which bounds what a slow reader makes the relay hold."""
MAX_MAILBOXES: Final = 9
"""Mailboxes that one connection may read: its device's and eight reply boxes."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read up to ``limit`` mails of ``mailbox`` that came after row ``after``."""

    mailbox: MailboxName
    after: int
    limit: int


class DeliveryQueue:
    """What one connection is due. Feed it hints, fetched mail and acknowledgements."""

    __slots__ = ("_next_id", "_out", "_position", "_tried", "_waiting")

    def __init__(self) -> None:
        self._position: dict[MailboxName, int] = {}
        self._waiting: deque[MailboxName] = deque()
        self._out: dict[int, tuple[MailboxName, int]] = {}
        self._tried: dict[MailboxName, int] = {}
        self._next_id = 1

    @property
    def mailboxes(self) -> Collection[MailboxName]:
        """Return what this connection reads."""
        return self._position.keys()

    @property
    def unacknowledged(self) -> int:
        """Return how many deliveries are out."""
        return len(self._out)

    @property
    def tried(self) -> list[tuple[MailboxName, int]]:
        """Return what counts as tried (WIRE-37): first of its mailbox, and not acknowledged."""
        return list(self._tried.items())

    @property
    def is_full(self) -> bool:
        """Tell whether another mailbox would be too many."""
        return len(self._position) >= MAX_MAILBOXES

    def attach(self, mailbox: MailboxName) -> None:
        """Begin to read a mailbox from its oldest mail."""
        if mailbox not in self._position:
            self._position[mailbox] = 0
            self.hint(mailbox)

    def detach(self, mailbox: MailboxName) -> None:
        """Stop reading a mailbox: another connection reads it now, or it is gone."""
        self._position.pop(mailbox, None)
        if mailbox in self._waiting:
            self._waiting.remove(mailbox)
        self._out = {key: value for key, value in self._out.items() if value[0] != mailbox}

    def hint(self, mailbox: MailboxName) -> None:
        """Note that a mailbox may have new mail. A lost hint costs time, never mail."""
        if mailbox in self._position and mailbox not in self._waiting:
            self._waiting.append(mailbox)

    @property
    def is_due(self) -> bool:
        """Tell whether there is something to read, and room for it."""
        return bool(self._waiting) and len(self._out) < WINDOW

    def next_fetch(self) -> Fetch | None:
        """Return what to read next; None where nothing `is_due`."""
        if not self.is_due:
            return None
        mailbox = self._waiting.popleft()
        return Fetch(mailbox, self._position[mailbox], min(WINDOW - len(self._out), BATCH))

    def fetched(self, fetch: Fetch, mails: list[Mail]) -> list[Deliver]:
        """Return the pushes for what was read; a full batch means that there may be more."""
        if self._position.get(fetch.mailbox) != fetch.after:
            return []  # lost meanwhile, and maybe opened anew: it is read from the start
        if len(mails) == fetch.limit:
            self.hint(fetch.mailbox)
        pushes = []
        box = fetch.mailbox.box if isinstance(fetch.mailbox, BoxMailbox) else None
        if fetch.after == 0 and mails:
            self._tried[fetch.mailbox] = mails[0].row
        for mail in mails:
            self._position[fetch.mailbox] = mail.row
            self._out[self._next_id] = (fetch.mailbox, mail.row)
            pushes.append(Deliver(self._next_id, box, mail.envelope))
            self._next_id += 1
        return pushes

    def places(self, delivery_ids: Iterable[int]) -> list[tuple[MailboxName, int]]:
        """Return which rows these deliveries are. Unknown ids name nothing and are skipped."""
        return [self._out[known] for known in dict.fromkeys(delivery_ids) if known in self._out]

    def acknowledged(self, delivery_ids: Iterable[int]) -> None:
        """Make room: the rows of these deliveries are forgotten."""
        for delivery_id in delivery_ids:
            place = self._out.pop(delivery_id, None)
            if place is not None and self._tried.get(place[0]) == place[1]:
                del self._tried[place[0]]


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to read a mailbox. A later claim has a higher epoch and fences this one off."""

    mailbox: MailboxName
    epoch: int


class Reader(Protocol):
    """A connection that reads mailboxes."""

    def hint(self, mailbox: MailboxName) -> None:
        """Learn that a mailbox has new mail."""

    def lost(self, mailbox: MailboxName) -> None:
        """Learn that another connection reads a mailbox now, or that it is gone."""

    def expired(self, mailbox: MailboxName) -> None:
        """Learn that the claim is gone and nobody took it: this node was taken for dead."""

    def low(self) -> None:
        """Learn that the one-time prekeys of this device run out."""


class Readers:
    """Which connection of this node reads which mailbox: at most one, the latest."""

    __slots__ = ("_readers",)

    def __init__(self) -> None:
        self._readers: dict[MailboxName, tuple[Claim, Reader]] = {}

    def attach(self, claim: Claim, reader: Reader) -> None:
        """Make ``reader`` the one reader of a mailbox here, unless a later claim came first.

        Then the first read of ``reader`` is refused (`relay.io.storage.Mailbox.read`).
        """
        self.lost(claim.mailbox, claim.epoch)
        self._readers.setdefault(claim.mailbox, (claim, reader))

    def detach(self, mailbox: MailboxName, reader: Reader) -> None:
        """Forget a reader that went away, unless another took its place."""
        found = self._readers.get(mailbox)
        if found is not None and found[1] is reader:
            del self._readers[mailbox]

    def lost(self, mailbox: MailboxName, epoch: int | None = None) -> None:
        """Tell the reader of a mailbox that its claim from before ``epoch``, if given, is lost."""
        found = self._readers.get(mailbox)
        if found is not None and (epoch is None or found[0].epoch < epoch):
            del self._readers[mailbox]
            found[1].lost(mailbox)

    def expired(self, claim: Claim) -> None:
        """Tell the reader that holds exactly this claim that it is gone."""
        found = self._readers.get(claim.mailbox)
        if found is not None and found[0] == claim:
            del self._readers[claim.mailbox]
            found[1].expired(claim.mailbox)

    def hint(self, mailbox: MailboxName) -> bool:
        """Tell the reader of a mailbox that mail came; return whether there is one here."""
        found = self._readers.get(mailbox)
        if found is None:
            return False
        found[1].hint(mailbox)
        return True

    def low(self, mailbox: MailboxName) -> bool:
        """Tell a device that its prekeys run out; return whether it is connected here."""
        found = self._readers.get(mailbox)
        if found is None:
            return False
        found[1].low()
        return True

    def __contains__(self, mailbox: MailboxName) -> bool:
        return mailbox in self._readers

    def claims(self) -> list[Claim]:
        """Return what is read here."""
        return [claim for claim, _ in self._readers.values()]

    def boxes(self) -> list[BoxMailbox]:
        """Return the reply boxes that somebody reads here."""
        return [name for name in self._readers if isinstance(name, BoxMailbox)]
