"""Presence, bus and limiter of a single node: in memory (spec/wire.md, Storage).

For backends that only one process uses. What it holds ends with the process, and so do the
connections that it is about.
"""

from collections.abc import Iterable

from relay.errors import FencedError
from relay.io.tails import Tails
from relay.services import quota
from relay.services.delivery import Claim, Readers
from relay.services.mailbox import DeviceMailbox, MailboxName
from relay.services.quota import Rate


class MemoryPresence:
    """`relay.io.storage.Presence` of one node."""

    def __init__(self, readers: Readers, tails: Tails) -> None:
        self._readers = readers
        self._tails = tails
        """Of mailboxes that are read, and of no others."""
        self._epochs: dict[MailboxName, int] = {}
        self._newest = 0

    async def claim(self, mailbox: MailboxName) -> Claim:
        """Become the one reader of a mailbox."""
        self._newest += 1
        self._epochs[mailbox] = self._newest
        self._tails.forget(mailbox)
        self._readers.lost(mailbox, self._newest)
        return Claim(mailbox, self._newest)

    async def release(self, claims: Iterable[Claim]) -> None:
        """Give claims back."""
        for claim in claims:
            if self._epochs.get(claim.mailbox) == claim.epoch:
                del self._epochs[claim.mailbox]
                self._tails.forget(claim.mailbox)

    async def evict(self, mailbox: MailboxName) -> None:
        """End every claim on a mailbox."""
        self._epochs.pop(mailbox, None)
        self._tails.forget(mailbox)
        self._readers.lost(mailbox)

    def holds(self, claim: Claim) -> bool:
        """Tell whether a claim holds."""
        return self._epochs.get(claim.mailbox) == claim.epoch

    def check(self, claim: Claim) -> None:
        """Return if a claim holds.

        Raises:
            FencedError: it does not.
        """
        # STORAGE-05 MUST: a displaced reader is given nothing any more.
        if not self.holds(claim):
            raise FencedError(is_taken=True)


class MemoryBus:
    """`relay.io.storage.Bus` of one node."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    def hint(self, mailbox: MailboxName) -> None:
        """Tell the reader of a mailbox that mail came."""
        self._readers.hint(mailbox)

    def low(self, mailbox: DeviceMailbox) -> None:
        """Tell a device that its one-time prekeys run out."""
        self._readers.low(mailbox)


class MemoryLimiter:
    """`relay.io.storage.Limiter` of one node."""

    def __init__(self, rate: Rate) -> None:
        self._limiter = quota.Limiter(rate)

    async def take(self, key: str, now: float) -> None:
        """Count one use."""
        self._limiter.take(key, now)

    def forget(self, now: float) -> None:
        """Drop what is not needed any more."""
        self._limiter.forget(now)
