"""A call between people of two relays, and what each relay and the kernel saw of it (P12)."""

import re
from contextlib import asynccontextmanager

import anyio
import pytest

import e2ecall
from e2ecall.testing import running_relay
from relay.wire.messages import FetchBundle, OpenBox, Send
from tests.adversary.captured import datagrams, requests
from tests.integration.people import PATIENCE, media, person, until
from tests.integration.processes import peer_process

pytestmark = [pytest.mark.anyio, pytest.mark.system("strace"), pytest.mark.timeout(120)]

INTERNET = re.compile(r"sin_port=htons\((\d+)\), sin_addr=inet_addr\(\"([0-9.]+)\"\)")
"""How strace writes an address of a connect, sendto or sendmsg."""


@pytest.fixture
def anyio_backend():
    """Run the test on one event loop; the callee's is a parameter."""
    return "trio"


@asynccontextmanager
async def relay_at(folder, host):
    """Run a relay on an address of its own; gives it, with its capture."""
    options = ("--signalling", f"{host}:0", "--turn", f"{host}:0", "--data-dir", str(folder / host))
    capture = folder / f"capture of {host}"
    async with running_relay(*options, "--capture", str(capture)) as relay:
        relay_host, port = relay.url.removeprefix("ws://").rsplit(":", 1)
        turn = relay.turn.removeprefix("turn:").partition("?")[0].rsplit(":", 1)
        assert relay_host == turn[0] == host
        yield relay, capture, {(host, int(port)), (host, int(turn[1]))}


def contacted(log):
    """Return the addresses to which a traced process and its threads connected or sent."""
    found = set()
    for line in log.read_text().splitlines():
        call = re.search(r"(connect|sendto|sendmsg|sendmmsg)\(", line)
        if call:
            found |= {(host, int(port)) for port, host in INTERNET.findall(line[call.end() :])}
    return found


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_the_callee_contacts_its_own_relay_alone(tmp_path, backend):
    """P12, CALL-11: called from another relay, a client rings, answers and talks, and no packet of
    it goes anywhere but to its own relay; the caller's relay sees nothing of the call at all.
    """
    log = tmp_path / "strace.log"
    traced = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(log))
    async with (
        relay_at(tmp_path, "127.20.0.1") as (far, far_capture, far_addresses),
        relay_at(tmp_path, "127.20.0.2") as (own, own_capture, own_addresses),
        person(tmp_path, far, "alice") as alice,
    ):
        store = tmp_path / "callee.db"
        # Once, the callee writes to somebody of the other relay, which it chose by that.
        async with peer_process(backend, store, own.url) as callee:
            await callee.event("open")
            address = (await callee.do("register", name="callee"))["address"]
            assert (await callee.do("message", to=alice.address, text="call me"))["event"] == "done"
            assert await callee.close() == 0
        calls_before = len(requests(far_capture, Send))
        async with peer_process(backend, store, own.url, inside=traced) as callee:
            await callee.event("open")
            call = await alice.call(address, **media())
            assert (await callee.event("incoming"))["caller"] == alice.address
            assert (await callee.do("accept"))["event"] == "done"
            await until(call, e2ecall.Connected)
            await callee.event("Connected")
            with anyio.fail_after(PATIENCE):
                while min((await callee.do("stats"))["frames"]) < 5:  # noqa: ASYNC110 - another process
                    await anyio.sleep(0.1)
            await call.hangup()
            await callee.event("Ended")
            assert await callee.close() == 0
    assert contacted(log) == own_addresses
    assert not contacted(log) & far_addresses
    assert not list(datagrams(far_capture))
    assert len(requests(far_capture, Send)) == calls_before
    # The control: the same captures show the call where it went.
    assert "ChannelData" in {kind for _, _, kind in datagrams(own_capture)}
    assert requests(own_capture, OpenBox)
    assert requests(own_capture, FetchBundle)
    assert len(requests(own_capture, Send)) >= 4
