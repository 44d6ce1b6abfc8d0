"""The file of a store (spec/store.md, "File"): one SQLite database, held by one process.

Opens, creates, reads whole and changes in transactions; it blocks, and `e2ecall.io.store` calls
it from worker threads.
"""

import hmac
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.errors import E2ECallError, LocalProtocolError, RemoteProtocolError, StoreError
from e2ecall.io.migrations import FORMAT, OLDEST, migrated
from e2ecall.io.records import Change, Record, RecordKeys, Records, tag
from e2ecall.io.storeheader import Header, generate_header, read_header, unwrap
from e2ecall.io.storelock import StoreLock, in_use
from e2ecall.secret import Secret
from relay.wire.errors import WireError

APPLICATION_ID: Final = 0x65326563
"""SQLite's mark of whose file it is: ``e2ec``."""

_HEADER: Final = "header"
_MANIFEST: Final = "manifest"

_SCHEMA: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
    "CREATE TABLE header (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID",
    "CREATE TABLE records (name BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID",
)


class StoreFile:
    """An open file; nobody else can open it meanwhile. Used by one thread at a time."""

    def __init__(self, database: sqlite3.Connection, lock: StoreLock, keys: RecordKeys) -> None:
        """Use `open_file`."""
        self._database = database
        self._lock = lock
        self._keys = keys
        self._tags: dict[bytes, bytes] = {}

    def load(self) -> Records:
        """Return all records.

        Raises:
            StoreError, RemoteProtocolError, WireError, TypeError: a row is not what was written.
        """
        records: Records = {}
        for name, sealed in self._database.execute("SELECT name, value FROM records"):
            record = self._keys.open(name, sealed)
            if self._keys.name(record.kind, record.key) != name:
                raise StoreError("a row stands under another id than its own")
            records[record.kind, record.key] = record.value
            self._tags[name] = tag(sealed)
        # STORE-06: rows that are missing, or older than the last writing, are found here.
        if not hmac.compare_digest(self._keys.manifest(self._tags), self._header(_MANIFEST)):
            raise StoreError("the rows are not those that were written last")
        return records

    def commit(self, changes: Iterable[Change]) -> None:
        """Apply all changes or none; they are on disk on return (STORE-09).

        Raises:
            StoreError: the disk refused, or a record is too long; nothing has changed.
        """
        tags = dict(self._tags)

        def apply() -> None:
            for change in changes:
                self._apply(self._keys, change, tags)
            self._put_header(_MANIFEST, self._keys.manifest(tags))

        self._transact(apply)
        self._tags = tags

    def rewrite(self, records: Records, passphrase: Secret, cost: Argon2Cost) -> None:
        """Put ``records`` in the place of all, under a new master key for ``passphrase``.

        Afterwards the file is of the newest format. It happens as a whole or not at all.

        Raises:
            StoreError: the disk refused, or a record is too long; nothing has changed.
        """
        header, master = generate_header(FORMAT, passphrase, cost)
        keys, tags = RecordKeys(master), dict[bytes, bytes]()

        def apply() -> None:
            self._database.execute("DELETE FROM records")
            for (kind, key), value in records.items():
                self._apply(keys, Change(kind, key, value), tags)
            self._put_header(_HEADER, header)
            self._put_header(_MANIFEST, keys.manifest(tags))
            self._database.execute(f"PRAGMA user_version = {FORMAT}")

        self._transact(apply)
        self._keys, self._tags = keys, tags

    def close(self) -> None:
        """Close the file and give up the lock on it."""
        self._database.close()
        self._lock.release()

    def _transact(self, apply: Callable[[], None]) -> None:
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                apply()
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot write the store: {error}", hint="check free space and permissions"
            ) from error

    def _apply(self, keys: RecordKeys, change: Change, tags: dict[bytes, bytes]) -> None:
        if change.value is None:
            name = keys.name(change.kind, change.key)
            self._database.execute("DELETE FROM records WHERE name = ?", (name,))
            tags.pop(name, None)
        else:
            name, sealed = keys.seal(Record(change.kind, change.key, change.value))
            self._database.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (name, sealed))
            tags[name] = tag(sealed)

    def _put_header(self, name: str, value: bytes) -> None:
        self._database.execute("UPDATE header SET value = ? WHERE name = ?", (value, name))

    def _header(self, name: str) -> bytes:
        return _header_value(self._database, name)


