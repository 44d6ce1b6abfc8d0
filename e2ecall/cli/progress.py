"""Says at a terminal what a command is waiting for, once that takes longer than a second.

On stderr, in one line that goes away again. Programs and files see nothing of it.
"""

import os
import sys
import time
from typing import Final

import anyio

PATIENCE: Final = 1.0
"""Seconds of waiting that need no explanation."""

_TICK: Final = 0.1
_TURNS: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ERASE: Final = "\r\x1b[K"


class Progress:
    """The waiting of one process. `run` draws, in a task of its own."""

    def __init__(self) -> None:
        self._what: str | None = None
        self._since = 0.0
        self._is_drawn = False

    def say(self, what: str | None) -> None:
        """Begin to wait for something, or for nothing any more."""
        self.erase()
        self._what, self._since = what, time.monotonic()

    def erase(self) -> None:
        """Clear the line, because something else is written now."""
        if self._is_drawn:
            self._is_drawn = False
            sys.stderr.write(_ERASE)
            sys.stderr.flush()

    async def run(self) -> None:
        """Draw until cancelled; returns at once where nobody looks."""
        if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            return
        try:
            while True:
                self._draw(time.monotonic() - self._since)
                await anyio.sleep(_TICK)
        finally:
            self.erase()

    def _draw(self, waited: float) -> None:
        if self._what is None or waited < PATIENCE:
            return
        self._is_drawn = True
        turn = _TURNS[int(waited / _TICK) % len(_TURNS)]
        sys.stderr.write(f"{_ERASE}{turn} {self._what} ({waited:.0f} s)")
        sys.stderr.flush()


PROGRESS: Final = Progress()
"""A process has one terminal."""
