"""Unix sockets in deep folders: the kernel takes names of at most 107 bytes.

On Linux a folder is also reachable by the number of an open descriptor.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def at_short_path(path: Path) -> Iterator[str]:
    """Give a name of ``path`` that is short, for the length of the block.

    Raises:
        OSError: its folder cannot be opened.
    """
    if not sys.platform.startswith("linux"):
        yield os.fspath(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
