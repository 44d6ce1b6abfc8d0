"""Unix sockets in deep folders: the kernel takes names of at most some 100 bytes.

On Linux a folder is also reachable by the number of an open descriptor. Elsewhere this process goes
there for the moment, so nothing else may rely on relative paths then.
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
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            yield path.name
        finally:
            os.chdir(before)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
