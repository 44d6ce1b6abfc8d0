"""Mailboxes in SQLite (spec/wire.md, Mailboxes).

The inner functions run in the writer's thread, each as one transaction.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Final

from relay.errors import RefusedError
from relay.io.memory import MemoryPresence
from relay.io.shelf import Place, Put, put
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
    Letter,
    Load,
    Mail,
    MailboxName,
    Stored,
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
        letters: Sequence[Letter],
        shown: bytes | None,
        now: float,
        *,
        takes_strangers: bool = True,
    ) -> list[Stored]:
        """Store envelopes, each once per message id."""
        done = await self._writer.run(
            lambda db: put(
                _Shelf(db), mailbox, letters, shown, now, takes_strangers=takes_strangers
            ),
            lambda done: self._came(mailbox, letters, done),
            pieces=len(letters),
        )
        return [one.stored for one in done]

    def _came(self, mailbox: MailboxName, letters: Sequence[Letter], done: list[Put]) -> None:
        for letter, one in zip(letters, done, strict=True):
            if one.row is not None:
                self._tails.came(mailbox, Mail(one.row, letter.envelope))

    async def read(self, claim: Claim, after: int, limit: int, now: float) -> list[Mail]:
        """Return the oldest envelopes after row ``after``."""
        mailbox = claim.mailbox
        found = self._tails.read(mailbox, after, limit) if after else None
        if found is None:
            found = await self._writer.run(
                lambda db: _read(db, mailbox, after, limit, now),
                lambda found: self._was_read(claim, after, limit, found),
                pieces=1,
            )
        self._presence.check(claim)  # afterwards: it may have changed while the query waited
        return found

    def take_only(self, claim: Claim, after: int) -> Mail | None:
        """Return the only envelope after row ``after``, if it is in memory."""
        if not after or not self._presence.holds(claim):
            return None
        return self._tails.take_only(claim.mailbox, after)

    def _was_read(self, claim: Claim, after: int, limit: int, found: list[Mail]) -> None:
        if len(found) < limit and self._presence.holds(claim):
            self._tails.was_read(claim.mailbox, found[-1].row if found else after)

    async def count_set_aside(self, mailbox: MailboxName | None = None) -> int:
        """Return how many envelopes are set aside, of one mailbox or in all."""
        return await self._writer.run(lambda db: _count_set_aside(db, mailbox))

    async def untry(self, places: Iterable[tuple[MailboxName, int]]) -> None:
        """Take a try back."""
        rows = [(row,) for _, row in places]
        statement = "UPDATE mail SET tries = tries - 1 WHERE row = ? AND tries > 0"
        await self._writer.run(lambda db: db.executemany(statement, rows))

    async def remove(self, places: Iterable[tuple[MailboxName, int]], now: float) -> None:
        """Forget acknowledged envelopes."""
        wanted = list(places)
        if not wanted:
            return
        await self._writer.run(
            lambda db: _remove(db, wanted, now), pieces=len(wanted), is_first=True
        )

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


class _Shelf:
    """`relay.io.shelf.Shelf` of one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def destination(
        self, mailbox: MailboxName, shown: bytes | None, now: float
    ) -> tuple[Place | None, bool]:
        """Return the mailbox, if it takes this, and whether a token is good or none is needed."""
        if isinstance(mailbox, BoxMailbox):
            return self._find(mailbox), True
        # They are one statement because each costs a turn of the interpreter besides
        # (spec/decisions/0028).
        policy, token, invitation, device, *found = self._db.execute(
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
            return _place(*found), is_known
        # STORAGE-17 MUST: without a time.
        self._db.execute("INSERT INTO mailboxes VALUES (NULL, ?, 0, 0, 0, 0)", (mailbox.key,))
        return self._find(mailbox), is_known

    def store(self, place: Place, letters: Sequence[Letter], now: float) -> list[int | None]:
        """Store what is not there yet; return the rows of what is new."""
        rows = self._insert(place.number, letters, now)
        new = Load.of([letter for letter, row in zip(letters, rows, strict=True) if row])
        if new.envelopes:
            self._db.execute(
                "UPDATE mailboxes SET envelopes = envelopes + ?, bytes = bytes + ?,"
                " touched = CASE WHEN is_box = 1 THEN ? ELSE 0 END WHERE id = ?",
                (*new, int(now), place.number),
            )
        return rows

    def store_nowhere(self, letters: Sequence[Letter], now: float) -> None:
        """Write as `store` does, and leave nothing."""
        self._insert(_NOWHERE, letters, now)
        self._db.execute("DELETE FROM mail WHERE mailbox = ?", (_NOWHERE,))

    def knows(self, place: Place, message_id: bytes) -> bool:
        """Tell whether an envelope with this id is there, or was."""
        known = self._db.execute(
            "SELECT 1 FROM mail WHERE mailbox = ? AND message_id = ?", (place.number, message_id)
        ).fetchone()
        return known is not None

    def _find(self, mailbox: MailboxName) -> Place | None:
        found = self._db.execute(
            "SELECT id, envelopes, bytes FROM mailboxes WHERE key = ?", (mailbox.key,)
        ).fetchone()
        return None if found is None else _place(*found)

    def _insert(self, number: int, letters: Sequence[Letter], now: float) -> list[int | None]:
        rows = []
        for letter in letters:
            done = self._db.execute(
                "INSERT INTO mail (mailbox, message_id, envelope, expires) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (mailbox, message_id) DO NOTHING",
                (number, *letter, int(now) + MAIL_LIFETIME),
            )
            rows.append(done.lastrowid if done.rowcount else None)
        return rows


def _place(number: int, envelopes: int, total_bytes: int) -> Place:
    return Place(number, Load(envelopes, total_bytes))


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
    rows: dict[MailboxName, list[int]] = {}
    for mailbox, row in places:
        rows.setdefault(mailbox, []).append(row)
    for mailbox, numbers in rows.items():
        found = db.execute(
            "SELECT row, mailbox, message_id, length(envelope)"  # noqa: S608 - question marks
            " FROM mail JOIN mailboxes ON id = mailbox"
            f" WHERE row IN ({','.join('?' * len(numbers))}) AND key = ? AND envelope IS NOT NULL",
            (*numbers, mailbox.key),
        ).fetchall()
        if not found:
            continue
        expires = int(now) + TOMBSTONE_LIFETIME
        # Not an UPDATE: SQLite joins pages where rows are deleted. Where they shrink it leaves
        # three to a page, 1 KB for each, while the id is remembered (spec/decisions/0049).
        db.executemany("DELETE FROM mail WHERE row = ?", [(row,) for row, *_ in found])
        db.executemany(
            "INSERT INTO mail (row, mailbox, message_id, envelope, expires)"
            " VALUES (?, ?, ?, NULL, ?)",
            [(row, place, message_id, expires) for row, place, message_id, _ in found],
        )
        _release(db, found[0][1], len(found), sum(size for *_, size in found))


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
