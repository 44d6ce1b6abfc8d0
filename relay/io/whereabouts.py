"""Whether a database is where it was opened (spec/wire.md STORAGE-16).

A process that has a file open goes on writing to it after somebody removed it, moved it or put
another in its place, and no call fails. It opens nothing and repairs nothing.
"""

from pathlib import Path
from typing import Final

from relay.errors import StorageError


class Whereabouts:
    """Files that were opened, each by its name and by what it was then."""

    __slots__ = ("_files",)

    def __init__(self, *paths: Path) -> None:
        """Note what these are now; what is not there is not looked for later."""
        self._files: Final = [(path, known) for path in paths if (known := _identity(path))]

    def check(self) -> None:
        """Return if each name still leads to the same file.

        Raises:
            StorageError: one of them does not.
        """
        for path, known in self._files:
            if _identity(path) != known:
                raise StorageError(f"{path.name} was removed, moved or replaced under the relay")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
