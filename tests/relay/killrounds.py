"""Kill a relay under load again and again, and count what that cost (F1).

``python -m tests.relay.killrounds --backend postgres --rounds 20`` says what was acknowledged,
delivered, lost, and delivered twice, as JSON; the tests run a few rounds. Senders and the reader do
what clients do: they repeat a request that got no reply, and connect again.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from relay.wire.messages import Ack, Deliver, Done, Send
from tests.relay.cluster import Cluster
from tests.relay.conftest import Identity, RelayProcess, letter, wire
from tests.relay.nodes import NAME, node_config

SENDERS = 4
LOST_CONNECTION = (ConnectionClosed, InvalidHandshake, OSError, EOFError, TimeoutError)
DRAIN_SECONDS = 60


@dataclass
class Count:
    """Envelopes; ``twice`` came again after an answered Ack, or twice on one connection."""

    rounds: int = 0
    sent: int = 0
    acknowledged: int = 0
    received: int = 0
    redelivered: int = 0
    lost: int = 0
    twice: int = 0


@dataclass
class Load:
    """Senders and one reader, against whichever of the relays can be reached."""

    relays: list[RelayProcess]
    identity: Identity
    count: Count = field(default_factory=Count)
    acknowledged: set[bytes] = field(default_factory=set)
    received: set[bytes] = field(default_factory=set)
    settled: set[bytes] = field(default_factory=set)
    stopping: bool = False

    def url(self) -> str:
        """Return a relay to try."""
        return random.choice(self.relays).url

    async def go_on(self, seconds: float) -> None:
        """Wait for so long, and until something was acknowledged meanwhile."""
        before = len(self.acknowledged)
        with trio.fail_after(seconds + 20):
            await trio.sleep(seconds)
            while len(self.acknowledged) < before + SENDERS:  # noqa: ASYNC110 - the relay's doing
                await trio.sleep(0.01)

    async def send(self, sender: int) -> None:
        """Send numbered envelopes, each until it is acknowledged."""
        numbers = itertools.count()
        pending: Send | None = None
        while not self.stopping:
            try:
                async with wire(self.url()) as client:
                    while not self.stopping:
                        if pending is None:
                            envelope = b"%d:%d" % (sender, next(numbers))
                            pending = letter(self.identity.username, envelope)
                            self.count.sent += 1
                        with trio.fail_after(10):
                            answer = await client.request(pending)
                        if answer == Done():
                            self.acknowledged.add(pending.envelope)
                            pending = None
                        else:  # full, or the database is not there
                            await trio.sleep(0.02)
            except (*LOST_CONNECTION, trio.TooSlowError):
                await trio.sleep(0.02)

    async def read(self) -> None:
        """Receive and acknowledge until cancelled."""
        while True:
            try:
                async with wire(self.url()) as client:
                    if await client.request(self.identity.login(client.hello)) == Done():
                        await self._follow(client)
            except LOST_CONNECTION:
                pass
            await trio.sleep(0.02)

    async def _follow(self, client) -> None:
        here = set()
        while True:
            push = await client.push()
            if not isinstance(push, Deliver):
                return
            envelope = push.envelope
            self.count.redelivered += envelope in self.received
            self.count.twice += envelope in self.settled or envelope in here
            here.add(envelope)
            self.received.add(envelope)
            if await client.request(Ack((push.delivery_id,))) == Done():
                self.settled.add(envelope)


class Relays:
    """One relay with SQLite, or two nodes that share a database; each can be killed."""

    def __init__(self, folder: Path, cluster: Cluster | None) -> None:
        self._folder = folder
        self._configs = []
        if cluster is None:
            self._configs.append(node_config(folder / "one", "one", None))
        else:
            dsn = cluster.database()
            self._configs += [node_config(folder / name, name, dsn) for name in ("north", "south")]
        self.running: list[RelayProcess] = []
        for config in self._configs:
            self.running.append(self._start(config))

    def _start(self, config: Path) -> RelayProcess:
        return RelayProcess(config.parent / "run", "--config", config, dev=False)

    def kill(self, number: int) -> None:
        """Kill one with SIGKILL and start it again."""
        number %= len(self.running)
        self.running[number].kill()
        self.running[number] = self._start(self._configs[number])

    def close(self) -> None:
        """Kill them all."""
        for relay in self.running:
            if relay.is_alive:
                relay.kill()


async def kill_rounds(relays: Relays, rounds: int, seconds: float) -> Count:
    """Kill a relay ``rounds`` times, after up to ``seconds`` of load each time."""
    load = Load(relays.running, Identity("reader", NAME))
    async with wire(load.url()) as client:
        assert await client.request(load.identity.register(client.hello)) == Done()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.read)
        async with trio.open_nursery() as senders:
            for sender in range(SENDERS):
                senders.start_soon(load.send, sender)
            for number in range(rounds):
                await load.go_on(seconds * random.uniform(0.3, 1))
                await trio.to_thread.run_sync(relays.kill, number)
                load.count.rounds += 1
            await load.go_on(seconds)
            load.stopping = True
        with trio.move_on_after(DRAIN_SECONDS):
            while not load.acknowledged <= load.received:  # noqa: ASYNC110 - the relay's doing
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    count = load.count
    count.acknowledged, count.received = len(load.acknowledged), len(load.received)
    count.lost = len(load.acknowledged - load.received)
    return count


def _find(name: str) -> Path:
    folders = [*os.environ["PATH"].split(":"), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        sys.exit(f"the program {name} is not installed")
    return Path(found)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    cluster = Cluster(_find) if options.backend == "postgres" else None
    try:
        with tempfile.TemporaryDirectory(prefix="e2ecall-kill-") as folder:
            relays = Relays(Path(folder), cluster)
            try:
                count = trio.run(kill_rounds, relays, options.rounds, options.seconds)
            finally:
                relays.close()
    finally:
        if cluster is not None:
            cluster.close()
    print(json.dumps({"backend": options.backend, **asdict(count)}))
    sys.exit(bool(count.lost or count.twice))


if __name__ == "__main__":
    main()
