"""The lock on a store (spec/store.md, STORE-07): one opening at a time, in all processes.

A lock of its own beside SQLite's: those are given up when any descriptor of the file is closed in
the process that holds them, as by a program that copies its own store.
"""

import fcntl
import os
from pathlib import Path

from e2ecall.errors import StoreError


class StoreLock:
    """Holds a store; `release` gives it up, as the end of the process does."""

    def __init__(self, path: Path) -> None:
        """Take the lock on the file at ``path``.

        Raises:
            StoreError: somebody else has it, or the file cannot be opened.
        """
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise in_use(path) from error

    def release(self) -> None:
        """Give the lock up."""
        os.close(self._fd)


def in_use(path: Path) -> StoreError:
    """Return the error for a store that somebody else has open."""
    return StoreError(
        f"{path} is in use by another program", hint="close that one, or use another --store"
    )
