"""One end of a measured call, a process of its own.

    python -m tests.bench.calls.endpoint CONTESTANT ROLE URI USERNAME PASSWORD FOLDER

CONTESTANT is ``ours`` or ``theirs``, ROLE ``caller`` or ``callee``. The caller sends sound and
picture, the callee sound alone. Lines on stdin and stdout: its own description, the other's (the
caller of ``theirs`` says its first, its callee needs the caller's first), then ``connected``, and
``over`` once it was told to stop and its notes are written. What a description is is the
contestant's business; both go the same way, outside of the network under test.
"""

import asyncio
import json
import pickle
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tests.bench.calls.material import Material
from tests.bench.calls.witness import Sent, Witness


class Lines:
    """Lines of JSON in and out."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader(limit=1 << 20)

    async def open(self) -> None:
        """Begin to read stdin."""
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader), sys.stdin)

    async def read(self) -> Any:
        """Return the next line; the parent's end is this process's end."""
        line = await self._reader.readline()
        if not line:
            raise SystemExit(1)
        return json.loads(line)

    def say(self, value: object) -> None:
        """Write a line."""
        print(json.dumps(value), flush=True)


class Studio:
    """What is sent, and the notes of it."""

    def __init__(self, folder: Path) -> None:
        self._material = Material(folder)
        self.sent = Sent()

    def samples(self, number: int) -> Any:
        """Return 20 ms of sound; they are asked for when they were just spoken."""
        self.sent.sounds.append(time.monotonic())
        return self._material.samples(number)

    def picture(self, number: int) -> Any:
        """Return a picture that is taken now."""
        self.sent.pictures.append(time.monotonic())
        return self._material.picture(number)


class Contestant(Protocol):
    """What `ours` and `theirs` have: one call, which ends when told so."""

    async def __call__(
        self,
        lines: Lines,
        role: str,
        turn: tuple[str, str, str],
        studio: Studio,
        witness: Witness,
    ) -> None: ...


async def main(name: str, role: str, uri: str, username: str, password: str, path: str) -> None:
    lines, folder = Lines(), Path(path)
    await lines.open()
    studio, witness = Studio(folder), Witness()
    contestant: Contestant = import_module(f"tests.bench.calls.{name}").call
    await contestant(lines, role, (uri, username, password), studio, witness)
    witness.save(folder / f"{role}.seen")
    (folder / f"{role}.sent").write_bytes(pickle.dumps(studio.sent))
    lines.say("over")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
