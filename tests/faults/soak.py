"""Does a relay that runs for long stay as it is? (F6)

    python -m tests.faults.soak --minutes 60

Cycles of everything that clients do, polite and rude; after each the relay is left alone, and its
memory, descriptors and tasks are read from its own metrics. Prints a line for each tenth sample
and, at the end, what grew; exit 1 if something did.
"""

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import aioice.turn
import trio

from relay.services.tickets import issue
from relay.wire.messages import Done, FetchBundle, MediaTicket, OpenBox
from tests.faults.media import SECRET
from tests.relay.adminsocket import metrics_of
from tests.relay.conftest import RelayProcess, letter, registered, wire

FIGURES = {
    "memory": "process_resident_memory_bytes",
    "descriptors": "process_open_fds",
    "tasks": "e2ecall_relay_tasks",
    "allocations": "e2ecall_relay_media_allocations",
    "connections": "e2ecall_relay_connections",
    "handshakes": "e2ecall_relay_handshakes",
}
SLACK = {"memory": 4_000_000, "descriptors": 3, "tasks": 3}
"""What may be different between two quiet moments: an arena of memory, a thread's descriptor."""
CACHE = 8_000_000
"""What SQLite's pages take as well until as many are in memory as may be, after 60 cycles."""
CLIENTS = 12
WARM_UP = 100
REST_SECONDS = 20


async def figures(relay):
    """Return what the relay says of itself."""
    text = await metrics_of(relay.folder)
    found = dict(re.findall(r"^([a-z0-9_]+) ([0-9.e+]+)\r?$", text, re.MULTILINE))
    return {name: float(found[metric]) for name, metric in FIGURES.items()}


async def at_rest(relay):
    """Return the figures once nobody is connected any more."""
    with trio.fail_after(REST_SECONDS):
        while True:
            now = await figures(relay)
            if not now["connections"] + now["handshakes"] + now["allocations"]:
                return now
            await trio.sleep(0.1)


async def polite(relay, name):
    """Register, write to oneself, read, open a box, ask for a ticket, say goodbye."""
    async with registered(relay.url, name) as (client, _):
        for _ in range(5):
            assert await client.request(letter(name, os.urandom(4000))) == Done()
        await client.deliveries(5)
        await client.request(OpenBox(os.urandom(32)))
        await client.request(MediaTicket())
        await client.request(FetchBundle(name, None, None))


async def rude(relay, number):
    """Half a handshake, garbage, a connection that is cut with mail under way."""
    async with await trio.open_tcp_stream(*relay.address) as stream:
        await stream.send_all(b"GET /v1 HTTP/1.1\r\n")
    async with wire(relay.url) as client:
        await client.socket.send(os.urandom(number + 1))
        await trio.aclose_forcefully(client.socket.stream)


def media(relay):
    """Allocate with both sides of a ticket, and let go."""

    async def run():
        host, _, port = relay.ready["turn"].removeprefix("turn:").partition("?")[0].rpartition(":")
        for credential in issue(SECRET.encode(), time.time(), 3600, os.urandom(16)):
            transport, _ = await aioice.turn.create_turn_endpoint(
                asyncio.DatagramProtocol,
                server_addr=(host, int(port)),
                username=credential.username,
                password=credential.password,
            )
            transport.close()
        await asyncio.sleep(0.1)

    asyncio.run(run())


async def cycle(relay, number):
    """Do everything once with `CLIENTS` clients."""
    async with trio.open_nursery() as nursery:
        for client in range(CLIENTS):
            nursery.start_soon(polite, relay, f"soak_{number}_{client}")
            nursery.start_soon(rude, relay, client)
    await trio.to_thread.run_sync(media, relay)


async def soak(relay, *, warm_up, slack, goes_on, report):
    """Run cycles while ``goes_on(number)``; return what grew beyond its slack since ``warm_up``."""
    number, first, last = 0, {}, {}
    while number <= 2 * warm_up or goes_on(number):
        await cycle(relay, number)
        last = await at_rest(relay)
        report(number, last)
        if number == warm_up:
            first = last
        number += 1
    grown = {name: last[name] - first[name] for name in slack}
    return {name: more for name, more in grown.items() if more > slack[name]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    end = time.monotonic() + 60 * parser.parse_args().minutes

    def goes_on(_number):
        return time.monotonic() < end

    def report(number, now):
        if number % 10 == 0:
            print(
                f"{number:6}", *(f"{name} {value:.0f}" for name, value in now.items()), flush=True
            )

    with tempfile.TemporaryDirectory() as folder:
        relay = RelayProcess(Path(folder), "--turn-secret", SECRET)
        try:
            grew = trio.run(
                partial(soak, relay, warm_up=WARM_UP, slack=SLACK, goes_on=goes_on, report=report)
            )
        finally:
            code, _ = relay.terminate()
    print("grew:", grew or "nothing", "exit code of the relay:", code)
    sys.exit(1 if grew or code else 0)


if __name__ == "__main__":
    main()
