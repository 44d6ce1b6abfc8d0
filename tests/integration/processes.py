"""People in processes of their own, as a test commands and watches them; they are `peer`."""

import contextlib
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.integration.people import PATIENCE


class PeerProcess:
    """A running peer."""

    def __init__(self, process):
        self.process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._waiting = []

    async def do(self, command, **arguments):
        """Have a command carried out; return its answer, ``done`` or ``error``."""
        line = json.dumps({"do": command, **arguments}) + "\n"
        await self.process.stdin.send(line.encode())
        return await self.event("done", "error")

    async def event(self, *names, within=PATIENCE):
        """Return the next event of these names; others are kept for later."""
        with anyio.fail_after(within):
            number = 0
            while True:
                if number == len(self._waiting):
                    line = await self._lines.receive_until(b"\n", 65_536)
                    self._waiting.append(json.loads(line))
                if self._waiting[number]["event"] in names:
                    return self._waiting.pop(number)
                number += 1

    def forget(self):
        """Drop what was told and not asked for: a process that runs for long tells much."""
        self._waiting.clear()

    async def rest(self, name):
        """Return all events of this name that a process told before it ended."""
        with contextlib.suppress(anyio.EndOfStream, anyio.IncompleteRead):
            await self.event("no such event")
        return [event for event in self._waiting if event["event"] == name]

    async def close(self):
        """Close the client and return the exit code."""
        await self.process.stdin.aclose()
        with anyio.fail_after(PATIENCE):
            return await self.process.wait()

    async def kill(self):
        """End it as the kernel would: no goodbye."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def peer_process(
    backend, store, relay_url, *, ca=None, inside=(), module="tests.integration.peer"
):
    """Run a peer on trio or asyncio for the length of the block, by the command ``inside``."""
    command = [*inside, sys.executable, "-W", "error", "-m", module]
    arguments = [backend, str(store), relay_url, *([] if ca is None else [str(ca)])]
    process = await anyio.open_process([*command, *arguments], stdin=subprocess.PIPE, stderr=None)
    try:
        yield PeerProcess(process)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.aclose()
