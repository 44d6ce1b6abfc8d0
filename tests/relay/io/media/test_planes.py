"""What clients see is the same over both data planes: the portable loop, and workers."""

import os
import random
import socket
from contextlib import AsyncExitStack

import aioice.stun
import pytest
import trio

from relay.turn.counters import Drop
from tests.relay.io.media.pairs import BACK, FORTH, open_pair
from tests.relay.io.media.serving import PLANES, serving
from tests.relay.turnclients import TURNClient, client, open_channel, ticket

pytestmark = [pytest.mark.trio, pytest.mark.parametrize("plane", PLANES)]

EACH = range(6)


def data(number, content):
    return number.to_bytes(2) + len(content).to_bytes(2) + content


async def assert_connected(first, second, content=b"some data"):
    for sender, out, receiver, into in ((first, FORTH, second, BACK), (second, BACK, first, FORTH)):
        await sender.channel_data(out, content)
        assert await receiver.frame() == data(into, content)


def accounted(counters):
    """Return how many datagrams were dropped, or answered with an error."""
    return sum(counters.drops.values()) + counters.unauthenticated + counters.refused


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_bound_channels(plane):
    """Data of any length passes both ways, byte by byte; padding is cut off (TURN-34, TURN-55)."""
    async with serving(plane) as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, [server.address] * 2)
        for length in (0, 1, 3, 4, 160, 1200, 4092):
            await assert_connected(first, second, os.urandom(length))
        await first.channel.send(data(FORTH, b"content") + b"padding")
        assert await second.frame() == data(BACK, b"content")
        await server.until(lambda: server.counters.forwarded == 15)


async def test_bursts_in_order(plane):
    """Bursts of equal datagrams with a shorter or longer one at any place arrive whole and in
    order (TURN-59).
    """
    source = random.Random(7)
    async with serving(plane) as server, AsyncExitStack() as stack:
        pairs = [await open_pair(stack, [server.address] * 2) for _ in range(4)]
        for round_ in range(60):
            sent = {}
            for number in source.sample(range(4), source.randint(1, 4)):
                sent[number] = [
                    source.randbytes(source.choice([1000, 1000, 1000, 999, 1001, 20, 0]))
                    for _ in range(source.randint(1, 12))
                ]
                for content in sent[number]:
                    await pairs[number][round_ % 2].channel_data((FORTH, BACK)[round_ % 2], content)
            for number, contents in sent.items():
                receiver, into = pairs[number][1 - round_ % 2], (BACK, FORTH)[round_ % 2]
                got = [await receiver.frame() for _ in contents]
                assert got == [data(into, content) for content in contents]


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("hosts", [("::1", "::1"), ("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
async def test_ipv6(plane, hosts):
    """Clients on IPv6 exchange data, with clients on IPv4 too (TURN-50, TURN-55)."""
    async with serving(plane, ("127.0.0.1", "::1")) as server, AsyncExitStack() as stack:
        addresses = [server.addresses[":" in host] for host in hosts]
        first, second = await open_pair(stack, addresses)
        for _ in EACH:
            await assert_connected(first, second)


async def test_without_channels(plane):
    """What is on one bound channel only, or none, passes by the rules (TURN-33, TURN-55)."""
    async with serving(plane) as server, AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(client("udp", server.address, credential))
            for credential in ticket()
        ]
        await first.bind(second.relayed, FORTH)
        await second.permit(first.relayed)
        await first.channel_data(FORTH, b"forth")
        assert aioice.stun.parse_message(await second.frame()).attributes["DATA"] == b"forth"
        await second.send_indication(first.relayed, b"back")
        assert await first.frame() == data(FORTH, b"back")
        await second.bind(first.relayed, BACK)
        await assert_connected(first, second)


async def test_wrong_datagrams(plane):
    """M4: what is too long, too short, or nothing, is dropped and counted, and nothing of an older
    datagram is sent in its place (TURN-51, TURN-34).
    """
    async with serving(plane) as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, [server.address] * 2)
        await assert_connected(first, second, bytes(range(200)))
        whole = data(FORTH, bytes(300))
        wrong = [whole[:length] for length in (1, 2, 3, 4, 100, 303)]
        wrong += [data(FORTH, bytes(4093)), data(FORTH, b"x") + bytes(5000), b"", b"\xff" * 40]
        for datagram in wrong:
            await first.channel.send(datagram)
        await assert_connected(first, second)
        await server.until(lambda: sum(server.counters.drops.values()) == 10)
        drops = server.counters.drops
        assert drops[Drop.MALFORMED] + drops[Drop.NOT_STUN] == 10
        assert drops[Drop.NOT_STUN] == 2


async def test_an_allocation_that_ends(plane):
    """Once the answer to a deletion is there, nothing reaches the client, not even after it has
    allocated anew (TURN-32, TURN-56).
    """
    async with serving(plane) as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, [server.address] * 2)
        for _ in EACH:
            await assert_connected(first, second)
            assert await second.refresh(0) is None
            await first.channel_data(FORTH, b"too late")
            assert await second.allocate() is None
            await first.channel_data(FORTH, b"too late")
            await second.bind(first.relayed, BACK)
            await first.channel_data(FORTH, b"too late")
            assert not second.inbox
            # The old channel lives until it expires, so the new peer gets a new number.
            assert await first.refresh(0) is None
            assert await first.allocate() is None
            await first.bind(second.relayed, FORTH)
            assert await second.refresh(0) is None
            assert await second.allocate() is None
            assert await first.refresh(0) is None
            assert await first.allocate() is None
            await first.bind(second.relayed, FORTH)
            await second.bind(first.relayed, BACK)


