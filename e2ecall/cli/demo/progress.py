"""Tells a person what the demonstration is doing: a line a step, a bar while the call lasts.

Writes to the console that it is given; it waits for nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from e2ecall.cli.demo.process import Event

_WORDS: Final[dict[str, Callable[[Event], str]]] = {
    "ready": lambda event: f"listens on {event['signalling']}",
    "registered": lambda event: f"is registered as {event['address']}",
    "texted": lambda _event: "sent a sealed text",
    "text": lambda _event: "read it",
    "calling": lambda _event: "calls",
    "rings": lambda event: f"rings: {event['caller']}",
    "ringing": lambda _event: "hears it ring",
    "sas": lambda event: f"sees the spoken code  {event['code']}",
    "connected": lambda _event: "is connected: media flows, encrypted end to end",
    "ended": lambda event: f"the call is over ({event['reason']})",
    "error": lambda event: f"failed: {event['text']}",
}


class Progress:
    """The running commentary."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._seconds = 0.0
        self._is_quiet = False

    def quiet(self) -> None:
        """Say no more of what processes say, errors excepted."""
        self._is_quiet = True

    def note(self, text: str) -> None:
        """Say what comes next."""
        self._console.print(Text.assemble(("  ... ", "dim"), text))

    def event(self, name: str, event: Event) -> None:
        """Say what a process said."""
        words = _WORDS.get(event["event"])
        if words is None or (self._is_quiet and event["event"] != "error"):
            return
        self._console.print(Text.assemble((f"{name:>7}  ", "bold cyan"), words(event)))
        if name == "caller" and event["event"] == "connected":
            self._start_bar()

    @contextmanager
    def call(self, seconds: float) -> Iterator[None]:
        """Show a bar from the moment when media flows until the block ends."""
        self._seconds = seconds
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _start_bar(self) -> None:
        label = TextColumn(f"         a call of {self._seconds:g} s")
        columns = (label, BarColumn(), TimeElapsedColumn())
        # On a terminal only: a bar in a log file is noise.
        self._bar = Bar(*columns, console=self._console, transient=True)
        if self._console.is_terminal:
            self._bar.add_task("call", total=None)
            self._bar.start()
