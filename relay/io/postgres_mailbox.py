"""Mailboxes in PostgreSQL (spec/wire.md, Mailboxes).

The inner functions run in one transaction each. Whoever changes a mailbox locks its row first: so
its rows become visible in their order (STORAGE-03), and its counts are right.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from relay.errors import FencedError, RefusedError
from relay.io.postgres_pool import Cursor, Pool
from relay.io.shelf import Place, put
from relay.io.sqlite_mailbox import OLDEST_BOXES
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

SWEEP_BATCH: Final = 500
"""Mailboxes, or other rows, that one transaction of a sweep changes."""
SWEEP_ROWS: Final = 5000
"""Envelopes that one transaction of a sweep forgets: far from what takes as long as it may."""
TOUCH_BATCH: Final = 2000
"""Boxes in use that one transaction of a sweep keeps alive."""
_NOWHERE: Final = 0

_DESTINATION: Final = """WITH who AS (
    SELECT (SELECT policy FROM accounts WHERE username = %(name)s) AS policy,
        EXISTS (SELECT 1 FROM tokens WHERE username = %(name)s AND hash = %(shown)s)
        OR EXISTS (SELECT 1 FROM invitations
            WHERE username = %(name)s AND hash = %(shown)s AND expires > %(now)s) AS knows
), device AS (
    SELECT 1 AS found FROM devices WHERE username = %(name)s AND device_id = %(device)s
        AND (SELECT policy = %(everyone)s OR (policy = %(contacts)s AND knows) FROM who)
    FOR KEY SHARE
), place AS (
    SELECT id, envelopes, bytes FROM mailboxes WHERE key = %(key)s
        AND EXISTS (SELECT 1 FROM device) FOR NO KEY UPDATE
)
SELECT policy, knows, (SELECT found FROM device), id, envelopes, bytes
    FROM who LEFT JOIN place ON true"""
"""The device is locked, so that its removal waits and then removes this mail too. WIRE-23: not
where the envelope is refused, as a lock writes to the row, and waits for whoever changes it."""


class PostgresMailbox:
    """`relay.io.storage.Mailbox` in PostgreSQL."""

    def __init__(self, pool: Pool, *, max_boxes: int = MAX_BOXES) -> None:
        self._pool = pool
        self._max_boxes = max_boxes
        self._boxes = 0
        self._counted = float("-inf")

    async def open_box(self, box: BoxMailbox, now: float) -> None:
        """Create a reply box, or keep it alive."""
        if await self._pool.run(lambda db: _touch(db, [box.key], now)):
            return
        if time.monotonic() - self._counted > RECOUNT_SECONDS:
            self._boxes = await self._pool.run(_count_boxes)
            self._counted = time.monotonic()
        if self._boxes >= self._max_boxes:
            if not await self._pool.run(lambda db: _drop_idle_box(db, now)):
                raise RefusedError(ErrorCode.TOO_MANY, "too many reply boxes", retry_after=60)
            self._boxes -= 1
        self._boxes += 1
        await self._pool.run(lambda db: _create(db, box, now))

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
        done = await self._pool.run(
            lambda db: put(
                _Shelf(db), mailbox, letters, shown, now, takes_strangers=takes_strangers
            )
        )
        return [one.stored for one in done]

    async def read(self, claim: Claim, after: int, limit: int, now: float) -> list[Mail]:
        """Return the oldest envelopes after row ``after``."""
        return await self._pool.run(lambda db: _read(db, claim, after, limit, now), apart=True)

    def take_only(self, _claim: Claim, _after: int) -> Mail | None:
        """Return None: other nodes store here, too, so nothing is known without a query."""
        return None

    async def count_set_aside(self, mailbox: MailboxName | None = None) -> int:
        """Return how many envelopes are set aside, of one mailbox or in all."""
        return await self._pool.run(lambda db: _count_set_aside(db, mailbox))

    async def untry(self, places: Iterable[tuple[MailboxName, int]]) -> None:
        """Take a try back."""
        rows = [row for _, row in places]
        statement = "UPDATE mail SET tries = tries - 1 WHERE row = ANY(%s) AND tries > 0"
        await self._pool.run(lambda db: db.execute(statement, (rows,)), apart=True)

    async def remove(self, places: Iterable[tuple[MailboxName, int]], now: float) -> None:
        """Forget acknowledged envelopes."""
        rows: dict[bytes, list[int]] = {}
        for mailbox, row in places:
            rows.setdefault(mailbox.key, []).append(row)
        if rows:
            await self._pool.run(lambda db: _remove(db, rows, now))

    async def keep(self, now: float, in_use: Iterable[BoxMailbox]) -> None:
        """Note that boxes are in use."""
        keys = [box.key for box in in_use]
        for first in range(0, len(keys), TOUCH_BATCH):
            some = keys[first : first + TOUCH_BATCH]
            await self._pool.run(lambda db, some=some: _touch(db, some, now))  # type: ignore[misc]

    async def sweep(self, now: float) -> None:
        """Forget what is out of date."""
        await self._pool.run(lambda db: _sweep_invited(db, now))
        for step in (_sweep_mail, _sweep_boxes, _sweep_prekeys, _sweep_rates):
            while await self._pool.run(lambda db, step=step: step(db, now)):  # type: ignore[misc]
                pass


def _count_boxes(db: Cursor) -> int:
    found = db.execute("SELECT count(*) FROM mailboxes WHERE is_box").fetchone()
    assert found is not None
    return int(found[0])


def _drop_idle_box(db: Cursor, now: float) -> int:
    """Make room for a box; return how many that cost (WIRE-47)."""
    return db.execute(
        "DELETE FROM mailboxes WHERE id = (SELECT id FROM mailboxes WHERE envelopes = 0"
        " AND id IN (SELECT id FROM mailboxes WHERE is_box AND touched <= %s"
        " ORDER BY touched LIMIT %s) LIMIT 1 FOR UPDATE SKIP LOCKED)",
        (int(now) - BOX_GRACE, OLDEST_BOXES),
    ).rowcount


def _create(db: Cursor, box: BoxMailbox, now: float) -> None:
    db.execute(
        "INSERT INTO mailboxes (key, is_box, envelopes, bytes, touched)"
        " VALUES (%s, true, 0, 0, %s) ON CONFLICT DO NOTHING",
        (box.key, int(now)),
    )


def _touch(db: Cursor, keys: list[bytes], now: float) -> int:
    # In one order everywhere, so that two nodes do not wait for each other.
    return db.execute(
        "UPDATE mailboxes SET touched = %s WHERE id IN (SELECT id FROM mailboxes"
        " WHERE key = ANY(%s::bytea[]) ORDER BY id FOR NO KEY UPDATE)",
        (int(now), keys),
    ).rowcount


class _Shelf:
    """`relay.io.shelf.Shelf` of one transaction."""

    def __init__(self, db: Cursor) -> None:
        self._db = db

    def destination(
        self, mailbox: MailboxName, shown: bytes | None, now: float
    ) -> tuple[Place | None, bool]:
        """Lock the mailbox, if it takes this; say whether a token is good or none is needed."""
        if isinstance(mailbox, BoxMailbox):
            return self._lock(mailbox), True
        row = self._db.execute(
            _DESTINATION,
            {
                "name": mailbox.username,
                "shown": shown or b"",
                "now": int(now),
                "device": mailbox.device_id,
                "key": mailbox.key,
                "everyone": int(Policy.EVERYONE),
                "contacts": int(Policy.CONTACTS),
            },
        ).fetchone()
        assert row is not None
        policy, knows, device, *found = row
        known = None if policy is None else Policy(policy)
        if device is None or not admits(known, knows_token=knows):
            return None, knows
        if found[0] is not None:
            return _place(*found), knows
        # STORAGE-17 MUST: without a time.
        self._db.execute(
            "INSERT INTO mailboxes (key, is_box, envelopes, bytes, touched)"
            " VALUES (%s, false, 0, 0, 0) ON CONFLICT DO NOTHING",
            (mailbox.key,),
        )
        return self._lock(mailbox), knows

    def store(self, place: Place, letters: Sequence[Letter], now: float) -> list[int | None]:
        """Store what is not there yet; return the rows of what is new."""
        rows = self._db.execute(
            f"""WITH new AS ({_insertion(len(letters))}), counted AS (
                UPDATE mailboxes SET envelopes = envelopes + (SELECT count(*) FROM new),
                    bytes = bytes + (SELECT sum(size) FROM new),
                    touched = CASE WHEN is_box THEN %(now)s ELSE 0 END
                WHERE id = %(mailbox)s AND EXISTS (SELECT 1 FROM new)
            )
            SELECT message_id, row FROM new""",  # noqa: S608 - made above
            {**_letters(place.number, letters, now), "now": int(now)},
        ).fetchall()
        new: dict[bytes, int] = dict(rows)
        # A message id that comes twice is new once.
        return [new.pop(letter.message_id, None) for letter in letters]

    def store_nowhere(self, letters: Sequence[Letter], now: float) -> None:
        """Write as `store` does, and leave nothing."""
        rows = self._db.execute(
            _insertion(len(letters)), _letters(_NOWHERE, letters, now)
        ).fetchall()
        self._db.execute("DELETE FROM mail WHERE row = ANY(%s)", ([row for _, row, _ in rows],))

    def knows(self, place: Place, message_id: bytes) -> bool:
        """Tell whether an envelope with this id is there, or was."""
        known = self._db.execute(
            "SELECT 1 FROM mail WHERE mailbox = %s AND message_id = %s", (place.number, message_id)
        ).fetchone()
        return known is not None

    def _lock(self, mailbox: MailboxName) -> Place | None:
        found = self._db.execute(
            "SELECT id, envelopes, bytes FROM mailboxes WHERE key = %s FOR NO KEY UPDATE",
            (mailbox.key,),
        ).fetchone()
        return None if found is None else _place(*found)


def _place(number: int, envelopes: int, total_bytes: int) -> Place:
    return Place(number, Load(envelopes, total_bytes))


def _insertion(count: int) -> str:
    """Return the query that stores ``count`` envelopes in their order; see `_letters`."""
    values = ", ".join(f"(%(id{n})s::bytea, %(envelope{n})s::bytea, {n})" for n in range(count))
    return f"""INSERT INTO mail (mailbox, message_id, envelope, expires)
        SELECT %(mailbox)s, id, envelope, %(expires)s
        FROM (VALUES {values}) AS letters (id, envelope, place) ORDER BY place
        ON CONFLICT (mailbox, message_id) DO NOTHING
        RETURNING message_id, row, length(envelope) AS size"""  # noqa: S608 - numbers


def _letters(number: int, letters: Sequence[Letter], now: float) -> dict[str, bytes | int]:
    values: dict[str, bytes | int] = {"mailbox": number, "expires": int(now) + MAIL_LIFETIME}
    for n, letter in enumerate(letters):
        values[f"id{n}"], values[f"envelope{n}"] = letter
    return values


def _read(db: Cursor, claim: Claim, after: int, limit: int, now: float) -> list[Mail]:
    # STORAGE-05 MUST: claim and mail in one statement, so both are as they were at one moment.
    rows = db.execute(
        """SELECT presence.epoch, mail.row, mail.envelope FROM presence LEFT JOIN LATERAL (
            SELECT row, envelope FROM mail
            WHERE mailbox = (SELECT id FROM mailboxes WHERE key = presence.key)
                AND presence.epoch = %(epoch)s AND envelope IS NOT NULL
                AND row > %(after)s AND expires > %(now)s AND tries < %(most)s
            ORDER BY row LIMIT %(limit)s
        ) AS mail ON true WHERE presence.key = %(key)s ORDER BY mail.row""",
        {
            "epoch": claim.epoch,
            "key": claim.mailbox.key,
            "after": after,
            "now": int(now),
            "limit": limit,
            "most": MAX_TRIES,
        },
    ).fetchall()
    if not rows or rows[0][0] != claim.epoch:
        raise FencedError(is_taken=bool(rows))
    mails = [Mail(row, envelope) for _, row, envelope in rows if row is not None]
    if after == 0 and mails:
        db.execute("UPDATE mail SET tries = tries + 1 WHERE row = %s", (mails[0].row,))
    return mails


def _count_set_aside(db: Cursor, mailbox: MailboxName | None) -> int:
    # As the index is, whose condition is a number: `MAX_TRIES`.
    statement = "SELECT count(*) FROM mail WHERE tries >= 5 AND envelope IS NOT NULL"
    if mailbox is None:
        found = db.execute(statement).fetchone()
    else:
        place = " AND mailbox = (SELECT id FROM mailboxes WHERE key = %s)"
        found = db.execute(statement + place, (mailbox.key,)).fetchone()
    assert found is not None
    return int(found[0])


def _remove(db: Cursor, rows: dict[bytes, list[int]], now: float) -> None:
    locked = db.execute(
        "SELECT id, key FROM mailboxes WHERE key = ANY(%s::bytea[]) ORDER BY id FOR NO KEY UPDATE",
        (list(rows),),
    ).fetchall()
    for number, key in locked:
        db.execute(
            """WITH acknowledged AS (
                SELECT row, length(envelope) AS size FROM mail
                WHERE mailbox = %(mailbox)s AND row = ANY(%(rows)s) AND envelope IS NOT NULL
            ), emptied AS (
                UPDATE mail SET envelope = NULL, expires = %(expires)s
                WHERE row IN (SELECT row FROM acknowledged)
            )
            UPDATE mailboxes SET envelopes = envelopes - (SELECT count(*) FROM acknowledged),
                bytes = bytes - (SELECT coalesce(sum(size), 0) FROM acknowledged)
            WHERE id = %(mailbox)s""",
            {"mailbox": number, "rows": rows[key], "expires": int(now) + TOMBSTONE_LIFETIME},
        )


def _sweep_mail(db: Cursor, now: float) -> int:
    """Forget the expired mail of some mailboxes; return how many rows that were."""
    locked = db.execute(
        "SELECT id FROM mailboxes WHERE id IN (SELECT mailbox FROM mail WHERE expires <= %s"
        " LIMIT %s) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
        (int(now), SWEEP_BATCH),
    ).fetchall()
    found = db.execute(
        """WITH gone AS (
            DELETE FROM mail WHERE row IN (SELECT row FROM mail
                WHERE mailbox = ANY(%(mailboxes)s) AND expires <= %(now)s LIMIT %(most)s)
            RETURNING mailbox, envelope
        ), freed AS (
            SELECT mailbox, count(envelope) AS envelopes,
                coalesce(sum(length(envelope)), 0) AS bytes
            FROM gone GROUP BY mailbox
        ), counted AS (
            UPDATE mailboxes SET envelopes = mailboxes.envelopes - freed.envelopes,
                bytes = mailboxes.bytes - freed.bytes
            FROM freed WHERE id = freed.mailbox
        )
        SELECT count(*) FROM gone""",
        {"mailboxes": [number for (number,) in locked], "now": int(now), "most": SWEEP_ROWS},
    ).fetchone()
    assert found is not None
    return int(found[0])


def _sweep_boxes(db: Cursor, now: float) -> int:
    return db.execute(
        "DELETE FROM mailboxes WHERE id IN (SELECT id FROM mailboxes"
        " WHERE is_box AND touched <= %s LIMIT %s FOR UPDATE SKIP LOCKED)",
        (int(now) - BOX_IDLE_LIFETIME, SWEEP_BATCH),
    ).rowcount


def _sweep_prekeys(db: Cursor, now: float) -> int:
    return db.execute(
        "DELETE FROM prekeys WHERE ctid IN (SELECT ctid FROM prekeys"
        " WHERE expires <= %s LIMIT %s FOR UPDATE SKIP LOCKED)",
        (int(now), SWEEP_BATCH),
    ).rowcount


def _sweep_invited(db: Cursor, now: float) -> None:
    db.execute("DELETE FROM codes WHERE expires <= %s", (int(now),))
    db.execute("DELETE FROM invitations WHERE expires <= %s", (int(now),))


def _sweep_rates(db: Cursor, now: float) -> int:
    return db.execute(
        "DELETE FROM rates WHERE key IN (SELECT key FROM rates"
        " WHERE full_again <= %s LIMIT %s FOR UPDATE SKIP LOCKED)",
        (now, SWEEP_BATCH),
    ).rowcount
