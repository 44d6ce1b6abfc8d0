"""What a command says on stdout: lines for people, or JSON objects for programs.

It knows no event of its own: each command gives both forms of what it tells.
"""

import json
from datetime import datetime
from typing import Any, Final

from e2ecall.cli.progress import PROGRESS

_ALLOWED: Final = {"\t", "\u200d"}
"""Not printable, and harmless: the joiner makes one emoji of several."""


class Output:
    """The output of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def tell(self, text: str, event: str, /, **fields: Any) -> None:
        """Say one thing: ``text`` to a person, or ``event`` with its fields to a program."""
        line = json.dumps({"event": event, **fields}) if self._as_json else text
        PROGRESS.erase()
        print(line, flush=True)

    def tell_programs(self, event: str, /, **fields: Any) -> None:
        """Say what comes too often for people to read."""
        if self._as_json:
            self.tell("", event, **fields)

    def device_lost(self, what: str) -> None:
        """Say that a device of this end went away; by any thread."""
        self.tell(f"{what[0].upper()}{what[1:]}.", "device_lost", reason=what)


def harmless(text: str) -> str:
    """Return a peer's text without what could control a terminal or imitate this program's lines.

    Further lines of it are indented.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n    ".join(
        "".join(c if c.isprintable() or c in _ALLOWED else "\ufffd" for c in line) for line in lines
    )


def local_time(seconds: float) -> str:
    """Return a peer's time stamp in local time, whatever number it is."""
    try:
        return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
    except (OverflowError, OSError, ValueError):
        return "????-??-?? ??:??"
