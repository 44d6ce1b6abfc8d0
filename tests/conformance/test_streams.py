"""Two aioice clients, each on another transport of a running relay (spec/turn.md)."""

import asyncio
import contextlib
import itertools

import aioice.turn
import pytest

from tests.relay.mediarelay import SECRET, TRANSPORTS, media_relay
from tests.relay.turnclients import ticket

PATIENCE = 20


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relay")
    with media_relay(folder) as found:
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


@pytest.mark.parametrize(("here", "there"), list(itertools.combinations(TRANSPORTS, 2)))
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
