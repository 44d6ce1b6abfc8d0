"""Clients of others over TCP and TLS: aioice, coturn's and Chromium (spec/turn.md)."""

import asyncio
import contextlib
import itertools
import re
import subprocess
from pathlib import Path

import aioice.turn
import pytest

from tests.conformance.test_chromium import wait_for_media
from tests.conformance.webdriver import browser, site
from tests.relay.mediarelay import SECRET, TRANSPORTS, media_relay
from tests.relay.turnclients import ticket

PAGES = Path(__file__).with_name("pages")
PATIENCE = 20
MESSAGES = 25


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relay")
    with media_relay(folder, "[limits]\nallocations_per_side = 64\n") as found:
        yield found


class Receiver(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()
        self.closed = asyncio.Event()

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))

    def connection_lost(self, exc):
        self.closed.set()


@contextlib.asynccontextmanager
async def endpoint(relay, transport, credential):
    one, receiver = await aioice.turn.create_turn_endpoint(
        Receiver,
        relay.addresses[transport],
        credential.username,
        credential.password,
        transport="udp" if transport == "udp" else "tcp",
        ssl=relay.tls if transport == "tls" else None,
    )
    try:
        yield one, receiver
    finally:
        one.close()
        await asyncio.wait_for(receiver.closed.wait(), PATIENCE)


@pytest.mark.parametrize(
    ("here", "there"), list(itertools.combinations_with_replacement(TRANSPORTS, 2))
)
def test_aioice(relay, here, there):
    """TURN-70, TURN-71: two aioice clients exchange datagrams of any size over each transport."""

    async def main():
        a, b = ticket(SECRET.encode())
        async with endpoint(relay, here, a) as first, endpoint(relay, there, b) as second:
            ends = [first, second]
            for (sender, _), (taker, _) in (ends, ends[::-1]):
                sender.sendto(b"binds a channel", taker.get_extra_info("sockname"))
            for (sender, _), (taker, receiver) in (ends, ends[::-1]):
                name = taker.get_extra_info("sockname")
                async with asyncio.timeout(PATIENCE):
                    while receiver.received.empty():  # until both channels are bound
                        sender.sendto(b"open?", name)
                        await asyncio.sleep(0.01)
                for size in (0, 1, 2, 3, 160, 1200):
                    sender.sendto(b"!" * size, name)
                    data = b"open?"
                    while data in {b"open?", b"binds a channel"}:
                        data, _ = await asyncio.wait_for(receiver.received.get(), PATIENCE)
                    assert data == b"!" * size

    asyncio.run(main())


@pytest.mark.system("turnutils_uclient")
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_uclient(relay, transport):
    """TURN-70, TURN-71: coturn's client exchanges all messages over TCP and TLS."""
    credential, _ = ticket(SECRET.encode())
    host, port = relay.addresses[transport]
    options = ["-t", *(["-S"] if transport == "tls" else [])]
    command = ["turnutils_uclient", *options, "-s", "-y", "-c", "-m", "4", "-n", str(MESSAGES)]
    command += ["-u", credential.username, "-w", credential.password, "-p", str(port), host]
    ran = subprocess.run(command, capture_output=True, timeout=60, check=False)
    output = (ran.stdout + ran.stderr).decode()
    assert ran.returncode == 0, output
    sent, received = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)[-1]
    assert (int(sent), int(received)) == (4 * MESSAGES, 4 * MESSAGES)


@pytest.mark.system("chromium", "chromedriver")
@pytest.mark.timeout(180)
def test_chromium(relay, require_program, tmp_path):
    """TURN-70: of two pages of Chromium one is on TCP, and both decode picture and sound."""
    programs = require_program("chromedriver"), require_program("chromium")
    with site(PAGES) as url, browser(*programs, tmp_path) as chromium:
        caller, callee = pages = [chromium.page(f"{url}/call.html") for _ in range(2)]
        credentials = ticket(SECRET.encode())
        for page, transport, credential in zip(pages, ("tcp", "udp"), credentials, strict=True):
            page.call("prepare", relay.urls[transport], credential.username, credential.password)
        caller.call("accept", callee.call("answer", caller.call("offer")))
        for progress in wait_for_media(pages):
            assert (progress["local"], progress["remote"]) == ("relay", "relay")
        for page in pages:
            page.call("hangUp")
