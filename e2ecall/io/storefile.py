"""The file of a store (spec/store.md, "File"): one SQLite database, held by one process.

Opens, creates, reads whole and changes in transactions; it blocks, and `e2ecall.io.store` calls
it from worker threads.
"""

import hmac
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from e2ecall.crypto.aead import XCHACHA_NONCE_BYTES, XChaCha20Poly1305
from e2ecall.crypto.argon2 import SALT_BYTES, Argon2Cost, argon2id
from e2ecall.crypto.random import generate_bytes, generate_secret
from e2ecall.errors import E2ECallError, StoreError
from e2ecall.io.records import Change, Record, RecordKeys, RecordKind, tag
from e2ecall.secret import Secret
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.labels import labelled

FORMAT: Final = 1
"""Version of the file; another one is refused, never guessed at."""

APPLICATION_ID: Final = 0x65326563
"""SQLite's mark of whose file it is: ``e2ec``."""

Records = dict[tuple[RecordKind, bytes], bytes]

_HEADER: Final = "header"
_MANIFEST: Final = "manifest"
_MASTER_BYTES: Final = 32
_MAX_HEADER: Final = 1024

_SCHEMA: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
    "CREATE TABLE header (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID",
    "CREATE TABLE records (name BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID",
)


class _Header(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[format, salt, memory_kib, iterations, lanes, nonce, wrapped master key]``, in clear."""

    format: int
    salt: Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    memory_kib: int
    iterations: int
    lanes: int
    nonce: Annotated[bytes, Meta(min_length=XCHACHA_NONCE_BYTES, max_length=XCHACHA_NONCE_BYTES)]
    wrapped: Annotated[bytes, Meta(min_length=48, max_length=48)]


class StoreFile:
    """An open file; nobody else can open it meanwhile. Used by one thread at a time."""

    def __init__(self, database: sqlite3.Connection, keys: RecordKeys) -> None:
        """Use `open_file`."""
        self._database = database
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
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                for change in changes:
                    self._apply(change, tags)
                self._database.execute(
                    "UPDATE header SET value = ? WHERE name = ?",
                    (self._keys.manifest(tags), _MANIFEST),
                )
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot write the store: {error}", hint="check free space and permissions"
            ) from error
        self._tags = tags

    def close(self) -> None:
        """Close the file and give up the lock on it."""
        self._database.close()

    def _apply(self, change: Change, tags: dict[bytes, bytes]) -> None:
        if change.value is None:
            name = self._keys.name(change.kind, change.key)
            self._database.execute("DELETE FROM records WHERE name = ?", (name,))
            tags.pop(name, None)
        else:
            name, sealed = self._keys.seal(Record(change.kind, change.key, change.value))
            self._database.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (name, sealed))
            tags[name] = tag(sealed)

    def _header(self, name: str) -> bytes:
        return _header_value(self._database, name)


def open_file(path: Path, passphrase: Secret, cost: Argon2Cost) -> tuple[StoreFile, Records]:
    """Open the file at ``path`` and read it whole, or create it where there is none.

    ``cost`` counts for a new file only. A file that cannot be opened is left as it is.

    Raises:
        StoreError: wrong passphrase, damaged, in use by another process, not a store.
    """
    new = _claim(path)
    database = None
    try:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        _hold(database)
        if new:
            keys = _create(database, passphrase, cost)
        else:
            _check_whole(database, path)
            keys = _unlock(database, path, passphrase)
        file = StoreFile(database, keys)
        return file, _read(file, path)
    except BaseException as error:
        if database is not None:
            database.close()
        if new:
            path.unlink(missing_ok=True)
        # SQLite quotes a damaged schema in its messages, which need not be text.
        if isinstance(error, sqlite3.Error | UnicodeDecodeError):
            raise _translated(path, error) from error
        raise


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
            raise StoreError(
                f"{path} is empty", hint="delete it to start with a new store"
            ) from None
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
    database.execute("BEGIN EXCLUSIVE")
    database.execute("COMMIT")


def _create(database: sqlite3.Connection, passphrase: Secret, cost: Argon2Cost) -> RecordKeys:
    master = generate_secret(_MASTER_BYTES)
    salt, nonce = generate_bytes(SALT_BYTES), generate_bytes(XCHACHA_NONCE_BYTES)
    bare = _Header(FORMAT, salt, cost.memory_kib, cost.iterations, cost.lanes, nonce, bytes(48))
    wrapped = _wrapper(passphrase, bare).encrypt(nonce, master.expose(), _header_aad(bare))
    header = _Header(FORMAT, salt, cost.memory_kib, cost.iterations, cost.lanes, nonce, wrapped)
    keys = RecordKeys(master)
    with database:
        database.execute("BEGIN")
        for statement in _SCHEMA:
            database.execute(statement)
        rows = [(_HEADER, encode(header)), (_MANIFEST, keys.manifest({}))]
        database.executemany("INSERT INTO header VALUES (?, ?)", rows)
    return keys


def _check_whole(database: sqlite3.Connection, path: Path) -> None:
    """Refuse other files, other formats, and one that lost its end."""
    if database.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        raise StoreError(f"{path} is not a store of e2ecall")
    if database.execute("PRAGMA user_version").fetchone() != (FORMAT,):
        raise StoreError(
            f"{path} has a format that this version does not know", hint="update e2ecall"
        )
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (page_size,) = database.execute("PRAGMA page_size").fetchone()
    if path.stat().st_size < pages * page_size:
        raise _damaged(path)


def _unlock(database: sqlite3.Connection, path: Path, passphrase: Secret) -> RecordKeys:
    try:
        header = decode(_header_value(database, _HEADER), _Header, limit=_MAX_HEADER)
        wrapper = _wrapper(passphrase, header)
    except (WireError, E2ECallError, TypeError) as error:
        raise _damaged(path) from error
    try:
        master = Secret(wrapper.decrypt(header.nonce, header.wrapped, _header_aad(header)))
    except E2ECallError as error:
        raise StoreError(
            f"the passphrase does not open {path}",
            hint="if you are sure of it, the file is damaged: restore a backup",
        ) from error
    return RecordKeys(master)


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


def _wrapper(passphrase: Secret, header: _Header) -> XChaCha20Poly1305:
    cost = Argon2Cost(header.memory_kib, header.iterations, header.lanes)
    return XChaCha20Poly1305(argon2id(passphrase, salt=header.salt, cost=cost, length=32))


def _header_aad(header: _Header) -> bytes:
    cost = encode([header.memory_kib, header.iterations, header.lanes])
    return labelled("store master key", bytes([header.format]), header.salt, cost)


def _translated(path: Path, error: Exception) -> StoreError:
    if "locked" in str(error):
        return StoreError(
            f"{path} is in use by another program", hint="close that one, or use another --store"
        )
    if isinstance(error, sqlite3.OperationalError):
        return StoreError(f"cannot open {path}: {error}")
    return _damaged(path)


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path} is damaged", hint="nothing was changed; restore a backup of it")
