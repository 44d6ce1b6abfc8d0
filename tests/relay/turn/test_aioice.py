"""A TURN and an ICE client that nobody here wrote, over loopback sockets, through the real loop."""

import asyncio
import contextlib
import socket

import aioice
import aioice.stun
import aioice.turn
import pytest

from relay.turn.counters import Drop

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend():
    """Run on asyncio only, the loop of aioice."""
    return "asyncio"


class Receiver(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()
        self.errors = asyncio.Queue()
        self.closed = asyncio.Event()

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))

    def error_received(self, exc):
        self.errors.put_nowait(exc)

    def connection_lost(self, exc):
        self.closed.set()


@contextlib.asynccontextmanager
async def endpoint(address, username, password):
    transport, protocol = await aioice.turn.create_turn_endpoint(
        Receiver, server_addr=address, username=username, password=password
    )
    try:
        yield transport, protocol
    finally:
        transport.close()
        await protocol.closed.wait()


def credentials(turn, ticket):
    names = [f"1900000000:{ticket}-{side}" for side in "ab"]
    return [(name, turn.password(name)) for name in names]


async def received(protocol):
    return await asyncio.wait_for(protocol.received.get(), 10)


async def test_two_turn_clients(turn):
    """Two aioice TURN clients of one ticket exchange data by channels in both directions.

    TURN-34.
    """
    core = turn.make_core()
    first, second = credentials(turn, "ticket")
    loop, opened = asyncio.get_running_loop(), asyncio.Event()

    def capture(now, client, datagram):
        if datagram.endswith(b"opens the way"):
            loop.call_soon_threadsafe(opened.set)

    with turn.running(core, capture=capture) as address:
        async with (
            endpoint(address, *first) as (one, at_one),
            endpoint(address, *second) as (two, at_two),
        ):
            here, there = one.get_extra_info("sockname"), two.get_extra_info("sockname")
            assert here[0].startswith(("198.18.", "198.19."))
            # Each binds its channel with the first packet that it sends; what arrives at a side
            # that has not bound yet is dropped, as at any TURN server.
            two.sendto(b"opens the way", here)
            await asyncio.wait_for(opened.wait(), 10)
            one.sendto(b"ping", there)
            assert await received(at_two) == (b"ping", here)
            two.sendto(b"pong", here)
            assert await received(at_one) == (b"pong", there)
            assert core.counters.allocations == 2
            assert core.counters.drops[Drop.PEER_NOT_READY] == 1
        assert core.counters.allocations == 0


async def test_strangers_tickets_do_not_meet(turn):
    """T1: an aioice client gets a 403 for an allocation of another ticket, and nothing passes.

    TURN-31.
    """
    core = turn.make_core()
    first, _ = credentials(turn, "one")
    stranger, _ = credentials(turn, "two")
    with turn.running(core) as address:
        async with (
            endpoint(address, *first) as (one, at_one),
            endpoint(address, *stranger) as (two, at_two),
        ):
            one.sendto(b"hello?", two.get_extra_info("sockname"))
            error = await asyncio.wait_for(at_one.errors.get(), 10)
            assert isinstance(error, aioice.stun.TransactionFailed)
            assert error.response.error_code == 403
            assert at_two.received.empty()
            assert core.counters.forwarded == 0


@pytest.mark.parametrize("target", ["loopback", "server"])
async def test_no_way_out(turn, target):
    """T1: neither a real socket of this machine nor the relay itself can be reached (TURN-31)."""
    first, _ = credentials(turn, "ticket")
    with (
        turn.running(turn.make_core()) as address,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bystander,
    ):
        bystander.bind(("127.0.0.1", 0))
        bystander.setblocking(False)
        async with endpoint(address, *first) as (one, at_one):
            one.sendto(b"x", bystander.getsockname() if target == "loopback" else address)
            error = await asyncio.wait_for(at_one.errors.get(), 10)
            assert error.response.error_code == 403
        with pytest.raises(BlockingIOError):
            bystander.recv(100)


async def test_wrong_password(turn):
    """T3: an aioice client with a wrong password gets a 401 and no allocation (TURN-20)."""
    core = turn.make_core()
    (username, _), _ = credentials(turn, "ticket")
    with turn.running(core) as address:
        with pytest.raises(aioice.stun.TransactionFailed, match="401"):
            async with endpoint(address, username, "guess"):
                pass
        assert core.counters.allocations_created == 0


async def test_third_allocation(turn):
    """T6: the third aioice client of one side gets a 486; the others go on (TURN-40)."""
    first, second = credentials(turn, "ticket")
    with turn.running(turn.make_core()) as address:
        async with endpoint(address, *first), endpoint(address, *first):
            with pytest.raises(aioice.stun.TransactionFailed, match="486"):
                async with endpoint(address, *first):
                    pass
            async with endpoint(address, *second):
                pass


async def test_two_ice_agents(turn):
    """Two aioice ICE agents with relay-only policy connect and talk through the server.

    TURN-30.
    """
    core = turn.make_core()
    agents = [
        aioice.Connection(
            ice_controlling=controlling,
            turn_server=None,
            transport_policy=aioice.TransportPolicy.RELAY,
        )
        for controlling in (True, False)
    ]
    with turn.running(core) as address:
        for agent, (username, password) in zip(agents, credentials(turn, "call"), strict=True):
            agent.turn_server, agent.turn_username, agent.turn_password = (
                address,
                username,
                password,
            )
        one, two = agents
        try:
            await asyncio.gather(one.gather_candidates(), two.gather_candidates())
            for agent, other in ((one, two), (two, one)):
                assert {candidate.type for candidate in other.local_candidates} == {"relay"}
                for candidate in other.local_candidates:
                    await agent.add_remote_candidate(candidate)
                await agent.add_remote_candidate(None)
                agent.remote_username = other.local_username
                agent.remote_password = other.local_password
            async with asyncio.timeout(20):
                await asyncio.gather(one.connect(), two.connect())
                for size in (1, 200, 1200):
                    await one.send(bytes(size))
                    assert await two.recv() == bytes(size)
                    await two.send(bytes(size))
                    assert await one.recv() == bytes(size)
            assert core.counters.forwarded > 6
        finally:
            await asyncio.gather(one.close(), two.close())
        assert core.counters.allocations == 0
        assert core.counters.drops[Drop.INTERNAL] == 0
