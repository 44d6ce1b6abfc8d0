"""The one thread that touches the SQLite file (spec/wire.md, Storage), with group commit.

Jobs that wait at the same time share a transaction, and with it the cost of making it durable; a
job that raises is rolled back alone. It knows no tables.
"""

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import trio

from relay.errors import OperatorError, RelayError, StorageError

T = TypeVar("T")

MAX_BATCH: Final = 256
"""Jobs in one transaction: bounds how long the first of them waits for the last."""
WIPE_SECONDS: Final = 60.0
"""How long the log may keep what the database has overwritten."""
BUSY_TIMEOUT: Final = 2.0
"""Seconds to wait for another process that writes; a backup only reads and holds nobody up."""


class _Job:
    __slots__ = ("error", "result", "task", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        """Who waits; nobody any more when that was cancelled."""
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """Runs jobs on the database in its own thread. Use it as an async context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="relay-sqlite", daemon=True)
        self._token: trio.lowlevel.TrioToken | None = None
        self._db: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        self._token = trio.lowlevel.current_trio_token()
        self._db = await trio.to_thread.run_sync(_connect, self._path)
        self._thread.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._jobs.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns, after its changes are durable.

        ``work`` runs a second time where another job of its transaction failed.

        Raises:
            StorageError: the database failed; nothing of ``work`` was kept.
            RelayError: as raised by ``work``; nothing of it was kept.
        """
        job = _Job(work)
        self._jobs.put(job)

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _work(self) -> None:
        assert self._db is not None
        stopping, wiped = False, time.monotonic()
        while not stopping:
            batch: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                batch.append(job)
                if len(batch) == MAX_BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            stopping = job is None
            if batch:
                _commit(self._db, batch)
                self._tell(batch)
            if time.monotonic() - wiped >= WIPE_SECONDS:
                _wipe_log(self._db)
                wiped = time.monotonic()
        self._db.close()

    def _tell(self, batch: list[_Job]) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(_finish, batch)
        except trio.RunFinishedError:
            return  # nobody is left to hear it


def _finish(batch: list[_Job]) -> None:
    for job in batch:
        if job.task is not None:
            trio.lowlevel.reschedule(job.task)


def _commit(db: sqlite3.Connection, batch: list[_Job]) -> None:
    """Do all jobs in one transaction; where one of them fails, again, so that it fails alone."""
    try:
        db.execute("BEGIN IMMEDIATE")
        for job in batch:
            job.result = job.work(db)
        db.execute("COMMIT")
    except Exception:  # noqa: BLE001 - whose it is shows below, and most batches never get there
        if db.in_transaction:
            db.execute("ROLLBACK")
        _commit_apart(db, batch)


def _commit_apart(db: sqlite3.Connection, batch: list[_Job]) -> None:
    """Do all jobs in one transaction, each of which can be undone without the others."""
    try:
        db.execute("BEGIN IMMEDIATE")
        for job in batch:
            _run_one(db, job)
        db.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - the thread has to outlive whatever went wrong
        if db.in_transaction:
            db.execute("ROLLBACK")
        for job in batch:
            job.error = StorageError(f"the database failed: {error}")


def _wipe_log(db: sqlite3.Connection) -> None:
    """Move the log into the database and empty it, unless a backup reads it just now."""
    for statement in (
        "PRAGMA busy_timeout=0",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        f"PRAGMA busy_timeout={int(BUSY_TIMEOUT * 1000)}",
    ):
        with contextlib.suppress(sqlite3.Error):  # the next time is in a minute
            db.execute(statement).fetchall()


def _run_one(db: sqlite3.Connection, job: _Job) -> None:
    db.execute("SAVEPOINT job")
    try:
        job.result = job.work(db)
    except Exception as error:
        if not db.in_transaction:
            raise  # a full disk rolls the whole transaction back; then nobody's job was done
        db.execute("ROLLBACK TO job")
        known = isinstance(error, RelayError)
        job.error = error if known else StorageError(f"a query failed: {type(error).__name__}")
    db.execute("RELEASE job")


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600)
        db = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA journal_mode=WAL")
        # FULL: an answered Send has to survive a power cut; group commit pays for it.
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA foreign_keys=ON")
        # STORAGE-14: FAST would leave whole pages, where envelopes are, and costs no less.
        db.execute("PRAGMA secure_delete=ON")
    except (sqlite3.Error, OSError) as error:
        raise OperatorError(
            f"cannot open the database {path}: {error}",
            hint="the data directory has to exist and to be writable",
        ) from error
    return db