def open_file(path: Path, passphrase: Secret, cost: Argon2Cost) -> tuple[StoreFile, Records]:
    """Open the file at ``path`` and read it whole, or create it where there is none.

    ``cost`` counts for a new file only. A file of an older format is brought to the newest once
    all of it has been read. A file that cannot be opened is left as it is.

    Raises:
        StoreError: wrong passphrase, damaged, in use by another process, not a store.
    """
    new = _claim(path)
    lock, database = None, None
    try:
        lock = StoreLock(path)
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        _hold(database)
        if new:
            return StoreFile(database, lock, _create(database, passphrase, cost)), {}
        return _load(database, lock, path, passphrase)
    except BaseException as error:
        if database is not None:
            database.close()
        if new:
            path.unlink(missing_ok=True)
        if lock is not None:
            lock.release()
        # SQLite quotes a damaged schema in its messages, which need not be text.
        if isinstance(error, sqlite3.Error | UnicodeDecodeError):
            raise _translated(path, error) from error
        raise


def _load(
    database: sqlite3.Connection, lock: StoreLock, path: Path, passphrase: Secret
) -> tuple[StoreFile, Records]:
    version = _check_whole(database, path)
    header = _read_header(database, path, version)
    file = StoreFile(database, lock, RecordKeys(_unlock(header, path, passphrase)))
    records = _read(file, path)
    if version < FORMAT:
        # STORE-13: only what was read whole, and found to be what was written, is rewritten.
        try:
            records = migrated(records, version)
        except WireError as error:
            raise _damaged(path) from error
        file.rewrite(records, passphrase, header.cost)
    return file, records


def _claim(path: Path) -> bool:
    """Return whether there was no file, which then is this process's own empty one."""
    if not path.parent.is_dir():
        raise StoreError(f"there is no folder {path.parent}", hint="create it first")
    try:
        # STORE-08, STORE-12. Exclusive: of two processes that create the same store, one must
        # not remove the other's.
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        if path.stat().st_size == 0:
            raise _empty(path) from None
        return False
    except OSError as error:
        raise StoreError(f"cannot create {path}: {error.strerror}") from error
    return True


def _hold(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA busy_timeout = 0")
    # STORE-07: the lock is held for as long as the store is open: one process, one ratchet.
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA synchronous = EXTRA")  # STORE-09
    database.execute("PRAGMA secure_delete = ON")  # STORE-11
    # STORE-11: with the lock held SQLite keeps its journal, and in it what was replaced.
    database.execute("PRAGMA journal_size_limit = 0")
    database.execute("BEGIN EXCLUSIVE")
    database.execute("COMMIT")


def _create(database: sqlite3.Connection, passphrase: Secret, cost: Argon2Cost) -> RecordKeys:
    header, master = generate_header(FORMAT, passphrase, cost)
    keys = RecordKeys(master)
    with database:
        database.execute("BEGIN")
        for statement in _SCHEMA:
            database.execute(statement)
        rows = [(_HEADER, header), (_MANIFEST, keys.manifest({}))]
        database.executemany("INSERT INTO header VALUES (?, ?)", rows)
    return keys


def _check_whole(database: sqlite3.Connection, path: Path) -> int:
    """Return the format; refuse other files, unknown formats, and one that lost its end."""
    if database.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            raise _empty(path)  # STORE-08: a creation that was killed leaves that, too
        raise StoreError(f"{path} is not a store of e2ecall")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if not OLDEST <= version <= FORMAT:
        raise StoreError(
            f"{path} has a format that this version does not know", hint="update e2ecall"
        )
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (page_size,) = database.execute("PRAGMA page_size").fetchone()
    if path.stat().st_size < pages * page_size:
        raise _damaged(path)
    return int(version)


def _read_header(database: sqlite3.Connection, path: Path, version: int) -> Header:
    try:
        header = read_header(_header_value(database, _HEADER))
    except (WireError, TypeError) as error:
        raise _damaged(path) from error
    if header.format != version:
        raise _damaged(path)
    return header


def _unlock(header: Header, path: Path, passphrase: Secret) -> Secret:
    try:
        return unwrap(header, passphrase)
    except LocalProtocolError as error:  # the cost
        raise _damaged(path) from error
    except RemoteProtocolError as error:
        raise StoreError(
            f"the passphrase does not open {path}",
            hint="if you are sure of it, the file is damaged: restore a backup",
        ) from error


def _read(file: StoreFile, path: Path) -> Records:
    try:
        return file.load()
    except (WireError, E2ECallError, TypeError) as error:
        raise _damaged(path) from error


def _header_value(database: sqlite3.Connection, name: str) -> bytes:
    row = database.execute("SELECT value FROM header WHERE name = ?", (name,)).fetchone()
    value = row[0] if row else b""
    if not isinstance(value, bytes):
        raise TypeError("a header is not of bytes")
    return value


def _translated(path: Path, error: Exception) -> StoreError:
    if "locked" in str(error):
        return in_use(path)
    if isinstance(error, sqlite3.OperationalError):
        return StoreError(f"cannot open {path}: {error}")
    return _damaged(path)


def _empty(path: Path) -> StoreError:
    return StoreError(f"{path} is empty", hint="delete it to start with a new store")


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path} is damaged", hint="nothing was changed; restore a backup of it")
