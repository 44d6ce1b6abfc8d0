"""Mailboxes in SQLite (spec/wire.md, Mailboxes).

The inner functions run in the writer's thread, each as one transaction.
"""

import sqlite3
import time
from collections.abc import Iterable
from typing import Final

from relay.errors import RefusedError
from relay.io.memory import MemoryPresence
from relay.io.tails import Tails
from relay.io.writer import Writer
from relay.services.delivery import Claim
from relay.services.mailbox import (
    BOX_GRACE,
    BOX_IDLE_LIFETIME,
    MAIL_LIFETIME,
    MAX_BOXES,
    MAX_TRIES,
    RECOUNT_SECONDS,
    TOMBSTONE_LIFETIME,
    BoxMailbox,
    Mail,
    MailboxName,
    Stored,
    outcome_without_room,
)
from relay.services.policy import admits
from relay.wire.messages import ErrorCode, Policy

SWEEP_BATCH: Final = 2000
"""Rows forgotten in one transaction, so that a sweep never holds the writer for long."""
OLDEST_BOXES: Final = 64
"""How many of them are looked at for one that may go."""
_NOWHERE: Final = 0

_DESTINATION: Final = """SELECT
    (SELECT policy FROM accounts WHERE username = :name),
    EXISTS (SELECT 1 FROM tokens WHERE username = :name AND hash = :shown),
    EXISTS (SELECT 1 FROM invitations
        WHERE username = :name AND hash = :shown AND expires > :now),
    EXISTS (SELECT 1 FROM devices WHERE username = :name AND device_id = :device),
    id, envelopes, bytes
    FROM (SELECT 1) LEFT JOIN mailboxes ON key = :key"""


_Place = tuple[int, int, int]
"""A mailbox: its id, and how many envelopes and bytes it holds."""


class SQLiteMailbox:
    """`relay.io.storage.Mailbox` in SQLite."""

    def __init__(
        self,
        writer: Writer,
        presence: MemoryPresence,
        tails: Tails,
        *,
        max_boxes: int = MAX_BOXES,
    ) -> None:
        self._writer = writer
        self._presence = presence
        self._tails = tails
        self._boxes = _Boxes(max_boxes)

    async def open_box(self, box: BoxMailbox, now: float) -> None:
        """Create a reply box, or keep it alive."""
        await self._writer.run(lambda db: _open_box(db, box, self._boxes, now))

    async def put(
        self,
        mailbox: MailboxName,
        message_id: bytes,
        envelope: bytes,
        shown: bytes | None,
        now: float,
        *,
        takes_strangers: bool = True,
    ) -> Stored:
        """Store an envelope once per message id."""
        stored, _ = await self._writer.run(
            lambda db: _put(
                db, mailbox, message_id, envelope, shown, now, takes_strangers=takes_strangers
            ),
            lambda put: self._came(mailbox, put[1], envelope),
            is_short=True,
        )
        return stored

    def _came(self, mailbox: MailboxName, row: int | None, envelope: bytes) -> None:
        if row is not None:
            self._tails.came(mailbox, Mail(row, envelope))

    async def read(self, claim: Claim, after: int, limit: int, now: float) -> list[Mail]:
        """Return the oldest envelopes after row ``after``."""
        mailbox = claim.mailbox
        found = self._tails.read(mailbox, after, limit) if after else None
        if found is None:
            found = await self._writer.run(
                lambda db: _read(db, mailbox, after, limit, now),
                lambda found: self._was_read(claim, after, limit, found),
                is_short=True,
            )
        self._presence.check(claim)  # afterwards: it may have changed while the query waited
        return found

    def _was_read(self, claim: Claim, after: int, limit: int, found: list[Mail]) -> None:
        if len(found) < limit and self._presence.holds(claim):
            self._tails.was_read(claim.mailbox, found[-1].row if found else after)

    async def count_set_aside(self, mailbox: MailboxName | None = None) -> int:
        """Return how many envelopes are set aside, of one mailbox or in all."""
        return await self._writer.run(lambda db: _count_set_aside(db, mailbox))

    async def remove(self, places: Iterable[tuple[MailboxName, int]], now: float) -> None:
        """Forget acknowledged envelopes."""
        wanted = list(places)
        await self._writer.run(lambda db: _remove(db, wanted, now), is_short=True)

    async def keep(self, now: float, in_use: Iterable[BoxMailbox]) -> None:
        """Note that boxes are in use."""
        keys = [box.key for box in in_use]
        for first in range(0, len(keys), SWEEP_BATCH):
            some = keys[first : first + SWEEP_BATCH]
            await self._writer.run(lambda db, some=some: _touch(db, some, now))  # type: ignore[misc]

    async def sweep(self, now: float) -> None:
        """Forget what is out of date."""
        while await self._writer.run(lambda db: _sweep(db, now)):
            pass


