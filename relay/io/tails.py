"""The newest mail of mailboxes that somebody reads, held in memory (spec/decisions/0048).

Most mail comes for a reader that has taken everything before it, and need not be read back from
the file to which it has just been written. What is held is a copy of what is stored: it may be
forgotten at any time, and a query finds the same.

Whoever uses it tells it everything in the order in which the storage did it.
"""

from dataclasses import dataclass, field
from typing import Final

from relay.services.delivery import BATCH
from relay.services.mailbox import Mail, MailboxName

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of envelopes, of all mailboxes together."""


@dataclass(slots=True)
class _Tail:
    """All mail of a mailbox that came after row ``after``."""

    after: int
    mails: list[Mail] = field(default_factory=list)


class Tails:
    """What came for mailboxes since their readers had read everything."""

    __slots__ = ("_bytes", "_tails")

    def __init__(self) -> None:
        self._tails: dict[MailboxName, _Tail] = {}
        self._bytes = 0

    def read(self, mailbox: MailboxName, after: int, limit: int) -> list[Mail] | None:
        """Return the mail after row ``after``, and forget it; None where that is not known here."""
        tail = self._tails.get(mailbox)
        if tail is None or after < tail.after:
            return None
        found = [mail for mail in tail.mails if mail.row > after]
        self._set(tail, found[limit:])
        tail.after = found[:limit][-1].row if found else max(after, tail.after)
        return found[:limit]

    def take_only(self, mailbox: MailboxName, after: int) -> Mail | None:
        """Return the mail after row ``after``, and forget it, if there is one and no more."""
        tail = self._tails.get(mailbox)
        if tail is None or after != tail.after or len(tail.mails) != 1:
            return None
        (mail,) = tail.mails
        self._set(tail, [])
        tail.after = mail.row
        return mail

    def was_read(self, mailbox: MailboxName, after: int) -> None:
        """Note that there is nothing after row ``after``."""
        self.forget(mailbox)
        self._tails[mailbox] = _Tail(after)

    def came(self, mailbox: MailboxName, mail: Mail) -> None:
        """Note that an envelope was stored."""
        tail = self._tails.get(mailbox)
        if tail is None:
            return
        if len(tail.mails) >= BATCH:
            self.forget(mailbox)  # its reader is slow
            return
        if self._bytes + len(mail.envelope) > MAX_BYTES:
            self._tails.clear()
            self._bytes = 0
            return
        tail.mails.append(mail)
        self._bytes += len(mail.envelope)

    def forget(self, mailbox: MailboxName) -> None:
        """Know nothing of a mailbox any more."""
        tail = self._tails.pop(mailbox, None)
        if tail is not None:
            self._set(tail, [])

    def _set(self, tail: _Tail, mails: list[Mail]) -> None:
        self._bytes += sum(len(mail.envelope) for mail in mails)
        self._bytes -= sum(len(mail.envelope) for mail in tail.mails)
        tail.mails = mails
