"""Who reads what over all nodes, and shared rates, in PostgreSQL (spec/wire.md, Storage).

A claim is a row with an epoch and the node that holds it; it ends with its node's lease. Telling
nodes about it is `relay.io.postgres_bus`'s.
"""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable
from math import ceil
from typing import Final

import trio

from relay.errors import RefusedError, StorageError
from relay.io.postgres_bus import PostgresBus
from relay.io.postgres_pool import Cursor, Pool
from relay.services.delivery import Claim
from relay.services.mailbox import MailboxName
from relay.services.quota import Rate
from relay.wire.labels import labelled
from relay.wire.messages import ErrorCode

KEY_BYTES: Final = 16
AHEAD_SHARE: Final = 32
AHEAD_SECONDS: Final = 2.0
"""A node may count so much of a burst ahead, for so long, and no more than comes back meanwhile:
who asks seldom loses what was counted ahead and not used, and is refused no earlier for it."""
MAX_AHEAD: Final = 65_536
"""Keys of which something was counted ahead."""
MAX_WAIT: Final = 86_400
JUMP: Final = 60.0
"""Seconds. What lies further ahead was counted before the clock was set back; what is nearer, at a
node whose clock is a little fast. Its time counts: going back and forth between the two would fill
the bucket each time."""


class PostgresPresence:
    """`relay.io.storage.Presence` in PostgreSQL."""

    def __init__(self, pool: Pool, bus: PostgresBus) -> None:
        self._pool = pool
        self._bus = bus

    async def claim(self, mailbox: MailboxName) -> Claim:
        """Become the one reader of a mailbox."""
        node = self._bus.node
        if node is None:
            raise StorageError("this node has no lease")
        before, epoch = await self._pool.run(lambda db: _claim(db, node, mailbox.key))
        self._bus.remember(mailbox)
        if before is not None:
            self._bus.lost(before, mailbox, epoch)
        return Claim(mailbox, epoch)

    async def release(self, claims: Iterable[Claim]) -> None:
        """Give claims back."""
        claims = list(claims)
        for claim in claims:
            self._bus.forget(claim.mailbox)
        held = [(claim.mailbox.key, claim.epoch) for claim in claims]
        await self._pool.run(lambda db: _release(db, held))

    async def evict(self, mailbox: MailboxName) -> None:
        """End every claim on a mailbox."""
        found = await self._pool.run(lambda db: _evict(db, mailbox.key))
        if found is not None:
            self._bus.lost(found[0], mailbox, found[1] + 1)


def _claim(db: Cursor, node: int, key: bytes) -> tuple[int | None, int]:
    """Return the node that held it before, and the new epoch."""
    while True:
        # First, as it waits for another first claim that is under way: of two that come at once the
        # second has to see whom it follows, or nobody would tell that one.
        claimed = db.execute(
            "INSERT INTO presence VALUES (%s, %s, nextval('epochs')) ON CONFLICT DO NOTHING"
            " RETURNING epoch",
            (key, node),
        ).fetchone()
        if claimed is not None:
            return None, int(claimed[0])
        before = db.execute(
            "SELECT node FROM presence WHERE key = %s FOR UPDATE", (key,)
        ).fetchone()
        if before is None:
            continue  # given back just now
        # The epoch is drawn under the row's lock, so the last to get it is the highest.
        after = db.execute(
            "UPDATE presence SET node = %s, epoch = nextval('epochs') WHERE key = %s"
            " RETURNING epoch",
            (node, key),
        ).fetchone()
        assert after is not None
        return int(before[0]), int(after[0])


def _release(db: Cursor, held: list[tuple[bytes, int]]) -> None:
    for key, epoch in sorted(held):
        db.execute("DELETE FROM presence WHERE key = %s AND epoch = %s", (key, epoch))


def _evict(db: Cursor, key: bytes) -> tuple[int, int] | None:
    found = db.execute(
        "DELETE FROM presence WHERE key = %s RETURNING node, epoch", (key,)
    ).fetchone()
    return None if found is None else (int(found[0]), int(found[1]))


