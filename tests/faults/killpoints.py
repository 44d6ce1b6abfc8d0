"""kill -9 before each of a program's system calls of some kinds, one run after the other.

strace counts the calls of each kind apart, so a point is the N-th call of its kind. A first run, to
its end, records the points; each later one has to die at its own, which strace's record shows.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

RUN_SECONDS = 60
CALL = re.compile(r"^\d+ +(\w+)\(", re.MULTILINE)
DEATH = "+++ killed by SIGKILL +++"

CHANGES = ("pwrite64", "pwritev", "fallocate", "ftruncate")
SYNCS = ("fsync", "fdatasync")
NAMES = ("unlink", "unlinkat", "link", "linkat", "rename", "renameat", "renameat2")
"""What changes a file, puts it on the disk, or changes a folder; no system has all of them."""


class Victim:
    """A Python program that works on what its arguments name, the same way each time."""

    def __init__(self, code: str, kinds: Iterable[str], record: Path) -> None:
        """Trace calls of these ``kinds`` of the program ``code`` into the file ``record``."""
        self._code = code
        self._kinds = ",".join(f"?{kind}" for kind in kinds)
        self._record = record
        self.points: list[str] = []
        """The calls of a whole run, by name."""

    def live(self, *arguments: str | Path) -> None:
        """Run the program to its end, which is exit code 0, and record the points."""
        done, self.points = self._run((), arguments)
        assert done.returncode == 0, done.stderr

    def die(self, point: int, *arguments: str | Path) -> None:
        """Run the program, and kill it as it makes the call ``points[point]``, which has no effect.

        ``arguments`` name the same as for `live`, as it was before.
        """
        call = self.points[point]
        number = self.points[: point + 1].count(call)
        inject = ("-e", f"inject={call}:signal=SIGKILL:when={number}")
        done, calls = self._run(inject, arguments)
        assert done.returncode == -9, done.stderr
        assert calls == self.points[: point + 1]
        *_, last, death = self._record.read_text().splitlines()
        assert last.endswith("= ?"), last  # a call that returned would have a result
        assert death.endswith(DEATH), death

    def _run(
        self, inject: tuple[str, ...], arguments: tuple[str | Path, ...]
    ) -> tuple[subprocess.CompletedProcess[bytes], list[str]]:
        # Python's own files are compiled or not, depending on who ran before: it writes none (-B).
        done = subprocess.run(
            ["strace", "-f", "-q", "-o", self._record, "-e", f"trace={self._kinds}", *inject,
             sys.executable, "-B", "-c", self._code, *arguments],
            check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_SECONDS,
        )  # fmt: skip
        return done, CALL.findall(self._record.read_text())
