"""The encrypted store (spec/store.md): one SQLite file that holds everything a device must keep.

Every record is sealed with XChaCha20-Poly1305 and bound to its place; names of records are keyed
hashes, so the file shows how much is in it and nothing else. It knows nothing of what it keeps.
"""

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from e2ecall.crypto.argon2 import RECOMMENDED, Argon2Cost
from e2ecall.errors import LocalProtocolError, StoreError
from e2ecall.io.records import Change, RecordKind, Records
from e2ecall.io.storefile import StoreFile, open_file
from e2ecall.secret import Secret

__all__ = ["Change", "RecordKind", "Store"]


class Store:
    """An open store: reads come from memory, writes are on disk before `write` returns."""

    def __init__(self, file: StoreFile, records: Records) -> None:
        """Use `open`."""
        self._file = file
        self._records = records
        self._writer = ThreadPoolExecutor(1, "store")
        self._is_closed = False

    @classmethod
    async def open(cls, path: Path, passphrase: Secret, *, cost: Argon2Cost = RECOMMENDED) -> Self:
        """Open the store at ``path``, or create it where there is no file.

        ``cost`` counts for a new store only. When opening fails nothing has been written.

        Raises:
            StoreError: wrong passphrase, damaged, in use by another process, not a store.
        """
        with anyio.CancelScope(shield=True):  # else an open file could be left to nobody
            file, records = await anyio.to_thread.run_sync(open_file, path, passphrase, cost)
        return cls(file, records)

    def get(self, kind: RecordKind, key: bytes = b"") -> bytes | None:
        """Return the record under (kind, key), or None."""
        return self._records.get((kind, key))

    def all(self, kind: RecordKind) -> dict[bytes, bytes]:
        """Return all records of a kind by their key."""
        return {key: value for (of, key), value in self._records.items() if of == kind}

    async def write(self, changes: Iterable[Change]) -> None:
        """Apply all changes or none, and return when they are on disk.

        Cancellation is held back until the outcome is known, so memory and disk never differ.

        Raises:
            StoreError: the disk refused, a record is too long, or the store is closed; nothing
                has changed.
        """
        listed = list(changes)
        await anyio.lowlevel.checkpoint()
        if self._is_closed:
            raise StoreError("the store is closed")
        await self._finish(lambda: self._commit(listed))

    async def change_passphrase(
        self, passphrase: Secret, *, cost: Argon2Cost = RECOMMENDED
    ) -> None:
        """Seal everything anew, so that ``passphrase`` opens the store and the former does not.

        Cancellation is held back as in `write`; a crash leaves one of the two that works.

        Raises:
            LocalProtocolError: the passphrase is empty.
            StoreError: the disk refused, or the store is closed; nothing has changed.
        """
        if not len(passphrase):
            raise LocalProtocolError("an empty passphrase protects nothing")
        await anyio.lowlevel.checkpoint()
        if self._is_closed:
            raise StoreError("the store is closed")
        # The writer reads what is there when its turn comes: writes may be waiting before it.
        await self._finish(lambda: self._file.rewrite(self._records, passphrase, cost))

    async def aclose(self) -> None:
        """Close the file and give up the lock on it; once more does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._finish(self._file.close)
        finally:
            self._writer.shutdown()

    def _commit(self, changes: list[Change]) -> None:
        """Write to disk, then to memory, which readers in another thread see change at once."""
        self._file.commit(changes)
        records = dict(self._records)
        for change in changes:
            if change.value is None:
                records.pop((change.kind, change.key), None)
            else:
                records[change.kind, change.key] = change.value
        self._records = records

    async def _finish(self, work: Callable[[], None]) -> None:
        """Have the writer do ``work`` and wait for its end, also when cancelled meanwhile.

        The writer does one thing after the other. A shield keeps AnyIO's cancellation away; a task
        of asyncio can be cancelled past it, as `asyncio.wait_for` does.
        """
        done, token = anyio.Event(), anyio.lowlevel.current_token()

        def work_and_tell() -> None:
            try:
                work()
            finally:
                with contextlib.suppress(RuntimeError):  # the event loop is gone, nobody waits
                    anyio.from_thread.run_sync(done.set, token=token)

        doing = self._writer.submit(work_and_tell)
        cancelled: BaseException | None = None
        with anyio.CancelScope(shield=True):
            while not done.is_set():
                try:
                    await done.wait()
                except anyio.get_cancelled_exc_class() as error:
                    cancelled = error
        doing.result()  # at once: all that was left to do is to return
        if cancelled is not None:
            raise cancelled
