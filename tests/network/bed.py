"""Three hosts with bad links between them: a caller, a relay and a callee (see `forwarder`)."""

import json
import os
import secrets
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from e2ecall import testing
from tests.integration.authority import Authority, ip_name
from tests.integration.processes import peer_process
from tests.network.link import Conditions

# Documentation addresses (RFC 5737): nobody's, should one ever escape.
ADDRESSES = {"caller": "192.0.2.1", "relay": "198.51.100.1", "callee": "203.0.113.1"}
PORTS = {"signalling": 8443, "udp": 3478, "tcp": 3479, "tls": 5349}
"""Of the relay."""
PATIENCE = 30.0


class Network:
    """Running hosts; every host's link has a direction ``up``, from it, and ``down``, to it."""

    def __init__(self, process, namespaces):
        self._process = process
        self._answers = BufferedByteReceiveStream(process.stdout)
        self._namespaces = namespaces

    def inside(self, host):
        """Return the words that, before a command, run it on a host."""
        return ("nsenter", f"--net={self._namespaces[host]}")

    async def shape(self, host, *, up=None, down=None):
        """Change one or both directions of a host's link, from the next packet on."""
        sides = {"up": up, "down": down}
        given = {side: asdict(about) for side, about in sides.items() if about is not None}
        return await self._ask({"shape": host, **given})

    async def outage(self, host, lasting):
        """Let nothing to or from a host through for as many seconds, then perfect links."""
        await self.shape(host, up=Conditions(outage=True), down=Conditions(outage=True))
        await anyio.sleep(lasting)
        await self.shape(host, up=Conditions(), down=Conditions())

    async def move(self, host, address):
        """Give a host another address, as when a device goes to another network."""
        commands = (
            f"address add {address}/32 dev wan",
            f"route replace default dev wan src {address}",
            f"address del {ADDRESSES[host]}/32 dev wan",
        )
        for command in commands:
            await anyio.run_process([*self.inside(host), "ip", *command.split()])
        return await self._ask({"move": host, "address": address})

    async def counts(self):
        """Return what each direction of each link took and lost so far."""
        return await self._ask({"counts": True})

    async def _ask(self, command):
        await self._process.stdin.send(json.dumps(command).encode() + b"\n")
        return await self.read()

    async def read(self):
        """Return the forwarder's next line."""
        with anyio.fail_after(PATIENCE):
            return json.loads(await self._answers.receive_until(b"\n", 65_536))


@asynccontextmanager
async def network(seed="e2ecall"):
    """Run the three hosts for the length of the block."""
    words = [word for host in ADDRESSES.items() for word in host]
    command = [sys.executable, "-W", "error", "-m", "tests.network.forwarder", seed, *words]
    process = await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None)
    try:
        hosts = Network(process, {})
        hosts._namespaces = await hosts.read()
        yield hosts
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.aclose()


class Relay:
    """A relay on its host, which can be killed and started again; it offers all transports."""

    def __init__(self, hosts, folder):
        address = ADDRESSES["relay"]
        settings = {
            "RELAY__NAME": f"{address}:{PORTS['signalling']}",
            "RELAY__DATA_DIR": str(folder / "relay"),
            "SIGNALLING__LISTEN": f"{address}:{PORTS['signalling']}",
            "TURN__LISTEN": f"{address}:{PORTS['udp']}",
            "TURN__LISTEN_TCP": f"{address}:{PORTS['tcp']}",
            "TURN__LISTEN_TLS": f"{address}:{PORTS['tls']}",
            "TURN__SECRET": secrets.token_urlsafe(32),
            "OPERATION__DRAIN_SECONDS": "0",
            "OPERATION__LOG_LEVEL": "warning",
        }
        self._environment = os.environ | {f"RELAY__{key}": value for key, value in settings.items()}
        authority = Authority("of the test bed")
        self.ca = authority.save(folder / "ca.pem")
        self._command = [
            *hosts.inside("relay"),
            *(sys.executable, "-m", "relay.cli", "serve"),
            *authority.issue(folder, ip_name(address)),
        ]

    async def start(self):
        """Start it, and return when it listens."""
        self._process = await anyio.open_process(
            self._command, stdin=subprocess.DEVNULL, stderr=None, env=self._environment
        )
        self.url = (await testing._ready(self._process)).url

    async def kill(self):
        """End it as the kernel would."""
        self._process.kill()
        await self._process.wait()
        await self._process.aclose()

    async def stop(self):
        """End it in order."""
        await testing._stop(self._process)


@asynccontextmanager
async def relay_on(hosts, folder):
    """Run a relay on its host."""
    relay = Relay(hosts, folder)
    await relay.start()
    try:
        yield relay
    finally:
        with anyio.CancelScope(shield=True):
            await relay.stop()


@asynccontextmanager
async def peers_on(hosts, folder, backend):
    """Run a relay, and a peer each on the hosts of caller and callee; both are registered."""
    async with relay_on(hosts, folder) as relay, peers_at(relay, hosts, folder, backend) as peers:
        yield peers


@asynccontextmanager
async def peers_at(relay, hosts, folder, backend):
    """Run a peer each on the hosts of caller and callee; both are registered at the relay."""

    def peer(host):
        store = folder / f"{host}.db"
        return peer_process(backend, store, relay.url, ca=relay.ca, inside=hosts.inside(host))

    async with peer("caller") as caller, peer("callee") as callee:
        for name, one in (("alice", caller), ("bob", callee)):
            await one.event("open")
            answer = await one.do("register", name=name)
            assert answer["event"] == "done", answer
            one.address = answer["address"]
        yield caller, callee
