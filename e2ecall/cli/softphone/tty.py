"""The terminal as the screen writes to it: one that hangs or goes away holds nothing up.

Textual writes in a thread, through a short queue, and its event loop waits where that is full. The
call lives on the same loop: a terminal that takes nothing (its window hangs, somebody selects a
text in it, a connection is stuck) must neither freeze nor end it. So writes are taken at once here,
and what does not fit is left out until the whole screen can be drawn again; keys count all the
while. Only one that goes away, or takes nothing for minutes, ends the call: a microphone must not
stay open that nobody can close any more.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

STUCK_AFTER: Final = 300.0
"""Seconds in which a terminal takes nothing before it counts as gone: who selects a text or pulls a
window about is back long before, and who is not heard talking will have been hung up on."""

MAX_WAITING: Final = 65_536
"""Characters that wait to be written; where one text more would be too many, those before it are
left out."""

LAST_WORDS: Final = 1.0
"""Seconds for what gives the terminal back."""

_TICK: Final = 0.5


class PatientTerminal:
    """Takes text at once and writes it in a thread of its own.

    A thread calls ``on_gone``, once, where the terminal has gone; and ``on_late`` where it takes
    text again after some was left out.
    """

    def __init__(
        self,
        terminal: TextIO,
        on_gone: Callable[[], None],
        on_late: Callable[[], None],
        *,
        stuck_after: float = STUCK_AFTER,
    ) -> None:
        self._terminal = terminal
        self._on_gone = on_gone
        self._on_late = on_late
        self._stuck_after = stuck_after
        self._texts: deque[str] = deque()
        self._waiting = 0
        self._lacks = False
        self._changed = threading.Condition()
        self._writing_since: float | None = None
        self._gone = self._closed = False
        for work in (self._write_all, self._watch):
            threading.Thread(target=work, name="e2ecall-terminal", daemon=True).start()

    def write(self, text: str) -> int:
        """Have a text written, if the terminal is still there."""
        with self._changed:
            if not self._gone:
                if self._texts and self._waiting + len(text) > MAX_WAITING:
                    self._texts.clear()
                    self._waiting, self._lacks = 0, True
                self._texts.append(text)
                self._waiting += len(text)
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Nothing to do: it is written as soon as it can be."""

    def fileno(self) -> int:
        """Return the terminal's descriptor."""
        return self._terminal.fileno()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._terminal.isatty()

    def close(self) -> None:
        """Wait a moment until all is written, and end the threads, unless one is stuck for good."""
        with self._changed:
            self._changed.wait_for(self._is_written, LAST_WORDS)
            self._closed = True
            self._changed.notify_all()

    def _is_written(self) -> bool:
        return self._gone or (not self._texts and self._writing_since is None)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._writing_since = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._texts or self._closed or self._gone)
                if self._closed or self._gone:
                    return
                text = "".join(self._texts)
                self._texts.clear()
                self._waiting = 0
                self._writing_since = time.monotonic()
            try:
                _write(self._terminal.fileno(), text.encode(errors="replace"))
            except OSError:
                self._lose()
            self._catch_up()

    def _catch_up(self) -> None:
        """Have what was left out drawn again, now that the terminal took something."""
        with self._changed:
            late, self._lacks = self._lacks, False
        if late:
            self._on_late()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed or self._gone, _TICK):
                    return
                since = self._writing_since
            if since is not None and time.monotonic() - since > self._stuck_after:
                self._lose()

    def _lose(self) -> None:
        with self._changed:
            if self._gone:
                return
            self._gone = True
            self._texts.clear()
            self._waiting = 0
            self._changed.notify_all()
        _write_nowhere()
        self._on_gone()


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it; without Python's buffers, whose lock a stuck write would keep for ever."""
    while data:
        data = data[os.write(descriptor, data) :]


def _write_nowhere() -> None:
    """Let what the program says from here on go nowhere, where it cannot be held up either."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    os.close(null)


@contextmanager
def patient_terminal(on_gone: Callable[[], None], on_late: Callable[[], None]) -> Iterator[None]:
    """Have Textual write to such a terminal; what is called is called from another thread."""
    terminal = sys.__stderr__  # what its driver writes to
    assert terminal is not None
    patient = PatientTerminal(terminal, on_gone, on_late)
    program: Any = sys
    program.__stderr__ = patient
    try:
        yield
    finally:
        program.__stderr__ = terminal
        patient.close()
