"""Reads what the relay of the demonstration kept: every message, datagram and stored byte.

The layout of the two capture files is that of ``e2ecall-relay serve --capture`` (spec/wire.md,
"Capture"); the database is read with SQLite and as plain bytes. It searches nothing.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from e2ecall.errors import E2ECallError
from relay.wire.codec import decode
from relay.wire.errors import WireError
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import ClientFrame, Deliver, Send, ServerFrame

_SIGNALLING_HEADER = 13
"""Time, connection, direction."""
_TURN_HEADER = 11
"""Time, port, length of the address that follows."""
_RECEIVED = 0


@dataclass(frozen=True, slots=True)
class Capture:
    """Everything that one relay received, sent over signalling and stored."""

    signalling: tuple[bytes, ...]
    """WebSocket messages of both directions."""
    envelopes: tuple[bytes, ...]
    """The sealed envelopes in them, and those in the mailboxes."""
    datagrams: tuple[bytes, ...]
    """What the TURN socket received."""
    stored: tuple[bytes, ...]
    """The files of the relay's data directory."""

    @classmethod
    def load(cls, capture: Path, data: Path) -> Self:
        """Read the capture folder and the data directory of a relay that has ended.

        Raises:
            E2ECallError: a file is missing, cut off, or not what the layout says.
        """
        signalling: list[bytes] = []
        envelopes: list[bytes] = []
        for record in _records(capture / "signalling.bin"):
            message = record[_SIGNALLING_HEADER:]
            signalling.append(message)
            envelopes.extend(_envelope_in(message, received=record[12] == _RECEIVED))
        datagrams = [
            record[_TURN_HEADER + record[10] :] for record in _records(capture / "turn.bin")
        ]
        files = sorted(path for path in data.rglob("*") if path.is_file())
        for path in files:
            if path.suffix == ".sqlite":
                envelopes.extend(_mail(path))
        return cls(
            tuple(signalling),
            tuple(envelopes),
            tuple(datagrams),
            tuple(path.read_bytes() for path in files),
        )


def _records(path: Path) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise E2ECallError(f"the relay left no capture: {error}") from error
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            raise E2ECallError(f"{path.name} is cut off")
        yield data[at + 4 : end]
        at = end


def _envelope_in(message: bytes, *, received: bool) -> Iterator[bytes]:
    """Yield the envelope of a Send that the relay received, or of a Deliver that it sent."""
    try:
        if received:
            request = decode(message, ClientFrame, limit=MAX_FRAME).body
            if isinstance(request, Send):
                yield request.envelope
        else:
            push = decode(message, ServerFrame, limit=MAX_FRAME).body
            if isinstance(push, Deliver):
                yield push.envelope
    except WireError as error:
        raise E2ECallError(f"the capture holds a message of another protocol: {error}") from error


def _mail(path: Path) -> list[bytes]:
    with closing(sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT envelope FROM mail WHERE envelope IS NOT NULL")
        return [bytes(envelope) for (envelope,) in rows]
