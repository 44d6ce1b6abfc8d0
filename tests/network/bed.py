"""Three hosts with bad links between them: a caller, a relay and a callee (see `forwarder`)."""

import json
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


@asynccontextmanager
async def relay_on(hosts, folder):
    """Run a relay on its host; give its URL and the authority to check it by."""
    authority = Authority("of the test bed")
    ca = authority.save(folder / "ca.pem")
    address = ADDRESSES["relay"]
    options = [
        *authority.issue(folder, ip_name(address)),
        *("--signalling", f"{address}:0"),
        *("--turn", f"{address}:0"),
    ]
    command = [*hosts.inside("relay"), sys.executable, "-m", "relay.cli", "serve", "--dev"]
    process = await anyio.open_process([*command, *options], stdin=subprocess.DEVNULL, stderr=None)
    try:
        relay = await testing._ready(process)
        yield relay.url, ca
    finally:
        with anyio.CancelScope(shield=True):
            await testing._stop(process)


@asynccontextmanager
async def peers_on(hosts, folder, backend):
    """Run a relay, and a peer each on the hosts of caller and callee; both are registered."""
    async with relay_on(hosts, folder) as (url, ca):

        def peer(host):
            return peer_process(
                backend, folder / f"{host}.db", url, ca=ca, inside=hosts.inside(host)
            )

        async with peer("caller") as caller, peer("callee") as callee:
            for name, one in (("alice", caller), ("bob", callee)):
                await one.event("open")
                answer = await one.do("register", name=name)
                assert answer["event"] == "done", answer
                one.address = answer["address"]
            yield caller, callee
