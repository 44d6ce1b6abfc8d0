"""Questions to the person at the terminal, while the program goes on with its work.

Reads standard input without a thread of its own where the system can say when there is something
to read. It understands no answer: that is up to whoever asks.
"""

import os
import sys
from typing import Final

import anyio
import anyio.to_thread

_MAX_ANSWER: Final = 1024
"""Bytes of one answer; what is longer is cut, and so is not understood."""


class Terminal:
    """Standard input, as the place of answers. One question at a time."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._unread = b""
        self._has_ended = False

    async def ask(self, question: str) -> str | None:
        """Put a question and return the answer, stripped and in small letters.

        A program that writes to standard input is shown no question: it reads the events instead.
        Returns None when nobody can answer: standard input is closed or at its end. Cancelled, the
        question is withdrawn, and what is typed before the next one answers nothing.
        """
        if os.isatty(self._fd):
            self._forget_what_was_typed_ahead()
            # A line of its own, because more may be told while it waits for the answer.
            print(question, file=sys.stderr, flush=True)
        return await self._line()

    async def choose(self, question: str, *choices: str) -> str | None:
        """Ask until the answer is one of ``choices``; None when nobody can answer."""
        while True:
            answer = await self.ask(question)
            if answer is None or answer in choices:
                return answer

    async def _line(self) -> str | None:
        while b"\n" not in self._unread and len(self._unread) < _MAX_ANSWER:
            data = b"" if self._has_ended else await self._read()
            if not data:
                self._has_ended = True
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line[:_MAX_ANSWER].decode(errors="replace").strip().lower()

    async def _read(self) -> bytes:
        try:
            await anyio.wait_readable(self._fd)
        except (OSError, ValueError, RuntimeError):
            # Files cannot be waited for and need not be; on Windows this is the console.
            return await anyio.to_thread.run_sync(self._read_now, abandon_on_cancel=True)
        return self._read_now()

    def _read_now(self) -> bytes:
        try:
            return os.read(self._fd, _MAX_ANSWER)
        except OSError:
            return b""

    def _forget_what_was_typed_ahead(self) -> None:
        """Drop what was typed before the question: it cannot be meant as its answer."""
        try:
            import termios
        except ImportError:  # Windows
            return
        self._unread = b""
        termios.tcflush(self._fd, termios.TCIFLUSH)
