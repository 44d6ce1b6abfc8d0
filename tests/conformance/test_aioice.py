"""aioice at both ends of a running relay: TURN alone, and relay-only ICE (spec/turn.md)."""

import asyncio
import contextlib
import logging

import aioice
import aioice.turn
import pytest

pytestmark = pytest.mark.anyio
SIZES = (0, 1, 160, 1_000, 1_200)
PATIENCE = 20
BINDING = b"only to bind a channel"


@pytest.fixture(scope="session")
def anyio_backend():
    """Run on asyncio only, the loop of aioice."""
    return "asyncio"


@pytest.fixture(params=["udp", "tcp", "tls"])
def transport(request):
    return request.param


class Receiver(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()
        self.closed = asyncio.Event()

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))

    def connection_lost(self, exc):
        self.closed.set()


@contextlib.asynccontextmanager
async def endpoint(relay, over, credential, **options):
    """Give an allocation's transport and receiver; the allocation is deleted afterwards."""
    transport, receiver = await aioice.turn.create_turn_endpoint(
        Receiver,
        relay.turn[over],
        credential.username,
        credential.password,
        transport="udp" if over == "udp" else "tcp",
        ssl=relay.trust if over == "tls" else None,
        **options,
    )
    try:
        yield transport, receiver
    finally:
        transport.close()
        await asyncio.wait_for(receiver.closed.wait(), PATIENCE)


async def exchange(ends, sizes):
    """Send datagrams of these sizes in both directions and assert that they arrive."""
    for (sender, _), (taker, receiver) in (ends, ends[::-1]):
        for size in sizes:
            sender.sendto(bytes(size), taker.get_extra_info("sockname"))
            received = await next_of(receiver)
            assert received == (bytes(size), sender.get_extra_info("sockname"))


async def bound(ends):
    """Let both ends bind their channels: until the second has, the first one's data is dropped."""
    for (sender, _), (taker, _) in (ends, ends[::-1]):
        inner = sender._TurnTransport__inner_protocol
        await inner.send_data(BINDING, taker.get_extra_info("sockname"))


async def next_of(receiver):
    """Return the next datagram that was not sent for a channel alone."""
    while True:
        received = await asyncio.wait_for(receiver.received.get(), PATIENCE)
        if received[0] != BINDING:
            return received


class Log(logging.Handler):
    """What aioice tells about its refreshes, as they happen."""

    def __init__(self):
        super().__init__()
        self.refreshed = asyncio.Queue()

    def emit(self, record):
        if "refresh" in record.getMessage():
            self.refreshed.put_nowait(record.getMessage())


@pytest.fixture
def log():
    logger, handler = logging.getLogger("aioice.turn"), Log()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


async def test_datagrams_and_refreshes(relay, transport, log):
    """TURN-14, TURN-17, TURN-34: datagrams pass both ways, between an end on each transport and one
    on UDP, with channels that are bound anew for each of them, and still after both refreshed.
    """
    a, b = relay.tickets(1)[0]
    async with (
        endpoint(relay, transport, a, channel_refresh_time=-1) as one,
        endpoint(relay, "udp", b) as two,
    ):
        await bound((one, two))
        await exchange((one, two), SIZES)
        for end, _ in (one, two):
            inner = end._TurnTransport__inner_protocol
            refreshing = asyncio.create_task(inner.refresh(0))  # due at once, then as granted
            told = await asyncio.wait_for(log.refreshed.get(), PATIENCE)
            assert told.endswith(f"refreshed {inner.relayed_address} (expires in 600 seconds)")
            refreshing.cancel()
        await exchange((one, two), SIZES)


async def test_ice(relay, transport):
    """TURN-30: two relay-only ICE agents with the two sides of a ticket connect and exchange
    datagrams; neither learns an address of the other's but the relayed one.
    """
    agents = []
    for controlling, credential in enumerate(relay.tickets(1)[0]):
        agents.append(
            aioice.Connection(
                ice_controlling=bool(controlling),
                stun_server=None,
                turn_server=relay.turn[transport],
                turn_transport="udp" if transport == "udp" else "tcp",
                turn_ssl=relay.trust if transport == "tls" else False,
                turn_username=credential.username,
                turn_password=credential.password,
                transport_policy=aioice.TransportPolicy.RELAY,
            )
        )
    one, two = agents
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(one.gather_candidates(), two.gather_candidates())
            for agent, other in ((one, two), (two, one)):
                assert {c.host.split(".")[0] for c in other.local_candidates} == {"198"}
                for candidate in other.local_candidates:
                    await agent.add_remote_candidate(candidate)
                await agent.add_remote_candidate(None)
                agent.remote_username = other.local_username
                agent.remote_password = other.local_password
            await asyncio.gather(one.connect(), two.connect())
            for agent, other in ((one, two), (two, one)):
                for size in SIZES[1:]:
                    await agent.send(bytes(size))
                    assert await other.recv() == bytes(size)
    finally:
        await asyncio.gather(one.close(), two.close())
