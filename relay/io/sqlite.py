"""The default storage backend (spec/wire.md, Storage): one SQLite file in WAL mode.

Opens it, makes or checks its tables, and joins its parts. The queries are in
`relay.io.sqlite_directory` and `relay.io.sqlite_mailbox`; what ends with the process is in
`relay.io.memory`.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.errors import OperatorError
from relay.io.memory import MemoryBus, MemoryLimiter, MemoryPresence
from relay.io.sqlite_directory import SQLiteDirectory
from relay.io.sqlite_mailbox import SQLiteMailbox
from relay.io.tails import Tails
from relay.io.writer import Writer
from relay.services.delivery import Readers
from relay.services.quota import Rate

APPLICATION: Final = 0x65326563
"""SQLite's application id of a database in use."""
BACKUP: Final = 0x65326262
"""The same of a backup, which is not to be served as it is (`relay.io.sqlite_backup`)."""

_TABLES: Final = (
    """CREATE TABLE accounts (
        username TEXT PRIMARY KEY,
        device_list BLOB NOT NULL,
        list_signature BLOB NOT NULL,
        version INTEGER NOT NULL,
        newest_device_id INTEGER NOT NULL,
        policy INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE devices (
        username TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
        device_id INTEGER NOT NULL,
        PRIMARY KEY (username, device_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE retired (name_hash BLOB PRIMARY KEY) STRICT, WITHOUT ROWID",
    """CREATE TABLE tokens (
        username TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
        hash BLOB NOT NULL,
        PRIMARY KEY (username, hash)
    ) STRICT, WITHOUT ROWID""",
    # A row without a record is a one-time prekey that was handed out: its id stays taken.
    """CREATE TABLE prekeys (
        username TEXT NOT NULL,
        device_id INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        key_id INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        record BLOB,
        UNIQUE (username, device_id, kind, key_id),
        FOREIGN KEY (username, device_id) REFERENCES devices ON DELETE CASCADE
    ) STRICT""",
    "CREATE INDEX prekeys_by_expiry ON prekeys (expires)",
    """CREATE INDEX prekeys_left ON prekeys (username, device_id, kind, key_id)
        WHERE record IS NOT NULL""",
    """CREATE TABLE mailboxes (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        is_box INTEGER NOT NULL,
        envelopes INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        touched INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX boxes_by_age ON mailboxes (touched) WHERE is_box = 1",
    # A row without an envelope was acknowledged: a repeated Send still finds its message id.
    """CREATE TABLE mail (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        mailbox INTEGER NOT NULL REFERENCES mailboxes ON DELETE CASCADE,
        message_id BLOB NOT NULL,
        envelope BLOB,
        expires INTEGER NOT NULL,
        UNIQUE (mailbox, message_id)
    ) STRICT""",
    "CREATE INDEX mail_waiting ON mail (mailbox, row) WHERE envelope IS NOT NULL",
    "CREATE INDEX mail_by_expiry ON mail (expires)",
    # Where the writes of a refused Send go, so that it costs what an accepted one costs.
    "INSERT INTO mailboxes VALUES (0, x'00', 0, 0, 0, 0)",
)

MIGRATIONS: Final = (
    _TABLES,
    (f"PRAGMA application_id = {APPLICATION}",),
    ("ALTER TABLE mail ADD COLUMN tries INTEGER NOT NULL DEFAULT 0",),
    (
        """CREATE TABLE codes (
            hash BLOB PRIMARY KEY,
            expires INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE invitations (
            username TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
            hash BLOB NOT NULL,
            expires INTEGER NOT NULL,
            PRIMARY KEY (username, hash)
        ) STRICT, WITHOUT ROWID""",
    ),
    ("CREATE INDEX mail_set_aside ON mail (mailbox) WHERE tries >= 5 AND envelope IS NOT NULL",),
    # Releases before noted when something came for a device (STORAGE-17).
    ("UPDATE mailboxes SET touched = 0 WHERE is_box = 0",),
)
"""The steps from each format to the next; the first makes the tables of an empty database."""
FORMAT: Final = len(MIGRATIONS)


@dataclass(frozen=True, slots=True)
class SQLiteStorage:
    """`relay.io.storage.Storage` over one file."""

    directory: SQLiteDirectory
    mailbox: SQLiteMailbox
    presence: MemoryPresence
    bus: MemoryBus
    writer: Writer

    def limiter(self, _name: str, rate: Rate) -> MemoryLimiter:
        """Return a limiter."""
        return MemoryLimiter(rate)

    async def probe(self) -> None:
        """Return if the file can be written now."""
        await self.writer.run(
            # Another value each time: SQLite writes nothing where nothing changes.
            lambda db: db.execute("UPDATE mailboxes SET touched = 1 - touched WHERE id = 0")
        )


@asynccontextmanager
async def open_storage(path: Path, readers: Readers) -> AsyncIterator[SQLiteStorage]:
    """Open or create the database at ``path``; it is closed at the end of the block.

    ``readers`` are the connections of this process: they are told what concerns them.

    Raises:
        OperatorError: it cannot be opened, or another version of the relay made it.
    """
    async with Writer(path) as writer:
        await writer.run(_prepare)
        tails = Tails()
        presence = MemoryPresence(readers, tails)
        yield SQLiteStorage(
            SQLiteDirectory(writer),
            SQLiteMailbox(writer, presence, tails),
            presence,
            MemoryBus(readers),
            writer,
        )


def migrate(path: Path) -> tuple[int, int]:
    """Bring a database that no relay uses to this release's format. Blocks.

    Returns the formats before and after.

    Raises:
        OperatorError: there is none, it is of a later release, or it cannot be changed.
    """
    if not path.exists():
        raise OperatorError(f"there is no database {path}", hint="`serve` makes one")
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            before = _current(db)
            _step(db, before)
            _check(db)
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise OperatorError(f"cannot migrate {path}: {error}") from error
    return before, FORMAT


def _prepare(db: sqlite3.Connection) -> None:
    if _current(db) == 0:
        _step(db, 0)
    _check(db)


def _step(db: sqlite3.Connection, before: int) -> None:
    for steps in MIGRATIONS[before:]:
        for statement in steps:
            db.execute(statement)
    if before < FORMAT:
        db.execute(f"PRAGMA user_version = {FORMAT}")


def _current(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _check(db: sqlite3.Connection) -> None:
    version = _current(db)
    # STORAGE-11 MUST: what another release made, or a backup, is left alone.
    if version != FORMAT:
        raise OperatorError(
            f"the database has format {version}, this relay reads format {FORMAT}",
            hint="run the release of the relay that made it, or choose another data directory"
            if version > FORMAT
            else "make a backup, then run `e2ecall-relay migrate`",
        )
    if db.execute("PRAGMA application_id").fetchone()[0] == BACKUP:
        raise OperatorError(
            "this database is a backup: prekeys in it may have been handed out",
            hint="`e2ecall-relay restore` makes a database of it",
        )
