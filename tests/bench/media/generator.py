"""The load generator as a process of its own, and the handle by which a benchmark commands it.

``python -m tests.bench.media.generator HOST PORT PID...`` reads one JSON object a line: an
operation and its arguments (`tests.bench.orders`). The PIDs are those of the server, whose CPU time
is read at the edges of each measurement.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tests.bench.media.clients import Client, Clients, RefusedError, open_socket
from tests.bench.media.servers import Pair, Server
from tests.bench.media.stun import Credential
from tests.bench.media.traffic import Outcome, Plan, TooSlowError, Traffic
from tests.bench.media.usage import cpu_time
from tests.bench.orders import Commanded, commanded

REBIND_SECONDS = 120
"""Well below the 300 s after which a permission is over."""


@dataclass(frozen=True)
class Cycles:
    """Allocations that were made and released again, in which time, for how much CPU time."""

    allocations: int
    seconds: float
    usage: int


class Generator:
    """A running generator."""

    def __init__(self, process: Commanded) -> None:
        self._do = process.do

    def add(self, pairs: list[Pair]) -> None:
        """Allocate and bind channels for one client of each credential."""
        self._do("add", pairs=[[asdict(a), asdict(b)] for a, b in pairs])

    def echoed(self, count: int) -> None:
        """Add clients without allocations, whose packets an echo sends back to themselves."""
        self._do("echoed", count=count)

    def run(self, plan: Plan) -> Outcome:
        """Measure once."""
        return Outcome(**self._do("run", **asdict(plan)))

    def cycles(self, pairs: list[Pair], seconds: float) -> Cycles:
        """Make and release allocations for these credentials, again and again."""
        pairs_ = [[asdict(a), asdict(b)] for a, b in pairs]
        return Cycles(**self._do("cycles", pairs=pairs_, seconds=seconds))


@contextlib.contextmanager
def generator(server: Server, core: int) -> Iterator[Generator]:
    """Run a generator against ``server``, pinned to a core, for the length of the block."""
    arguments = map(str, (*server.address, *server.pids))
    with commanded("tests.bench.media.generator", *arguments, core=core) as process:
        yield Generator(process)


class _Worker:
    """The other side: what the process does."""

    def __init__(self, host: str, port: int, pids: list[int]) -> None:
        self._clients = Clients(open_socket(), (host, port))
        self._usage = partial(cpu_time, pids)
        self._traffic: Traffic | None = None
        self._bound = 0.0

    def add(self, pairs: list[list[dict[str, str]]]) -> None:
        added = self._clients.add(_credentials(pairs))
        self._clients.allocate(added)
        self._bind(added)

    def echoed(self, count: int) -> None:
        nobody = Credential("", "")
        for number, client in enumerate(self._clients.add([(nobody, nobody)] * (count // 2))):
            client.peer, client.channel = client, 0x4000 + number % 0x1000
        self._bound = time.monotonic()

    def run(self, **plan: Any) -> dict[str, Any]:
        if time.monotonic() - self._bound > REBIND_SECONDS:
            self._bind(self._clients.all)
        if self._traffic is None:
            self._traffic = Traffic(self._clients, self._usage)
        return asdict(self._traffic.run(Plan(**plan)))

    def cycles(self, pairs: list[list[dict[str, str]]], seconds: float) -> dict[str, Any]:
        credentials = _credentials(pairs)
        done, usage, start = 0, self._usage(), time.monotonic()
        while (taken := time.monotonic() - start) < seconds:
            added = self._clients.add(credentials)
            self._clients.allocate(added)
            self._clients.release(added)
            done += len(added)
        return asdict(Cycles(done, taken, self._usage() - usage))

    def _bind(self, clients: list[Client]) -> None:
        self._clients.bind(clients)
        self._bound = time.monotonic()

    def close(self) -> None:
        self._clients.sock.close()


def _credentials(pairs: list[list[dict[str, str]]]) -> list[Pair]:
    return [(Credential(**a), Credential(**b)) for a, b in pairs]


def main(host: str, port: str, *pids: str) -> None:
    worker = _Worker(host, int(port), [int(pid) for pid in pids])
    operations = {
        "add": worker.add,
        "echoed": worker.echoed,
        "run": worker.run,
        "cycles": worker.cycles,
    }
    for line in sys.stdin:
        order = json.loads(line)
        operation = operations[order.pop("do")]
        try:
            answer = {"result": operation(**order)}
        except (RefusedError, TimeoutError, TooSlowError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    worker.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
