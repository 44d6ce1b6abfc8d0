"""The storage backend for many nodes (spec/wire.md, Storage): PostgreSQL 15 or later.

Opens it, checks that it is this relay's, and joins its parts. The queries are in
`relay.io.postgres_directory`, `relay.io.postgres_mailbox` and `relay.io.postgres_presence`; what
nodes tell one another is in `relay.io.postgres_bus`.
"""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Final, TypeVar

import psycopg
import trio

from relay.errors import OperatorError, StorageError
from relay.io import postgres_restore, postgres_schema
from relay.io.postgres_bus import PostgresBus
from relay.io.postgres_directory import PostgresDirectory
from relay.io.postgres_mailbox import PostgresMailbox
from relay.io.postgres_pool import Cursor, Pool, connect, transact
from relay.io.postgres_presence import PostgresLimiter, PostgresPresence
from relay.services.delivery import Readers
from relay.services.quota import Rate
from relay.services.signatures import RelayKey
from relay.wire.labels import labelled

T = TypeVar("T")

MAX_SKEW: Final = 10.0
"""Seconds by which a node's clock may differ from the database's, as far as nodes can tell."""


@dataclass(frozen=True, slots=True)
class PostgresStorage:
    """`relay.io.storage.Storage` over a database that several nodes share."""

    directory: PostgresDirectory
    mailbox: PostgresMailbox
    presence: PostgresPresence
    bus: PostgresBus
    pool: Pool
    limiter_secret: bytes
    clock: Callable[[], float]

    def limiter(self, name: str, rate: Rate) -> PostgresLimiter:
        """Return a limiter."""
        return PostgresLimiter(self.pool, self.limiter_secret, name, rate)

    async def probe(self) -> None:
        """Return if the database can be written now, and this node is a member in step with it."""
        await self.bus.check()
        theirs = await self.pool.run(_clock)
        if abs(theirs - self.clock()) > MAX_SKEW:
            raise StorageError("the clock of this node differs from the database's")
        await self.pool.run(lambda db: db.execute("UPDATE mailboxes SET touched = 0 WHERE id = 0"))


@asynccontextmanager
async def open_storage(
    dsn: str,
    readers: Readers,
    *,
    node: str,
    key: RelayKey,
    relay: str,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[PostgresStorage]:
    """Open the database at ``dsn`` as the node of this name; it is closed at the end of the block.

    An empty database gets its tables. ``readers`` are the connections of this process: they are
    told what concerns them. Another process under the same node name loses its claims.

    Raises:
        OperatorError: it cannot be reached, has another format, or belongs to another relay.
    """
    await trio.to_thread.run_sync(_begin, dsn, key, relay)
    secret = hmac.new(key.seed(), labelled("rate key"), hashlib.sha256).digest()
    async with Pool(dsn, _check) as pool:
        bus = PostgresBus(dsn, pool, readers, node)
        try:
            await bus.join()
        except StorageError as error:
            raise OperatorError(str(error)) from error
        storage = PostgresStorage(
            PostgresDirectory(pool),
            PostgresMailbox(pool),
            PostgresPresence(pool, bus),
            bus,
            pool,
            secret,
            clock,
        )
        failed: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bus.run)
            await bus.listening()
            try:
                yield storage
            except Exception as error:  # noqa: BLE001 - raised again, without the nursery's group
                failed = error
            nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed


def check(dsn: str) -> None:
    """Return if the database can be reached and used: empty, or of this release's format.

    Raises:
        OperatorError: it cannot.
    """

    def work(db: Cursor) -> None:
        if postgres_schema.current(db) != 0:
            postgres_schema.check(db)

    at_once(dsn, work)


def migrate(dsn: str) -> tuple[int, int]:
    """Bring a database that no node uses to this release's format. Blocks.

    Returns the formats before and after.

    Raises:
        OperatorError: a node uses it, it is of a later release, or it failed.
    """

    def work(db: Cursor) -> tuple[int, int]:
        db.execute("SET LOCAL statement_timeout = 0")
        return postgres_schema.migrate(db)

    return at_once(dsn, work)


def discard_one_time_prekeys(dsn: str) -> int:
    """Make a database that was restored safe to serve; return how many prekeys that took. Blocks.

    Raises:
        OperatorError: it has another format, or failed.
    """

    def work(db: Cursor) -> int:
        db.execute("SET LOCAL statement_timeout = 0")
        postgres_schema.check(db)
        return postgres_restore.discard(db)

    return at_once(dsn, work)


def at_once(dsn: str, work: Callable[[Cursor], T]) -> T:
    """Do ``work`` in one transaction on a connection of its own, for commands. Blocks.

    Raises:
        OperatorError: the database failed, or as raised by ``work``.
    """
    try:
        with closing(connect(dsn)) as connection:
            return transact(connection, work)
    except StorageError as error:
        raise OperatorError(
            str(error),
            hint="see storage.dsn or dsn_file in relay.toml, and whether the server runs",
        ) from error
    except psycopg.Error as error:
        raise OperatorError(f"the database failed: {type(error).__name__}") from error


def _clock(db: Cursor) -> float:
    found = db.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
    assert found is not None
    return float(found[0])


def _begin(dsn: str, key: RelayKey, relay: str) -> None:
    def work(db: Cursor) -> None:
        if postgres_schema.current(db) == 0:
            postgres_schema.migrate(db)
        _check(db)
        _belongs(db, "relay key", key.public.hex(), "copy relay.key from another of its nodes")
        if relay:
            _belongs(db, "relay name", relay, "all nodes have the same relay.name, for ever")

    at_once(dsn, work)


def _belongs(db: Cursor, what: str, value: str, hint: str) -> None:
    db.execute("INSERT INTO meta VALUES (%s, %s) ON CONFLICT DO NOTHING", (what, value))
    if postgres_schema.get_meta(db, what) != value:
        raise OperatorError(f"the database belongs to a relay with another {what}", hint=hint)


def _check(db: Cursor) -> None:
    postgres_schema.check(db)
    postgres_restore.guard(db)