async def test_expiry(plane):
    """No datagram that arrives after an allocation's end is passed on (TURN-45, TURN-56)."""
    async with serving(plane, max_lifetime=2) as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, [server.address] * 2)
        expires = server.clock() + 2  # the clients have allocated before
        sent = got = 0
        with trio.fail_after(10):
            while server.clock() < expires + 0.2:
                await first.channel_data(FORTH, repr(server.clock()).encode())
                sent += 1
                await trio.sleep(0.005)
        with trio.move_on_after(0.2):
            while True:
                frame = await second.channel.receive()
                assert float(frame[4:]) < expires
                got += 1
        assert 0 < got < sent


async def test_bandwidth(plane):
    """T6: what exceeds an allocation's bandwidth is dropped and counted; others go on (TURN-46)."""
    async with serving(plane, bandwidth=100_000) as server, AsyncExitStack() as stack:
        first, _ = await open_pair(stack, [server.address] * 2)
        others = await open_pair(stack, [server.address] * 2)
        begin, sent = trio.current_time(), 0
        # In parts that fit into the socket, and on until some of it has to be too much.
        while sent < 100 * (trio.current_time() - begin + 1) + 100:
            for _ in range(50):
                await first.channel_data(FORTH, bytes(1000))
            sent += 50
            await server.until(
                lambda sent=sent: (
                    server.counters.forwarded + server.counters.drops[Drop.BANDWIDTH] == sent
                )
            )
        seconds = trio.current_time() - begin
        counters = server.counters
        assert 45 <= counters.forwarded <= 100 * (seconds + 1)
        assert counters.drops[Drop.BANDWIDTH] >= 100
        await assert_connected(*others)


