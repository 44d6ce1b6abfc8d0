"""A call whose ends are at different nodes of one relay, and what it owes the database."""

import contextvars
import json
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack, contextmanager

import anyio
import pytest
import trio

import e2ecall
from e2ecall.protocol.messages import Stream
from relay.wire.messages import ErrorCode
from tests.integration.people import ended, frames, media, next_call, person, texts, until
from tests.relay.cluster import Cluster
from tests.relay.conftest import POSTGRES, letter, wire
from tests.relay.nodes import node_config
from tests.relay.readiness import becomes

pytestmark = [pytest.mark.anyio, POSTGRES, pytest.mark.timeout(240)]

NODES = ("north", "south")


@pytest.fixture
def anyio_backend():
    """The bare connections of these tests are trio's."""
    return "trio"


class Nodes:
    """Two nodes behind one name, as a balancer puts them: who is ``at`` a node connects to it."""

    def __init__(self, relays, url):
        self.relays, self.url = relays, url
        self._chosen = contextvars.ContextVar("chosen")

    @contextmanager
    def at(self, node):
        """Let connections that begin in this block, and those of tasks from it, go to a node."""
        token = self._chosen.set(node)
        try:
            yield
        finally:
            self._chosen.reset(token)

    async def dial(self, _host, _port, **options):
        return await CONNECT(*self.relays[self._chosen.get()].address, **options)


CONNECT = anyio.connect_tcp


def free_ports(*kinds):
    """Return ports of 127.0.0.1 and 127.0.0.2 at which nobody listens now."""
    with ExitStack() as stack:
        taken = []
        for host, kind in kinds:
            sock = stack.enter_context(socket.socket(socket.AF_INET, kind))
            sock.bind((host, 0))
            taken.append(sock.getsockname()[1])
        return taken


@pytest.fixture
def cluster(require_program):
    """A PostgreSQL server of this test's own, which it stops."""
    server = Cluster(require_program)
    yield server
    server.close()


@pytest.fixture
def nodes(start_relay, tmp_path, cluster, monkeypatch):
    """Two nodes, each with a media service of its own."""
    hosts = {"north": "127.0.0.1", "south": "127.0.0.2"}
    name_port, *turn_ports = free_ports(
        ("127.0.0.1", socket.SOCK_STREAM), *((host, socket.SOCK_DGRAM) for host in hosts.values())
    )
    turn = {node: f"{hosts[node]}:{port}" for node, port in zip(NODES, turn_ports, strict=True)}
    name, dsn = f"127.0.0.1:{name_port}", cluster.database()
    relays = {}
    for node in NODES:
        config = node_config(tmp_path / node, node, dsn)
        environment = {
            "RELAY__RELAY__NAME": name,
            "RELAY__TURN__LISTEN": turn[node],
            "RELAY__TURN__URLS": ",".join(f"turn:{at}?transport=udp" for at in turn.values()),
            "RELAY__TURN__OWN_HOST": hosts[node],
        }
        relays[node] = start_relay("--config", config, dev=False, environment=environment)
    found = Nodes(relays, f"ws://{name}")
    monkeypatch.setattr(anyio, "connect_tcp", found.dial)
    return found


def forwarded(folder):
    """Return how many datagrams a node's media service has forwarded."""
    command = [sys.executable, "-m", "relay.cli", "status", "--as-json", "--config"]
    done = subprocess.run([*command, folder / "relay.toml"], capture_output=True, check=True)
    return json.loads(done.stdout)["forwarded"]


async def more_frames(side):
    """Wait until sound and picture came for a second more."""
    for stream, count in ((Stream.MICROPHONE, 50), (Stream.CAMERA, 15)):
        await frames(side["output"], stream, len(side["output"].of(stream)) + count)


async def test_call_between_nodes(nodes, cluster, tmp_path):
    """STORAGE-06, TICKET-07, F2: caller and callee at different nodes have a call with sound and
    picture through the callee's node. While the database is gone the media goes on and what is sent
    is refused with RETRY; when it is back the call ends like any other.
    """
    at_alice, at_bob = media(), media()
    async with AsyncExitStack() as stack:
        with nodes.at("north"):
            alice = await stack.enter_async_context(person(tmp_path, nodes, "alice"))
        with nodes.at("south"):
            bob = await stack.enter_async_context(person(tmp_path, nodes, "bob"))
        with nodes.at("north"):
            call = await alice.call(bob.address, **at_alice)
        incoming = await next_call(bob)
        with nodes.at("south"):
            answered = await incoming.accept(**at_bob)
        for end in (call, answered):
            await until(end, e2ecall.Connected)
        assert call.sas == answered.sas is not None
        for side in (at_alice, at_bob):
            await more_frames(side)
        north, south = [await trio.to_thread.run_sync(forwarded, tmp_path / node) for node in NODES]
        assert north == 0
        assert south > 200

        await trio.to_thread.run_sync(cluster.stop)
        for relay in nodes.relays.values():
            await becomes(relay, 503)
        for side in (at_alice, at_bob):
            await more_frames(side)
        with nodes.at("north"):
            async with wire(nodes.relays["north"].url) as stranger:
                refused = await stranger.request(letter("somebody"))
                assert refused.code is ErrorCode.RETRY
        assert (call.ended, answered.ended) == (None, None)

        await trio.to_thread.run_sync(cluster.start)
        for relay in nodes.relays.values():
            await becomes(relay, 200)
        for side in (at_alice, at_bob):
            await more_frames(side)
        await call.hangup()
        assert await ended(call) == (e2ecall.EndReason.HANGUP, False)
        assert (await ended(answered))[0] is e2ecall.EndReason.HANGUP
        with nodes.at("north"):
            await alice.message(bob.address, "as before")
        assert [text.text for text in await texts(bob, 1)] == ["as before"]
    for relay in nodes.relays.values():
        assert relay.terminate()[0] == 0
        assert "Traceback" not in relay.log.read_text()
