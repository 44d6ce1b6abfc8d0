"""The load generator as a process of its own, and the handle by which the benchmark commands it.

It takes orders (`tests.bench.orders`); between them its connections stay alive.
"""

import asyncio
import contextlib
import json
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tests.bench.orders import Commanded, commanded
from tests.bench.signalling.asking import Asking, Done
from tests.bench.signalling.pairs import Outcome, RelayPair, Traffic, XMPPPair
from tests.bench.signalling.servers import Target
from tests.bench.signalling.wire import Node, Wire, WireClosedError

OPEN_AT_ONCE = 16


class Generator:
    """A running generator for one server."""

    def __init__(self, process: Commanded) -> None:
        self._do = process.do
        self.busiest = 0.0
        """The largest part of its core's time that it used in a measurement."""

    def open_pairs(self, count: int, size: int) -> None:
        """Connect so many pairs, in place of those that there are."""
        self._do("open_pairs", count=count, size=size)

    def saturate(self, window: int, seconds: float, warm: float) -> Outcome:
        """Measure how much goes through."""
        done = self._do("saturate", window=window, seconds=seconds, warm=warm)
        return self._noted(Outcome(**done))

    def paced(self, rate: float, seconds: float, warm: float) -> Outcome:
        """Measure how long envelopes take at a fixed rate."""
        return self._noted(Outcome(**self._do("paced", rate=rate, seconds=seconds, warm=warm)))

    def ask(self, what: str, **arguments: int) -> Done:
        """Do what the method of `Asking` with this name does."""
        return self._noted(Done(**self._do(what, **arguments)))

    def hold(self, count: int) -> None:
        """Log so many more of the registered accounts in, and keep these connections."""
        self._do("hold", count=count)

    def _noted(self, outcome: Any) -> Any:
        self.busiest = max(self.busiest, outcome.own_cpu / outcome.seconds)
        return outcome


@contextlib.contextmanager
def generator(target: Target, core: int) -> Iterator[Generator]:
    """Run a generator against a server, pinned to a core, for the length of the block."""
    arguments = json.dumps(
        {
            "nodes": [asdict(node) for node in target.nodes],
            "xmpp": target.xmpp,
            "pids": target.pids,
        }
    )
    with commanded("tests.bench.signalling.generator", arguments, core=core) as process:
        yield Generator(process)


class _Worker:
    """The other side: what the process does."""

    def __init__(self, nodes: list[Node], xmpp: tuple[str, int] | None, pids: list[int]) -> None:
        self._nodes, self._xmpp, self._pids = nodes, xmpp, pids
        self._pairs: list[Any] = []
        self._held: list[Wire] = []
        self._asking = Asking(nodes, pids) if nodes else None

    async def do(self, operation: str, **arguments: Any) -> Any:
        match operation:
            case "open_pairs":
                return await self._open_pairs(**arguments)
            case "saturate":
                return asdict(await Traffic(self._pairs, self._pids).saturate(**arguments))
            case "paced":
                return asdict(await Traffic(self._pairs, self._pids).paced(**arguments))
            case "hold":
                return await self._hold(**arguments)
            case _:
                return asdict(await getattr(self._asking, operation)(**arguments))

    async def _open_pairs(self, count: int, size: int) -> None:
        for pair in self._pairs:
            pair.close()
        self._pairs = []
        left = iter(range(count))

        async def several() -> None:
            for number in left:
                pair = (
                    await RelayPair.open(self._nodes, number, size)
                    if self._xmpp is None
                    else await XMPPPair.open(self._xmpp, number, size)
                )
                self._pairs.append(pair)

        await _all_at_once(several)

    async def _hold(self, count: int) -> None:
        assert self._asking is not None
        asking, begin = self._asking, len(self._held)
        left = iter(asking.identities[begin : begin + count])

        async def several() -> None:
            for identity in left:
                wire = await asking.connect()
                assert wire.hello is not None
                await wire.request(identity.login(wire.hello))
                self._held.append(wire)

        await _all_at_once(several)


async def _all_at_once(several: Any) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(OPEN_AT_ONCE):
            group.create_task(several())


async def _main(arguments: dict[str, Any]) -> None:
    nodes = [Node(**node) for node in arguments["nodes"]]
    xmpp = tuple(arguments["xmpp"]) if arguments["xmpp"] else None
    worker = _Worker(nodes, xmpp, arguments["pids"])
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        try:
            answer = {"result": await worker.do(order.pop("do"), **order)}
        except* (WireClosedError, OSError, TimeoutError) as group:
            answer = {"error": "; ".join(map(repr, group.exceptions))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    asyncio.run(_main(json.loads(sys.argv[1])))
