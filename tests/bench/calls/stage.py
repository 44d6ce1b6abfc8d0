"""Runs a call between a relay and two endpoints of one contestant, on three hosts or on one."""

import json
import pickle
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.bench.calls.judge import Figures, judge
from tests.bench.calls.material import Material
from tests.bench.calls.rows import Network
from tests.bench.calls.witness import load
from tests.bench.media.stun import Credential
from tests.bench.media.usage import cpu_time
from tests.network.bed import ADDRESSES
from tests.network.bed import Network as Hosts
from tests.network.link import Conditions

CONTESTANTS: Final = {
    "e2ecall": "ours",
    "aiortc": "theirs",
    "without SFrame": "unprotected",
    "SFrame": "counted",
}
"""By name, the module that is the contestant."""
PATIENCE: Final = 60
"""Seconds for each answer of a child."""
END_SECONDS: Final = 10
"""For a child that was told to end."""
_LINE: Final = 1 << 20


class CallError(Exception):
    """A call did not come about; the text says why."""


class Child:
    """A process that answers line by line. What it can do wrong is a `CallError`."""

    def __init__(self, name: str, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._name = name
        self.pid = process.pid
        self._stdin = process.stdin
        self._answers = BufferedByteReceiveStream(process.stdout)

    async def read(self) -> Any:
        """Return its next line."""
        try:
            with anyio.fail_after(PATIENCE):
                line = await self._answers.receive_until(b"\n", _LINE)
        except TimeoutError:
            raise CallError(f"the {self._name} said nothing for {PATIENCE} s") from None
        except (anyio.EndOfStream, anyio.IncompleteRead):
            raise self._died() from None
        said = json.loads(line)
        if str(said).startswith("failed"):
            raise CallError(f"the {self._name} {said}")
        return said

    async def say(self, value: object) -> None:
        """Tell it something."""
        try:
            await self._stdin.send(json.dumps(value).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise self._died() from None

    async def until(self, wanted: str) -> None:
        """Read until it says this."""
        while await self.read() != wanted:
            pass

    def used(self) -> int:
        """Return the CPU that it has used, in nanoseconds."""
        try:
            return cpu_time([self.pid])
        except OSError:
            raise self._died() from None

    def _died(self) -> CallError:
        return CallError(f"the {self._name} died; what it said of that is above")


@asynccontextmanager
async def child(name: str, command: list[str]) -> AsyncIterator[Child]:
    """Run a command for the length of the block."""
    process = await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None)
    try:
        yield Child(name, process)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
            with anyio.move_on_after(END_SECONDS) as patience:
                await process.wait()
            if patience.cancelled_caught:
                process.kill()
            await process.aclose()


@asynccontextmanager
async def turn_relay(hosts: Hosts) -> AsyncIterator[tuple[str, str]]:
    """Run our relay on its host; give the URI of its TURN server and the secret of its tickets."""
    secret = secrets.token_hex(32)
    words = ["serve", "--dev", "--signalling", "127.0.0.1:0", "--turn", f"{ADDRESSES['relay']}:0"]
    command = [*hosts.inside("relay"), sys.executable, "-m", "relay.cli", *words]
    async with child("relay", [*command, "--turn-secret", secret]) as relay:
        yield (await relay.read())["turn"], secret


async def tickets(secret: str) -> tuple[Credential, Credential]:
    """Return the credentials of the two sides of one call."""
    command = [sys.executable, "-m", "relay.cli", "ticket", "--turn-secret", secret]
    ticket = json.loads((await anyio.run_process(command)).stdout)
    return Credential(**ticket["a"]), Credential(**ticket["b"])


@dataclass(frozen=True)
class Outcome:
    """What is known of a call that is over."""

    figures: Figures
    setup: float
    """From accepting to the first decoded picture at the callee, in milliseconds."""
    cpu: float
    """Of both ends together while the call lasted, in percent of one core."""
    sframe: tuple[float, float] = (0.0, 0.0)
    """Where it was counted: the CPU of SFrame at both ends, in percent of one core, and for a
    frame that is encrypted and decrypted, in milliseconds."""


async def place_call(
    name: str,
    network: Network,
    folder: Path,
    uri: str,
    credentials: tuple[Credential, Credential],
    hosts: Hosts | None = None,
) -> Outcome:
    """Run one call of a contestant over a network; return what its callee had.

    Without ``hosts`` all of it is on this machine's loopback, where only `Network.seconds` counts.

    Raises:
        CallError: it did not come about.
        ValueError: something else was heard than what was said.
    """
    if hosts is not None:
        await _shape(hosts, network.conditions)
    async with AsyncExitStack() as stack:
        ends = {}
        for role, credential in zip(("caller", "callee"), credentials, strict=True):
            words = [CONTESTANTS[name], role, uri, credential.username, credential.password]
            command = [sys.executable, "-m", "tests.bench.calls.endpoint", *words, str(folder)]
            inside = hosts.inside(role) if hosts is not None else ()
            ends[role] = await stack.enter_async_context(child(role, [*inside, *command]))
        caller, callee = ends["caller"], ends["callee"]
        offer = await caller.read()
        if CONTESTANTS[name] != "theirs":
            answer = await callee.read()  # what Ringing brings, before anybody accepts
        accepted = time.monotonic()
        await callee.say(offer)
        if CONTESTANTS[name] == "theirs":
            answer = await callee.read()
        await caller.say(answer)
        for one in (callee, caller):
            await one.until("connected")
        # What is sent from now on can be there when the way has been gone.
        start, used = time.monotonic() + network.conditions.delay, caller.used() + callee.used()
        end = await _last(hosts, network)
        used = caller.used() + callee.used() - used
        for one in (callee, caller):
            await one.say("stop")
        for one in (callee, caller):
            await one.until("over")
    seen = load(folder / "callee.seen")
    sent, other = (pickle.loads((folder / f"{one}.sent").read_bytes()) for one in ends)
    each = [*sent.sframe, *other.sframe]
    first = seen.pictures[0][0] if seen.pictures else end
    return Outcome(
        judge(Material(folder), sent, seen, start, end),
        1000 * (first - accepted),
        100 * used / 1e9 / (end - start),
        (100 * sum(each) / 1e9 / (end - start), 2 * sum(each) / max(len(each), 1) / 1e6),
    )


async def _shape(hosts: Hosts, conditions: Conditions) -> None:
    await hosts.shape("callee", up=conditions, down=conditions)


async def _last(hosts: Hosts | None, network: Network) -> float:
    """Let a call last as long as it should, with its outage; return the time of its end."""
    start = time.monotonic()
    if hosts is not None and network.outage is not None:
        await anyio.sleep(network.outage.at)
        await _shape(hosts, Conditions(outage=True))
        await anyio.sleep(network.outage.lasting)
        await _shape(hosts, network.conditions)
    await anyio.sleep(start + network.seconds - time.monotonic())
    return time.monotonic()