async def test_flood(plane):
    """T6, N1: a flood of what nobody bound, and of requests that nobody signed, leaves a pair
    connected and a newcomer served; all of it is counted (TURN-51, TURN-58).
    """
    source = random.Random(3)
    async with serving(plane) as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, [server.address] * 2)
        stranger = await stack.enter_async_context(open_channel("udp", server.address))
        before = server.counters.packets_in
        for number in range(2000):
            kind = source.randrange(3)
            if kind == 0:
                await stranger.send(data(source.randrange(0x4000, 0x5000), source.randbytes(300)))
            elif kind == 1:
                await stranger.send(source.randbytes(300))
            else:
                await stranger.send(b"\0\3\0\0\x21\x12\xa4\x42" + source.randbytes(12))
            if number % 200 == 0:
                await server.until(lambda n=number: server.counters.packets_in >= before + n)
                await assert_connected(first, second)
        await stack.enter_async_context(client("udp", server.address, ticket()[0]))
        await server.until(lambda: accounted(server.counters) >= 1990)
        assert server.counters.drops[Drop.INTERNAL] == 0


@pytest.mark.parametrize("seed", range(2))
async def test_churn(plane, seed):
    """T5, T6: while clients allocate, bind, delete and come back at random, data reaches the
    allocation for which it was sent and no other, and none that had ended (TURN-30, TURN-32,
    TURN-35, TURN-56).
    """
    source = random.Random(seed)
    async with serving(plane) as server, AsyncExitStack() as stack:
        clients = []
        for number in range(6):
            channel = await stack.enter_async_context(open_channel("udp", server.address))
            clients.append(TURNClient(channel, None))
            clients[-1].number = number
        tickets = [ticket() for _ in range(2)]
        world = Churn(source, clients, tickets)
        for _ in range(800):
            await world.step()
        await world.settle()
        assert world.passed > 50
        assert server.counters.drops[Drop.INTERNAL] == 0


class Churn:
    """Clients, what each has bound, and what may still be on its way."""

    def __init__(self, source, clients, tickets):
        self.source, self.clients, self.tickets = source, clients, tickets
        self.bound = {one.number: {} for one in clients}
        self.ended = {}
        self.serial = self.passed = 0
        for one in clients:
            one.relayed = None

    async def step(self):
        one = self.source.choice(self.clients)
        if one.relayed is None:
            await self.arrive(one)
            return
        action = self.source.choices(["bind", "leave", "send"], [4, 1, 10])[0]
        await getattr(self, action)(one)
        await self.check(one)

    async def arrive(self, one):
        one.credential = self.source.choice(self.source.choice(self.tickets))
        one.nonce = None
        if await one.allocate() is not None:
            one.relayed = None

    async def bind(self, one):
        peer = self.source.choice(self.clients)
        if peer.relayed is None:
            return
        number = self.source.randrange(0x4000, 0x4004)
        code = await one.bind(peer.relayed, number)
        assert code in {None, 400, 403, 508}
        if code is None:
            self.bound[one.number][number] = peer.relayed

    async def leave(self, one):
        assert await one.refresh(0) is None
        # What was sent before the answer came may have been on its way; nothing later.
        self.ended[one.relayed] = self.serial
        self.bound[one.number].clear()
        one.relayed = None

    async def send(self, one):
        number = self.source.randrange(0x4000, 0x4004)
        target = self.bound[one.number].get(number)
        text = "nobody" if target is None else f"{target.ip.hex()}:{target.port}"
        for _ in range(self.source.randint(1, 5)):
            self.serial += 1
            content = f"{self.serial} {text} {one.number}".encode().ljust(100)
            await one.channel_data(number, content)

    async def check(self, one):
        while one.inbox:
            self.see(one, one.inbox.popleft())

    def see(self, one, frame):
        content = (
            frame[4:] if frame[0] >= 0x40 else aioice.stun.parse_message(frame).attributes["DATA"]
        )
        serial, target, _ = content.split()
        self.passed += 1
        mine = one.relayed and f"{one.relayed.ip.hex()}:{one.relayed.port}".encode()
        if target != mine:
            ended = {f"{r.ip.hex()}:{r.port}".encode(): last for r, last in self.ended.items()}
            assert int(serial) <= ended[target]

    async def settle(self):
        for one in self.clients:
            with trio.move_on_after(0.1):
                while True:
                    self.see(one, await one.channel.receive())
