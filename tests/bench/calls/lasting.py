"""Two clients that call again and again, or for long; what their processes hold on to.

    python -m tests.bench.calls.lasting BACKEND STORE RELAY

runs one of them: a `tests.integration.peer` whose media leaves nothing behind.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from e2ecall.media.counter import HEIGHT, WIDTH
from e2ecall.media.sources import SAMPLES_PER_FRAME, GeneratedAudio, GeneratedVideo
from e2ecall.testing import running_relay
from tests.bench.media.usage import memory
from tests.integration.peer import Peer, main
from tests.integration.processes import PeerProcess, peer_process

EVERY = 2.0
"""Seconds between looks at a call that lasts."""

_TONE = (6000 * np.sin(np.arange(SAMPLES_PER_FRAME) * np.pi / 40)).astype(np.int16)
_GREY = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)


class Counting:
    """A sink that counts frames of sound and of pictures, and keeps none."""

    def __init__(self) -> None:
        self.counts = [0, 0]

    async def write(self, stream: int, frame: object, rtp_time: int) -> None:
        self.counts[stream] += 1

    async def close(self) -> None:
        pass


class Lasting(Peer):
    """A peer whose sources and sink take no memory with time."""

    def media(self, video: bool) -> dict[str, Any]:
        self.output = Counting()
        sent = {"audio": GeneratedAudio(lambda n: _TONE), "output": self.output}
        return sent | ({"video": GeneratedVideo(_picture, frame_rate=15)} if video else {})

    async def stats(self) -> dict[str, Any]:
        return {"frames": self.output.counts}


def _picture(number: int) -> Any:
    picture = _GREY.copy()
    picture[: HEIGHT // 2] = 60 + number % 100
    return picture


@dataclass(frozen=True)
class Held:
    """What a process holds on to at a moment: bytes, open files, threads."""

    memory: float
    descriptors: float
    threads: float

    @classmethod
    def of(cls, pid: int) -> "Held":
        """Look at a process, on Linux."""
        folder = Path("/proc", str(pid))
        count = [sum(1 for _ in (folder / name).iterdir()) for name in ("fd", "task")]
        return cls(memory([pid]), *count)


def growth(held: Sequence[Held]) -> Held:
    """Return by how much the last quarter is above the second; the first one is warming up."""
    quarter = len(held) // 4
    second, last = held[quarter : 2 * quarter], held[-quarter:]
    columns = [list(zip(*map(astuple, part), strict=True)) for part in (second, last)]
    before, after = ([statistics.median(column) for column in part] for part in columns)
    return Held(*(late - early for early, late in zip(before, after, strict=True)))


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[PeerProcess, PeerProcess]]:
    """Run a relay and two clients that are registered."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        relay = await stack.enter_async_context(running_relay())
        ends = []
        for name, backend in (("caller", "trio"), ("callee", "asyncio")):
            one = await stack.enter_async_context(
                peer_process(backend, folder / name, relay.url, module="tests.bench.calls.lasting")
            )
            await one.event("open")
            one.address = (await one.do("register", name=name))["address"]
            ends.append(one)
        yield ends[0], ends[1]


async def connect(caller: PeerProcess, callee: PeerProcess) -> None:
    """Place a call with sound and picture; return when both ends decoded some of both."""
    assert (await caller.do("call", to=callee.address))["event"] == "done"
    await callee.event("incoming")
    assert (await callee.do("accept"))["event"] == "done"
    for one in (caller, callee):
        await one.event("Connected")
        with anyio.fail_after(30):
            while min((await one.do("stats"))["frames"]) < 5:  # noqa: ASYNC110 - a process
                await anyio.sleep(0.05)


async def hang_up(caller: PeerProcess, callee: PeerProcess) -> None:
    """End the call, and drop what was told of it."""
    await caller.do("hangup")
    for one in (caller, callee):
        await one.event("Ended")
        one.forget()


async def calls_in_a_row(count: int) -> tuple[list[Held], list[Held]]:
    """Return what caller and callee held after each of so many calls."""
    async with pair() as ends:
        held: tuple[list[Held], list[Held]] = ([], [])
        for _ in range(count):
            await connect(*ends)
            await hang_up(*ends)
            for values, one in zip(held, ends, strict=True):
                values.append(Held.of(one.process.pid))
        return held


async def one_call(seconds: float) -> tuple[list[Held], list[Held]]:
    """Return what caller and callee held, again and again, in one call of so many seconds.

    Raises:
        RuntimeError: sound or picture stood still.
    """
    async with pair() as ends:
        held: tuple[list[Held], list[Held]] = ([], [])
        await connect(*ends)
        end, before = time.monotonic() + seconds, [[0, 0], [0, 0]]
        while time.monotonic() < end:
            await anyio.sleep(EVERY)
            for number, one in enumerate(ends):
                held[number].append(Held.of(one.process.pid))
                counts = (await one.do("stats"))["frames"]
                if any(now <= then for now, then in zip(counts, before[number], strict=True)):
                    raise RuntimeError(f"nothing new came: {counts}")
                before[number] = counts
                one.forget()
        await hang_up(*ends)
        return held


if __name__ == "__main__":
    anyio.run(lambda: main(sys.argv[2], sys.argv[3], kind=Lasting), backend=sys.argv[1])
