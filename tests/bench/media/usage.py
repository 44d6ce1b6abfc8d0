"""What a server consumes: the CPU time and the memory of its process and all its children (Linux).

Time is what the scheduler counted for all threads, also those that ended, in nanoseconds; it has
the work of the kernel for their system calls in it. Memory is the proportional set size, so that
pages which workers share count once.
"""

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CPUCLOCK_SCHED = 2
PREFERRED = -15
"""The niceness at which a busy machine disturbs least; servers and generator all have it."""


def family(pid: int) -> list[int]:
    """Return a process and all its descendants; the process alone where there is no ``/proc``."""
    if not PROC.exists():
        return [pid]
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


class Others:
    """What else the machine does from here on, in seconds of CPU."""

    def __init__(self) -> None:
        self._busy, self._stolen, self._start = *_machine(), time.monotonic()

    def share(self) -> tuple[float, float]:
        """Return which part of all CPU time went to other programs, and to other machines.

        All our children have to have ended, as only then their time is known.
        """
        busy, stolen = _machine()
        capacity = (time.monotonic() - self._start) * (os.cpu_count() or 1)
        return (busy - self._busy) / capacity, (stolen - self._stolen) / capacity


def _machine() -> tuple[float, float]:
    """Return seconds of CPU that others than we and our children used, and that were stolen."""
    fields = [int(field) for field in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, stolen = fields
    tick = os.sysconf("SC_CLK_TCK")
    ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in ours)
    return (user + nice + system + irq + softirq) / tick - own, stolen / tick


@contextlib.contextmanager
def preferred() -> Iterator[bool]:
    """Let us and what we start run before other programs; say whether the system allows it.

    Linux weighs sessions against each other (autogroup) before it looks at who is nice in them.
    """
    group = PROC / "self" / "autogroup"
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PREFERRED)
    except PermissionError:
        yield False
        return
    kept = group.read_text().split()[-1] if group.exists() else None
    try:
        if kept is not None:
            group.write_text(str(PREFERRED))
        yield True
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
        if kept is not None:
            group.write_text(kept)
