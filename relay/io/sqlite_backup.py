"""Backups of the SQLite backend (spec/wire.md, Backup): made online, restored with care. Blocks.

A backup is a folder with the database and the relay's key. The copy is marked, and `serve` refuses
it: only `restore` makes a database of it again, without the one-time prekeys, which the relay may
have handed out since.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from relay.errors import OperatorError
from relay.io.sqlite import APPLICATION, BACKUP, FORMAT
from relay.io.state import DATABASE_FILE, KEY_FILE, data_directory
from relay.wire.records import PreKeyKind

_ONE_TIME: Final = (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024)


def backup(data: Path, folder: Path) -> None:
    """Copy database and key to a new folder, as they are at one moment. The relay may run.

    Raises:
        OperatorError: there is nothing to copy, or the folder exists or cannot be written.
    """
    source = data / DATABASE_FILE
    if not source.exists():
        raise OperatorError(f"there is no database {source}")
    with _telling("make the backup"):
        folder.mkdir(mode=0o700)
        draft = folder / f"{DATABASE_FILE}.new"
        _copy(source, draft)
        with closing(_open(draft)) as copy:
            copy.execute(f"PRAGMA application_id = {BACKUP}")
        shutil.copyfile(data / KEY_FILE, folder / KEY_FILE)
        (folder / KEY_FILE).chmod(0o600)
        draft.rename(folder / DATABASE_FILE)
        _sync(folder)


def restore(folder: Path, data: Path, *, replace: bool) -> int:
    """Make the data directory what it was at the backup; return how many prekeys were discarded.

    With ``replace``, a database that is there is set aside under another name.

    Raises:
        OperatorError: no backup, a relay that runs, a database or another key that is there.
    """
    source = folder / DATABASE_FILE
    _check(source)
    with data_directory(data), _telling("restore the backup"):
        _restore_key(folder / KEY_FILE, data / KEY_FILE)
        target, draft = data / DATABASE_FILE, data / f"{DATABASE_FILE}.new"
        if target.exists() and not replace:
            raise OperatorError(
                f"{target} exists", hint="--replace sets it aside and restores the backup"
            )
        draft.unlink(missing_ok=True)
        _copy(source, draft)
        with closing(_open(draft)) as db:
            # STORAGE-12 MUST: what was handed out after the backup is unknown, so none is served
            # again; the ids stay taken, and the owners find that they have none left.
            discarded = db.execute(
                "UPDATE prekeys SET record = NULL WHERE record IS NOT NULL AND kind IN (?, ?)",
                _ONE_TIME,
            ).rowcount
            # The same of registration codes; formats before the fourth have none.
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'codes'").fetchone():
                db.execute("DELETE FROM codes")
            db.execute(f"PRAGMA application_id = {APPLICATION}")
        _set_aside(target)
        draft.rename(target)
        _sync(data)
        return discarded


def _check(source: Path) -> None:
    if not source.exists():
        raise OperatorError(
            f"{source.parent} is no backup", hint="`e2ecall-relay backup` makes one"
        )
    with _telling("read the backup"), closing(_open(source, readonly=True)) as db:
        (mark,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if mark != BACKUP:
            raise OperatorError(
                f"{source} is no backup but a database in use, or something else",
                hint="`e2ecall-relay backup` makes backups",
            )
        if version > FORMAT:
            raise OperatorError(
                f"the backup has format {version}, this relay reads format {FORMAT}",
                hint="restore it with the release of the relay that made it",
            )
        if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise OperatorError(f"{source} is damaged", hint="take another backup")


def _restore_key(source: Path, target: Path) -> None:
    if not target.exists():
        draft = target.with_suffix(".new")
        draft.unlink(missing_ok=True)
        shutil.copyfile(source, draft)
        draft.chmod(0o600)
        draft.rename(target)
    elif source.read_bytes() != target.read_bytes():
        raise OperatorError(
            f"{target} is not the key of the backup", hint="this is another relay's data directory"
        )


def _set_aside(target: Path) -> None:
    """Give a database a second name, and leave it without a log, so that it can be replaced.

    It keeps its place until then: without one, a relay that is started after a crash in between
    would begin with an empty database, in which everybody's name is free.
    """
    if not target.exists():
        return
    with contextlib.suppress(sqlite3.Error), closing(_open(target)) as db:
        # With what a relay that died left in its log.
        db.execute("PRAGMA journal_mode = DELETE")
    aside = f"{target.name}.replaced-{time.time_ns()}"
    logs = [target.with_name(f"{target.name}{extra}") for extra in ("-wal", "-shm")]
    # A database that is damaged still has them, and is not whole without.
    for path in (*filter(Path.exists, logs), target):
        path.with_name(path.name.replace(target.name, aside)).hardlink_to(path)
    for path in logs:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(_open(source, readonly=True)) as old, closing(_open(target)) as new:
        old.backup(new)  # in one step: one snapshot, while the relay goes on writing
        new.execute("PRAGMA journal_mode = DELETE")  # one file


def _open(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    mode = "ro" if readonly else "rw"
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    return db


def _sync(folder: Path) -> None:
    for path in (*folder.glob(f"{DATABASE_FILE}*"), folder / KEY_FILE, folder):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(f"cannot {what}: {error}", hint=_hint(error)) from error


def _hint(error: Exception) -> str | None:
    match error:
        case FileExistsError():
            return "choose a folder that does not exist yet"
        case PermissionError():
            return "give the command as the relay's user, and a folder within one of that user"
    return None
