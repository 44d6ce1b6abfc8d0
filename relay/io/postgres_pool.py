"""Connections to PostgreSQL, each in a thread of its own (spec/wire.md, Storage).

Jobs wait in one queue; a free connection takes the next, and each job is one transaction. That was
measured against an own wait loop on the event loop (spec/decisions/0021-postgresql.md). It knows no
tables.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self, TypeVar

import psycopg
import trio

from relay.errors import RelayError, StorageError

T = TypeVar("T")

Connection = psycopg.Connection[tuple[Any, ...]]
Cursor = psycopg.Cursor[tuple[Any, ...]]
Work = Callable[[Cursor], T]

CONNECTIONS: Final = 8
"""Of one node: enough for commits to share a sync of the server's log, few for its memory."""
CONNECT_SECONDS: Final = 3
STATEMENT_SECONDS: Final = 5
LOCK_SECONDS: Final = 3
PAUSE_SECONDS: Final = 0.5
"""After a failed connection; what is asked in that time fails at once and queues up nowhere."""
ANSWER_SECONDS: Final = 10.0
"""For a job: a server that was stopped, or waits for its disk, keeps no time of its own. Before
clients give up, who wait for 15 s and are to be told that nothing was lost."""
STOP_SECONDS: Final = 5.0
"""For jobs that are under way when the node stops."""
ATTEMPTS: Final = 4
"""Of one transaction that others made impossible: a deadlock, or a race that one has to lose."""

_SETTINGS: Final = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{2 * STATEMENT_SECONDS}s",
    "default_transaction_isolation": "read committed",
    # A commit that returned is on the disk, whatever the server's or the role's default is.
    "synchronous_commit": "on",
    "client_encoding": "UTF8",
}


def connect(dsn: str) -> Connection:
    """Open a connection in autocommit mode. Blocks.

    Raises:
        StorageError: the server cannot be reached, or refuses.
    """
    try:
        connection = psycopg.connect(
            dsn,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name="e2ecall-relay",
            # A server that vanished without a word is given up in about ten seconds.
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
        )
        with connection.cursor() as cursor:
            for name, value in _SETTINGS.items():
                cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
    except psycopg.Error as error:
        raise StorageError(f"cannot connect to PostgreSQL: {_reason(error)}") from error
    return connection


class _Job:
    __slots__ = ("apart", "done", "error", "is_given_up", "result", "work")

    def __init__(self, work: Work[Any], *, apart: bool) -> None:
        self.work = work
        self.apart = apart
        self.done = trio.Event()
        self.is_given_up = False
        self.result: Any = None
        self.error: Exception | None = None


class Pool:
    """Runs jobs in transactions. Use it as an async context manager.

    ``prepare`` sees each new connection before it is used, in a transaction of its own.
    """

    def __init__(self, dsn: str, prepare: Work[None], *, connections: int = CONNECTIONS) -> None:
        self._dsn = dsn
        self._prepare = prepare
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"relay-postgres-{number}", daemon=True)
            for number in range(connections)
        ]
        self._token: trio.lowlevel.TrioToken | None = None
        self._down_until = 0.0
        self._losses = 0
        """How often the server broke a connection off. The others of before are broken as well, or
        may be: each would cost somebody an answer."""

    async def __aenter__(self) -> Self:
        self._token = trio.lowlevel.current_trio_token()
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        end = time.monotonic() + STOP_SECONDS
        with trio.CancelScope(shield=True):
            for thread in self._threads:
                # Not for ever: what waits for a server that hangs ends with the process.
                patience = max(0.0, end - time.monotonic())
                await trio.to_thread.run_sync(thread.join, patience)

    async def run(self, work: Work[T], *, apart: bool = False) -> T:
        """Return what ``work`` returns, after its changes are durable.

        ``work`` may run more than once, if other transactions come in its way. With ``apart`` each
        of its statements is a transaction of its own, which saves two ways to the server and back.

        Raises:
            StorageError: the database failed, or does not answer; nothing of ``work`` was kept, or
                nobody knows.
            RelayError: as raised by ``work``; nothing of it was kept.
        """
        job = _Job(work, apart=apart)
        self._jobs.put(job)
        with trio.move_on_after(ANSWER_SECONDS):
            await job.done.wait()
        if not job.done.is_set():
            job.is_given_up = True
            raise StorageError("PostgreSQL does not answer")
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _work(self) -> None:
        connection: Connection | None = None
        opened = 0
        while (job := self._jobs.get()) is not None:
            if job.is_given_up:
                continue  # it would be done once more when it is asked for again
            try:
                if connection is not None and opened != self._losses:
                    connection.close()
                if connection is None or connection.closed:
                    opened = self._losses
                    connection = self._connect()
                job.result = transact(connection, job.work, apart=job.apart)
            except RelayError as error:
                job.error = error
            except psycopg.Error as error:
                job.error = StorageError(f"the database failed: {_reason(error)}")
                if connection is not None and connection.closed and opened == self._losses:
                    self._losses += 1
            except Exception as error:  # noqa: BLE001 - the thread has to outlive whatever went wrong
                job.error = StorageError(f"a query failed: {type(error).__name__}")
            self._tell(job)
        if connection is not None:
            connection.close()

    def _connect(self) -> Connection:
        if time.monotonic() < self._down_until:
            raise StorageError("PostgreSQL is not reachable")
        connection = None
        try:
            connection = connect(self._dsn)
            transact(connection, self._prepare)
        except (RelayError, psycopg.Error) as error:
            self._down_until = time.monotonic() + PAUSE_SECONDS
            if connection is not None:
                connection.close()
            if isinstance(error, psycopg.Error):
                raise StorageError(f"the database failed: {_reason(error)}") from error
            raise StorageError(str(error)) from error
        return connection

    def _tell(self, job: _Job) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(job.done.set)
        except trio.RunFinishedError:
            return  # nobody is left to hear it


def transact(connection: Connection, work: Work[T], *, apart: bool = False) -> T:
    """Do ``work`` in a transaction, again if others come in its way. Blocks."""
    attempt = 1
    while True:
        bounds = contextlib.nullcontext() if apart else connection.transaction()
        try:
            with bounds, connection.cursor() as cursor:
                return work(cursor)
        except (
            psycopg.errors.SerializationFailure,
            psycopg.errors.DeadlockDetected,
            psycopg.errors.UniqueViolation,
        ):
            if attempt == ATTEMPTS:
                raise
            attempt += 1


def _reason(error: psycopg.Error) -> str:
    """Say what failed without the server's details: those may quote a row."""
    if error.diag.message_primary is None and isinstance(error, psycopg.OperationalError):
        return str(error).partition("\n")[0]
    return f"{type(error).__name__} {error.sqlstate or ''}".strip()
