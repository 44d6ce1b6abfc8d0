"""Two TURN clients that send each other 50 datagrams a second, as sound does, in a thread."""

import asyncio
import os
import threading
import time
from contextlib import contextmanager

import aioice.turn
import pytest

from relay.services.tickets import issue

SECRET = "a secret of the tests"
WITHIN = 15


class _Counting(asyncio.DatagramProtocol):
    def __init__(self):
        self.count = 0

    def datagram_received(self, data, addr):
        self.count += 1


class Media:
    """Media that runs until `hang_up`."""

    def __init__(self, turn):
        host, _, port = turn.removeprefix("turn:").partition("?")[0].rpartition(":")
        self._server = host, int(port)
        self._end = threading.Event()
        self._sides = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="media")
        self._thread.start()

    @property
    def received(self):
        """How many datagrams arrived at the side that got fewer."""
        return min((side.count for side in self._sides), default=0)

    def flows(self):
        """Wait until both sides receive ten more, and fail if they do not."""
        wanted, end = self.received + 10, time.monotonic() + WITHIN
        while self.received < wanted:
            assert time.monotonic() < end, "no media"
            time.sleep(0.01)

    def hang_up(self):
        self._end.set()
        self._thread.join()

    async def _run(self):
        transports = []
        for credential in issue(SECRET.encode(), time.time(), 3600, os.urandom(16)):
            transport, side = await aioice.turn.create_turn_endpoint(
                _Counting,
                server_addr=self._server,
                username=credential.username,
                password=credential.password,
            )
            transports.append(transport)
            self._sides.append(side)
        addresses = [transport.get_extra_info("sockname") for transport in transports]
        while not self._end.is_set():
            transports[0].sendto(b"sound", addresses[1])
            transports[1].sendto(b"sound", addresses[0])
            await asyncio.sleep(0.02)
        for transport in transports:
            transport.close()
        await asyncio.sleep(0.1)


@contextmanager
def running_media(relay):
    """Give media that flows through a relay that was started with ``--turn-secret`` `SECRET`."""
    flow = Media(relay.ready["turn"])
    try:
        flow.flows()
        yield flow
    finally:
        flow.hang_up()


@pytest.fixture
def media():
    """Give `running_media`, and the arguments of a relay that it works with."""
    running_media.arguments = ("--turn-secret", SECRET)
    return running_media
