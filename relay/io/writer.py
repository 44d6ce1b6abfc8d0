"""The one connection to the SQLite file (spec/wire.md, Storage), with group commit.

Jobs that wait at the same time share a transaction, and with it the cost of making it durable; a
job that raises is rolled back alone. Short jobs run in the event loop and leave only the commit,
which waits for the disk, to a thread; all others run there as a whole. It knows no tables.
"""

import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import trio

from relay.errors import OperatorError, RelayError, StorageError
from relay.io.whereabouts import Whereabouts

T = TypeVar("T")

MAX_BATCH: Final = 128
"""Pieces of work in one transaction: bounds how long the first job waits for the last, and the
event loop for all of them."""
WIPE_SECONDS: Final = 60.0
"""How long the log may keep what the database has overwritten."""
BUSY_TIMEOUT: Final = 2.0
"""Seconds to wait for another process that writes; a backup only reads and holds nobody up."""
CACHE_KIB: Final = 8_192
"""Pages that are held in memory: what a busy relay has under way, so that it is not read back from
the file, and what a transaction changes, so that it is written once."""


class _Job:
    __slots__ = ("error", "is_first", "pieces", "result", "task", "then", "work")

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], Any],
        then: Callable[[Any], None] | None,
        *,
        pieces: int,
        is_first: bool,
    ) -> None:
        self.work = work
        self.then = then
        self.pieces = pieces
        self.is_first = is_first
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        """Who waits; nobody any more when that was cancelled."""
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """Runs jobs on the database, one transaction at a time. Use it as an async context manager."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._jobs: deque[_Job] = deque()
        self._is_busy = False
        """Whether a transaction is under way that the thread will end, or one is to begin."""
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="relay-sqlite", daemon=True)
        self._token: trio.lowlevel.TrioToken | None = None
        self._db: sqlite3.Connection | None = None
        self._files = Whereabouts()
        self._wiped = time.monotonic()

    async def __aenter__(self) -> Self:
        self._token = trio.lowlevel.current_trio_token()
        self._db = await trio.to_thread.run_sync(_connect, self.path)
        self._files = Whereabouts(self.path, self.path.with_name(f"{self.path.name}-wal"))
        self._thread.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._jobs.clear()  # of those who gave up; nobody else is left to wait
        self._orders.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    async def run(
        self,
        work: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] | None = None,
        *,
        pieces: int = 0,
        is_first: bool = False,
    ) -> T:
        """Return what ``work`` returns, after its changes are durable.

        ``work`` runs in another thread unless it is so many short ``pieces``: then in the event
        loop where that is possible, which has to wait for it. It runs a second time where another
        job of its transaction failed. ``then`` is told its result when that is durable, in the
        order in which jobs were done, whether or not somebody still waits. What ``is_first`` is
        done before the rest of its transaction: it frees pages that the rest can use.

        Raises:
            StorageError: the database failed; nothing of ``work`` was kept.
            RelayError: as raised by ``work``; nothing of it was kept.
        """
        job = _Job(work, then, pieces=pieces, is_first=is_first)
        self._jobs.append(job)
        if not self._is_busy:
            self._is_busy = True
            # Not at once: what other tasks ask for in this turn of the loop joins in.
            assert self._token is not None
            self._token.run_sync_soon(self._begin)

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    # --- in the event loop ---

    def _begin(self) -> None:
        """Start a transaction with the jobs that wait; those that come meanwhile wait for it."""
        while self._jobs:
            batch = self._next_batch()
            assert self._db is not None
            if not (all(job.pieces for job in batch) and _run_here(self._db, batch)):
                self._orders.put(partial(self._do, batch))
                return
            if self._db.in_transaction:
                self._orders.put(partial(self._keep, batch))
                return
            _wake(batch)
        self._is_busy = False

    def _next_batch(self) -> list[_Job]:
        batch, pieces = [], 0
        while self._jobs and pieces < MAX_BATCH:
            job = self._jobs.popleft()
            batch.append(job)
            pieces += job.pieces or 1
        batch.sort(key=lambda job: not job.is_first)  # which leaves the others in their order
        return batch

    def _finish(self, batch: list[_Job]) -> None:
        _wake(batch)
        self._begin()

    # --- in the thread ---

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order()
        assert self._db is not None
        self._db.close()

    def _do(self, batch: list[_Job]) -> None:
        """Run the jobs and commit."""
        assert self._db is not None
        _commit(self._db, self._files, batch)
        self._tell(batch)

    def _keep(self, batch: list[_Job]) -> None:
        """Commit what the jobs did in the event loop."""
        assert self._db is not None
        try:
            _keep(self._db, self._files)
        except (sqlite3.Error, StorageError):
            _roll_back(self._db)
            _commit_apart(self._db, self._files, batch)
        self._tell(batch)

    def _tell(self, batch: list[_Job]) -> None:
        assert self._db is not None
        assert self._token is not None
        if time.monotonic() - self._wiped >= WIPE_SECONDS:
            _wipe_log(self._db)
            self._wiped = time.monotonic()
        with contextlib.suppress(trio.RunFinishedError):  # nobody is left to hear it
            self._token.run_sync_soon(self._finish, batch)


def _wake(batch: list[_Job]) -> None:
    for job in batch:
        if job.then is not None and job.error is None:
            job.then(job.result)
        if job.task is not None:
            trio.lowlevel.reschedule(job.task)


def _run_here(db: sqlite3.Connection, batch: list[_Job]) -> bool:
    """Do all jobs, never waiting for another process; return whether that was possible.

    What changed something stays in a transaction that is to be committed.
    """
    before = db.total_changes
    try:
        db.execute("BEGIN IMMEDIATE")
        for job in batch:
            job.result = job.work(db)
        if db.total_changes == before:
            db.execute("COMMIT")  # which has nothing to write
    except Exception:  # noqa: BLE001 - it fails once more in the thread, where it is told apart
        _roll_back(db)
        return False
    return True


def _keep(db: sqlite3.Connection, files: Whereabouts) -> None:
    """Commit, if what is kept will be found again."""
    files.check()
    db.execute("COMMIT")


def _commit(db: sqlite3.Connection, files: Whereabouts, batch: list[_Job]) -> None:
    """Do all jobs in one transaction; where one of them fails, again, so that it fails alone."""
    try:
        _begin(db)
        for job in batch:
            job.result = job.work(db)
        _keep(db, files)
    except Exception:  # noqa: BLE001 - whose it is shows below, and most batches never get there
        _roll_back(db)
        _commit_apart(db, files, batch)


def _commit_apart(db: sqlite3.Connection, files: Whereabouts, batch: list[_Job]) -> None:
    """Do all jobs in one transaction, each of which can be undone without the others."""
    try:
        _begin(db)
        for job in batch:
            _run_one(db, job)
        _keep(db, files)
    except Exception as error:  # noqa: BLE001 - the thread has to outlive whatever went wrong
        _roll_back(db)
        for job in batch:
            job.error = StorageError(f"the database failed: {error}")


def _begin(db: sqlite3.Connection) -> None:
    """Begin a transaction, waiting for another process that writes."""
    db.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT * 1000)}")
    try:
        db.execute("BEGIN IMMEDIATE")
    finally:
        db.execute("PRAGMA busy_timeout=0")


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


def _wipe_log(db: sqlite3.Connection) -> None:
    """Move the log into the database and empty it, unless a backup reads it just now."""
    with contextlib.suppress(sqlite3.Error):  # the next time is in a minute
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


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
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        db.execute("BEGIN IMMEDIATE")  # which makes the log, if there is none
        db.execute("COMMIT")
        db.execute("PRAGMA busy_timeout=0")  # as a statement in the event loop must not wait
    except (sqlite3.Error, OSError) as error:
        raise OperatorError(
            f"cannot open the database {path}: {error}",
            hint="the data directory has to exist and to be writable",
        ) from error
    return db
