"""A terminal that hangs holds up nobody who writes to it."""

import contextlib
import os
import select
import threading
import tty as modes

import pytest

from e2ecall.cli.softphone import tty
from e2ecall.cli.softphone.tty import MAX_WAITING, PatientTerminal

PATIENCE = 60.0


class Stuck:
    """A patient terminal on a pty that is read when the test says so, and what it told."""

    def __init__(self, **options):
        self.master, slave = os.openpty()
        modes.setraw(slave)
        self._file = os.fdopen(slave, "w", encoding="utf-8")
        self._changed, self.told = threading.Condition(), []
        before = set(threading.enumerate())
        self.terminal = PatientTerminal(
            self._file, lambda: self._tell("gone"), lambda: self._tell("late"), **options
        )
        self._threads = set(threading.enumerate()) - before

    def wait_told(self, what):
        with self._changed:
            assert self._changed.wait_for(lambda: what in self.told, PATIENCE)

    def read(self, until):
        """Read what was written until this is the end of it."""
        data = b""
        while not data.endswith(until):
            assert select.select([self.master], [], [], PATIENCE)[0], data[-80:]
            data += os.read(self.master, 65_536)
        return data

    def close(self):
        self.terminal.close()
        os.close(self.master)  # from here on nobody can be stuck in writing
        for thread in self._threads:
            thread.join(PATIENCE)
        self._file.close()

    def _tell(self, what):
        with self._changed:
            self.told.append(what)
            self._changed.notify_all()


@pytest.fixture
def stuck(monkeypatch):
    """Give a function that makes one."""
    # Where what a program says goes once its terminal has gone: here that is pytest's own output.
    monkeypatch.setattr(tty, "_write_nowhere", lambda: None)
    with contextlib.ExitStack() as stack:

        def make(**options):
            made = Stuck(**options)
            stack.callback(made.close)
            return made

        yield make


def test_a_stuck_terminal_takes_all_and_keeps_little(stuck):
    """CALL-52: what is written to a stuck terminal is taken at once; what is too much is left out,
    and that it has to be drawn again is told when the terminal takes something.
    """
    one = stuck()
    for number in range(40_000):
        assert one.terminal.write(f"{number:09}\n") == 10
    one.terminal.write("at last")
    data = one.read(b"at last")
    assert data.startswith(b"000000000\n")
    # What was being written when it got stuck, what may wait, and no more.
    assert len(data) < 5 * MAX_WAITING < 400_000
    one.wait_told("late")
    one.terminal.write("all of it")
    assert one.read(b"all of it") == b"all of it"


def test_a_terminal_that_hangs_for_long_has_gone(stuck):
    """CALL-52: one that takes nothing for too long counts as gone, which is told once."""
    one = stuck(stuck_after=0.05)
    one.terminal.write("x" * 1_000_000)
    one.wait_told("gone")
    one.terminal.write("nobody reads this")
    one.terminal.close()
    assert one.told == ["gone"]
