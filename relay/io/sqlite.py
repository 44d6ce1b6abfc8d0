"""The default storage backend (spec/wire.md, Storage): one SQLite file in WAL mode.

Opens it, makes or checks its tables, and joins its parts. The queries are in
`relay.io.sqlite_directory` and `relay.io.sqlite_mailbox`; what ends with the process is in
`relay.io.memory`.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.errors import OperatorError
from relay.io.memory import MemoryBus, MemoryLimiter, MemoryPresence
from relay.io.sqlite_directory import SQLiteDirectory
from relay.io.sqlite_mailbox import SQLiteMailbox
from relay.io.writer import Writer
from relay.services.delivery import Readers
from relay.services.quota import Rate

SCHEMA_VERSION: Final = 1

TABLES: Final = (
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
            lambda db: db.execute("UPDATE mailboxes SET touched = 0 WHERE id = 0")
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
        presence = MemoryPresence(readers)
        yield SQLiteStorage(
            SQLiteDirectory(writer),
            SQLiteMailbox(writer, presence),
            presence,
            MemoryBus(readers),
            writer,
        )


def _prepare(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version != 0:
        raise OperatorError(
            f"the database has format {version}, this relay reads format {SCHEMA_VERSION}",
            hint="run the release of the relay that made it, or choose another data directory",
        )
    for statement in TABLES:
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