class PostgresLimiter:
    """`relay.io.storage.Limiter` in PostgreSQL.

    What is counted are addresses and usernames; the database gets a keyed hash of them, and
    forgets it when the bucket is full again.
    """

    def __init__(self, pool: Pool, secret: bytes, name: str, rate: Rate) -> None:
        self._pool = pool
        self._secret = secret
        self._name = name
        self._rate = rate
        share = min(rate.burst / AHEAD_SHARE, rate.per_second * AHEAD_SECONDS)
        self._most = max(1, int(share))
        self._ahead: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._asking: dict[str, trio.Lock] = {}
        """Keys for which the database is asked just now."""

    async def take(self, key: str, now: float) -> None:
        """Count one use."""
        if self._had(key, now):
            return
        # One at a time: of many at once each would take ahead, and all together everything.
        lock = self._asking.setdefault(key, trio.Lock())
        async with lock:
            try:
                if not self._had(key, now):
                    await self._ask(key, now)
            finally:
                if not lock.statistics().tasks_waiting:
                    del self._asking[key]

    def _had(self, key: str, now: float) -> bool:
        """Use one that was taken ahead, if there is one."""
        left, until = self._ahead.get(key, (0, 0.0))
        if left and until - AHEAD_SECONDS <= now < until:
            self._ahead[key] = (left - 1, until)
            return True
        return False

    async def _ask(self, key: str, now: float) -> None:
        taken = await self._take(key, now)
        self._ahead.pop(key, None)
        if taken > 1:
            self._ahead[key] = (taken - 1, now + AHEAD_SECONDS)
            while len(self._ahead) > MAX_AHEAD:
                self._ahead.popitem(last=False)

    def forget(self, now: float) -> None:
        """Drop what was taken ahead and is not good any more; the rows are swept."""
        while self._ahead:
            key, (_, until) = next(iter(self._ahead.items()))
            if until - AHEAD_SECONDS <= now < until:
                return
            del self._ahead[key]

    async def _take(self, key: str, now: float) -> int:
        """Count several uses if there is room, else one; return how many."""
        text = labelled("rate", self._name.encode(), key.encode())
        hidden = hmac.new(self._secret, text, hashlib.sha256).digest()[:KEY_BYTES]

        def work(db: Cursor) -> tuple[int, float]:
            if self._most > 1 and _take(db, hidden, self._rate, now, self._most) >= 0:
                return self._most, 0.0
            return 1, _take(db, hidden, self._rate, now, 1)

        taken, level = await self._pool.run(work, apart=True)
        if level < 0:
            wait = min(MAX_WAIT, ceil(-level / self._rate.per_second))
            raise RefusedError(ErrorCode.TOO_MANY, "too many requests", retry_after=wait)
        return taken


def _take(db: Cursor, key: bytes, rate: Rate, now: float, uses: int) -> float:
    """Take ``uses``; return what is left. Below zero nothing was, and that much is missing."""
    # A transaction that changes only unlogged tables does not wait for the disk.
    values = {
        "key": key,
        "burst": float(rate.burst),
        "speed": rate.per_second,
        "now": now,
        "jump": now + JUMP,
        "uses": uses,
        "full": now + uses / rate.per_second,
    }
    taken = db.execute(
        """INSERT INTO rates AS r VALUES (%(key)s, %(burst)s - %(uses)s, %(now)s, %(full)s)
        ON CONFLICT (key) DO UPDATE SET
            level = least(%(burst)s, r.level + greatest(0, %(now)s - r.since) * %(speed)s)
                - %(uses)s,
            since = CASE WHEN r.since > %(jump)s THEN %(now)s ELSE greatest(r.since, %(now)s) END,
            full_again = %(now)s + (%(burst)s + %(uses)s - least(%(burst)s,
                r.level + greatest(0, %(now)s - r.since) * %(speed)s)) / %(speed)s
        WHERE least(%(burst)s, r.level + greatest(0, %(now)s - r.since) * %(speed)s) >= %(uses)s
        RETURNING level""",
        values,
    ).fetchone()
    if taken is not None:
        return float(taken[0])
    # WIRE-50: a clock that was set back must not keep anybody out until it has caught up.
    db.execute("UPDATE rates SET since = %(now)s WHERE key = %(key)s AND since > %(jump)s", values)
    found = db.execute(
        "SELECT least(%(burst)s, level + greatest(0, %(now)s - since) * %(speed)s) - %(uses)s"
        " FROM rates WHERE key = %(key)s",
        values,
    ).fetchone()
    return -1.0 if found is None else min(-1e-9, float(found[0]))