class _Boxes:
    """How many reply boxes there are, as of some seconds ago; only the writer's thread asks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counted = float("-inf")
        self.number = 0

    def are_too_many(self, db: sqlite3.Connection) -> bool:
        """Tell whether there is no room for another one."""
        if time.monotonic() - self._counted > RECOUNT_SECONDS:
            query = "SELECT count(*) FROM mailboxes WHERE is_box = 1"
            self.number = db.execute(query).fetchone()[0]
            self._counted = time.monotonic()
        return self.number >= self._most


def _open_box(db: sqlite3.Connection, box: BoxMailbox, boxes: _Boxes, now: float) -> None:
    if db.execute("UPDATE mailboxes SET touched = ? WHERE key = ?", (int(now), box.key)).rowcount:
        return
    if boxes.are_too_many(db):
        if not _drop_idle_box(db, now):
            raise RefusedError(ErrorCode.TOO_MANY, "too many reply boxes", retry_after=60)
        boxes.number -= 1
    db.execute("INSERT INTO mailboxes VALUES (NULL, ?, 1, 0, 0, ?)", (box.key, int(now)))
    boxes.number += 1


def _drop_idle_box(db: sqlite3.Connection, now: float) -> int:
    """Make room for a box; return how many that cost (WIRE-47)."""
    return db.execute(
        "DELETE FROM mailboxes WHERE id = (SELECT id FROM (SELECT id, envelopes FROM mailboxes"
        " WHERE is_box = 1 AND touched <= ? ORDER BY touched LIMIT ?) WHERE envelopes = 0 LIMIT 1)",
        (int(now) - BOX_GRACE, OLDEST_BOXES),
    ).rowcount


def _put(
    db: sqlite3.Connection,
    mailbox: MailboxName,
    message_id: bytes,
    envelope: bytes,
    shown: bytes | None,
    now: float,
    *,
    takes_strangers: bool,
) -> tuple[Stored, int | None]:
    """Return what became of an envelope, and its row if it is new."""
    place, is_known = _destination(db, mailbox, shown, now)
    outcome = outcome_without_room(
        mailbox.capacity,
        None if place is None else place[1:],
        len(envelope),
        is_known=is_known,
        shows_token=shown is not None,
        takes_strangers=takes_strangers,
    )
    if place is None or outcome is Stored.REFUSED:
        _store(db, _NOWHERE, message_id, envelope, now)
        db.execute("DELETE FROM mail WHERE mailbox = ?", (_NOWHERE,))
        return Stored.REFUSED, None
    if outcome is None:
        row = _store(db, place[0], message_id, envelope, now)
        return Stored.AGAIN if row is None else Stored.NEW, row
    known = db.execute(
        "SELECT 1 FROM mail WHERE mailbox = ? AND message_id = ?", (place[0], message_id)
    ).fetchone()
    return outcome if known is None else Stored.AGAIN, None


def _destination(
    db: sqlite3.Connection, mailbox: MailboxName, shown: bytes | None, now: float
) -> tuple[_Place | None, bool]:
    """Return the mailbox, if it takes this, and whether that is known by a token, or needs none."""
    if isinstance(mailbox, BoxMailbox):
        return _find(db, mailbox), True
    # WIRE-23 MUST: the same queries, whoever exists and whatever is accepted. They are one
    # statement because each costs a turn of the interpreter besides (spec/decisions/0028).
    policy, token, invitation, device, *found = db.execute(
        _DESTINATION,
        {
            "name": mailbox.username,
            "shown": shown or b"",
            "now": int(now),
            "device": mailbox.device_id,
            "key": mailbox.key,
        },
    ).fetchone()
    known, is_known = None if policy is None else Policy(policy), bool(token or invitation)
    if not device or not admits(known, knows_token=is_known):
        return None, is_known
    if found[0] is not None:
        return (found[0], found[1], found[2]), is_known
    db.execute("INSERT INTO mailboxes VALUES (NULL, ?, 0, 0, 0, ?)", (mailbox.key, int(now)))
    return _find(db, mailbox), is_known


def _find(db: sqlite3.Connection, mailbox: MailboxName) -> _Place | None:
    found: _Place | None = db.execute(
        "SELECT id, envelopes, bytes FROM mailboxes WHERE key = ?", (mailbox.key,)
    ).fetchone()
    return found


def _store(
    db: sqlite3.Connection, number: int, message_id: bytes, envelope: bytes, now: float
) -> int | None:
    """Store an envelope, unless one with this message id is there; return the row of a new one."""
    done = db.execute(
        "INSERT INTO mail (mailbox, message_id, envelope, expires) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (mailbox, message_id) DO NOTHING",
        (number, message_id, envelope, int(now) + MAIL_LIFETIME),
    )
    if not done.rowcount:
        return None
    if number != _NOWHERE:
        db.execute(
            "UPDATE mailboxes SET envelopes = envelopes + 1, bytes = bytes + ?, touched = ?"
            " WHERE id = ?",
            (len(envelope), int(now), number),
        )
    return done.lastrowid


def _read(
    db: sqlite3.Connection, mailbox: MailboxName, after: int, limit: int, now: float
) -> list[Mail]:
    rows = db.execute(
        "SELECT row, envelope FROM mail WHERE mailbox = (SELECT id FROM mailboxes WHERE key = ?)"
        " AND envelope IS NOT NULL AND row > ? AND expires > ? AND tries < ? ORDER BY row LIMIT ?",
        (mailbox.key, after, int(now), MAX_TRIES, limit),
    ).fetchall()
    if after == 0 and rows:
        db.execute("UPDATE mail SET tries = tries + 1 WHERE row = ?", (rows[0][0],))
    return [Mail(row, envelope) for row, envelope in rows]


def _count_set_aside(db: sqlite3.Connection, mailbox: MailboxName | None) -> int:
    # As the index is, whose condition is a number: `MAX_TRIES`.
    statement = "SELECT count(*) FROM mail WHERE tries >= 5 AND envelope IS NOT NULL"
    if mailbox is None:
        found = db.execute(statement).fetchone()
    else:
        place = " AND mailbox = (SELECT id FROM mailboxes WHERE key = ?)"
        found = db.execute(statement + place, (mailbox.key,)).fetchone()
    assert found is not None
    return int(found[0])


def _remove(db: sqlite3.Connection, places: Iterable[tuple[MailboxName, int]], now: float) -> None:
    for mailbox, row in places:
        found = db.execute(
            "SELECT mailbox, length(envelope) FROM mail JOIN mailboxes ON id = mailbox"
            " WHERE row = ? AND key = ? AND envelope IS NOT NULL",
            (row, mailbox.key),
        ).fetchone()
        if found is None:
            continue
        db.execute(
            "UPDATE mail SET envelope = NULL, expires = ? WHERE row = ?",
            (int(now) + TOMBSTONE_LIFETIME, row),
        )
        _release(db, found[0], 1, found[1])


def _release(db: sqlite3.Connection, number: int, envelopes: int, size: int) -> None:
    db.execute(
        "UPDATE mailboxes SET envelopes = envelopes - ?, bytes = bytes - ? WHERE id = ?",
        (envelopes, size, number),
    )


def _touch(db: sqlite3.Connection, keys: list[bytes], now: float) -> None:
    statement = "UPDATE mailboxes SET touched = ? WHERE key = ?"
    db.executemany(statement, ((int(now), key) for key in keys))


def _sweep(db: sqlite3.Connection, now: float) -> int:
    """Forget one batch; return how many rows it had."""
    expired = db.execute(
        "SELECT row, mailbox, envelope IS NOT NULL, coalesce(length(envelope), 0) FROM mail"
        " WHERE expires <= ? LIMIT ?",
        (int(now), SWEEP_BATCH),
    ).fetchall()
    for row, number, waiting, size in expired:
        db.execute("DELETE FROM mail WHERE row = ?", (row,))
        if waiting:
            _release(db, number, 1, size)
    boxes = db.execute(
        "DELETE FROM mailboxes WHERE id IN (SELECT id FROM mailboxes"
        " WHERE is_box = 1 AND touched <= ? LIMIT ?)",
        (int(now) - BOX_IDLE_LIFETIME, SWEEP_BATCH),
    ).rowcount
    prekeys = db.execute(
        "DELETE FROM prekeys WHERE rowid IN (SELECT rowid FROM prekeys WHERE expires <= ? LIMIT ?)",
        (int(now), SWEEP_BATCH),
    ).rowcount
    for table in ("codes", "invitations"):  # few, and without an index of their own
        db.execute(f"DELETE FROM {table} WHERE expires <= ?", (int(now),))  # noqa: S608 - our names
    return len(expired) + boxes + prekeys
