"""What a server consumes: the CPU time and the memory of its process and all its children (Linux).

Time is what the scheduler counted for all threads, also those that ended, in nanoseconds; it has
the work of the kernel for their system calls in it. Memory is the proportional set size, so that
pages which workers share count once.
"""

import contextlib
import time
from pathlib import Path

PROC = Path("/proc")
CPUCLOCK_SCHED = 2


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                stat = (entry / "stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, open_ends = [], [pid]
    while open_ends:
        found.append(open_ends.pop())
        open_ends += parents.get(found[-1], [])
    return found


def cpu_time(pids: list[int]) -> int:
    """Return nanoseconds of CPU that the processes have used so far, in user and system mode.

    Raises:
        OSError: one of them has ended.
    """
    # clock_getcpuclockid(3) of the C library makes the number of a process's clock like this.
    return sum(time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED) for pid in pids)


def memory(pids: list[int]) -> int:
    """Return bytes of memory that the processes occupy together."""
    total = 0
    for pid in pids:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
