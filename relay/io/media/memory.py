"""Memory without a name that this process shares with its workers (spec/turn.md TURN-55).

What a worker is given it could open anew for writing, being the same user, and could cut off under
everybody's hands; seals of the kernel forbid that. It knows nothing of what is in the memory.
"""

import contextlib
import fcntl
import mmap
import os
from typing import Final

_FUTURE_WRITE: Final = 0x10
"""F_SEAL_FUTURE_WRITE, which Python names since 3.13 and Linux has since 5.1."""


def open_shared(name: str, size: int, *, read_only: bool) -> tuple[int, mmap.mmap]:
    """Return a descriptor of new zeroed memory, and a writable mapping of it; both to be closed.

    Nobody can change its size. With ``read_only`` nobody can map it for writing from now on.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size)
        if read_only:
            with contextlib.suppress(OSError):  # an older kernel
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FUTURE_WRITE)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, memory
