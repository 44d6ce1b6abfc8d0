"""What a real worker does with datagrams: runs, batches, floods, and where they may not go."""

import os
import signal
import socket
import time
from contextlib import AsyncExitStack

import pytest
import trio

from relay.io.datagram import steady_clock
from relay.io.media import plane as planes
from relay.io.media.plane import IS_AVAILABLE
from relay.io.media.sharedroutes import SharedRoutes
from relay.turn.attributes import AttributeType as Type
from relay.turn.attributes import encode_lifetime
from relay.turn.bandwidth import Bandwidth
from relay.turn.counters import Drop
from relay.turn.five_tuple import Transport, listener_number
from relay.turn.routes import Route
from relay.turn.stun import Method
from tests.relay.io.media.pairs import BINDING, open_pair, passes
from tests.relay.io.media.serving import serving
from tests.relay.turnclients import open_channel

pytestmark = [
    pytest.mark.trio,
    pytest.mark.skipif(not IS_AVAILABLE, reason="this machine has the portable loop only"),
]


def publish(server, sock, number, receiver, seconds=60):
    """Put a route into the table that no allocation stands for."""
    until = server.clock() + seconds
    key = ((0, sock.getsockname()), number.to_bytes(2))
    route = Route(until, (0, receiver), b"\x40\x07", Bandwidth(0, 1e9))
    server.routes.publish(key, route)
    return key


@pytest.mark.parametrize("receiver", [("127.0.0.1", 0), ("255.255.255.255", 9)])
async def test_unreachable_receivers(receiver):
    """What the kernel refuses is dropped and counted, and costs others nothing (TURN-52)."""
    async with serving() as server, open_channel("udp", server.address) as sender:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            publish(server, sender.sock, 0x4000, receiver)
            publish(server, sender.sock, 0x4001, other.getsockname())
            for number in range(30):
                await sender.send(b"\x40\0\0\4" + number.to_bytes(4))
                await sender.send(b"\x40\1\0\4" + number.to_bytes(4))
            got = [await trio.to_thread.run_sync(other.recv, 100) for _ in range(30)]
        assert got == [b"\x40\7\0\4" + number.to_bytes(4) for number in range(30)]
        await server.until(lambda: server.counters.drops[Drop.SEND_FAILED] == 30)
        assert server.counters.forwarded == server.counters.packets_out == 30
        assert server.counters.bytes_out == 240


async def test_where_segmentation_is_refused():
    """Where the kernel does not cut a run, its datagrams go one by one (TURN-59)."""
    async with serving() as server, open_channel("udp", server.address) as sender:
        so_no_check = 11  # without checksums there is no segmentation
        server.groups[0][0].setsockopt(socket.SOL_SOCKET, so_no_check, 1)
        (worker,) = server.pids
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            publish(server, sender.sock, 0x4000, other.getsockname())
            os.kill(worker, signal.SIGSTOP)  # so that a run gathers
            for number in range(20):
                await sender.send(b"\x40\0\0\4" + number.to_bytes(4))
            os.kill(worker, signal.SIGCONT)
            got = [await trio.to_thread.run_sync(other.recv, 100) for _ in range(20)]
        assert got == [b"\x40\7\0\4" + number.to_bytes(4) for number in range(20)]
        await server.until(lambda: server.counters.forwarded == 20)  # counted after it was sent
        assert sum(server.counters.batches) <= 4


async def test_a_run_is_one_batch():
    """Datagrams that gathered leave together, in order, the last one shorter (TURN-59)."""
    async with serving() as server, open_channel("udp", server.address) as sender:
        (worker,) = server.pids
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            publish(server, sender.sock, 0x4000, other.getsockname())
            os.kill(worker, signal.SIGSTOP)
            sent = [bytes([number]) * 1200 for number in range(63)] + [b"last"]
            for content in sent:
                await sender.send(b"\x40\0" + len(content).to_bytes(2) + content)
            os.kill(worker, signal.SIGCONT)
            got = [await trio.to_thread.run_sync(other.recv, 2000) for _ in sent]
        assert [frame[4:] for frame in got] == sent
        await server.until(lambda: server.counters.forwarded == len(sent))
        assert server.counters.batches[6] >= 1 or sum(server.counters.batches) <= 4


async def test_fast_datagrams_gather():
    """TURN-59: at 40 000 a second they leave several at once, each once and in order."""
    count, spacing = 4_000, 1 / 40_000
    async with serving() as server, open_channel("udp", server.address) as sender:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            other.bind(("127.0.0.1", 0))
            other.settimeout(10)
            publish(server, sender.sock, 0x4000, other.getsockname())
            due = time.monotonic()
            for number in range(count):
                while time.monotonic() < due:
                    pass
                os.write(sender.sock.fileno(), b"\x40\0\0\4" + number.to_bytes(4))
                due += spacing
            await server.until(lambda: server.counters.packets_in == count)
            forwarded = server.counters.forwarded
            got = [other.recv(100) for _ in range(forwarded)]
        assert got == sorted(got)
        assert len(set(got)) == len(got) == forwarded >= 0.99 * count
        assert sum(server.counters.batches) < count / 6


async def test_a_route_that_ends():
    """A route is followed neither after it was withdrawn nor after its time; what it would have
    carried is for the rules (TURN-35, TURN-56).
    """
    async with serving() as server, open_channel("udp", server.address) as sender:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.settimeout(10)
            for dropped in range(20):
                key = publish(server, sender.sock, 0x4000, other.getsockname())
                await sender.send(b"\x40\0\0\2in")
                assert await trio.to_thread.run_sync(other.recv, 100) == b"\x40\7\0\2in"
                server.routes.withdraw(key)
                await sender.send(b"\x40\0\0\3out")
                await server.until(
                    lambda n=dropped + 1: server.counters.drops[Drop.NO_ALLOCATION] == n
                )
            publish(server, sender.sock, 0x4000, other.getsockname(), seconds=-0.001)
            await sender.send(b"\x40\0\0\3out")
            await server.until(lambda: server.counters.drops[Drop.NO_ALLOCATION] == 21)
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(100)


async def test_a_full_table():
    """Pairs that find no room in the table are served by the rules (TURN-55)."""
    async with serving(records=2) as server, AsyncExitStack() as stack:
        pairs = [await open_pair(stack, [server.address] * 2) for _ in range(3)]
        assert len(server.routes) == 2
        for pair in pairs:
            assert await passes(*pair)


async def test_only_datagrams_are_forwarded_by_workers():
    """A route to or from a client on TCP or TLS stays out of the table (TURN-55)."""
    with SharedRoutes(listeners=1, records=9, bandwidth=1, clock=steady_clock()) as routes:
        udp, tcp = (0, ("127.0.0.1", 1)), (listener_number(Transport.TCP, 0), ("127.0.0.1", 2))
        for sender, receiver in ((udp, tcp), (tcp, udp), (tcp, tcp)):
            key = (sender, b"\x40\0")
            routes.publish(key, Route(1, receiver, b"\x40\0", Bandwidth(0, 1)))
            assert len(routes) == 0
            routes.withdraw(key)


async def test_garbage_does_not_reach_the_control_process(monkeypatch):
    """T6: a flood of what is no STUN is the workers' to drop, and takes no room from requests
    (TURN-55, TURN-58).
    """
    monkeypatch.setattr(planes, "HANDOVER_BUFFER", 4096)
    async with serving() as server, AsyncExitStack() as stack:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect(server.address)
            for number in range(400):  # no checkpoint: this process is busy
                kind = (bytes(1000), b"\x3f" * 1000, BINDING[:19], b"\x01", BINDING[1:] + b"\0")
                stranger.send(kind[number % 5])
        await server.until(lambda: server.counters.drops[Drop.MALFORMED] == 400)
        assert server.counters.drops[Drop.BUSY] == 0
        assert await passes(*await open_pair(stack, [server.address] * 2))


async def test_a_busy_control_process(monkeypatch):
    """T6: what the control process does not take is dropped and counted, forwarding goes on
    (TURN-58).
    """
    monkeypatch.setattr(planes, "HANDOVER_BUFFER", 4096)
    async with serving() as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, [server.address] * 2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect(server.address)
            for _ in range(400):  # no checkpoint: this process is busy
                stranger.send(BINDING + bytes(980))
        await server.until(lambda: server.counters.packets_in >= 400)
        assert server.counters.drops[Drop.BUSY] > 100
        assert await passes(first, second)


async def test_strangers_do_not_keep_callers_waiting():
    """TURN-62: a flood of well-formed requests fills the way of strangers while the control process
    is busy; what a client with a route asks for meanwhile is answered all the same, without asking
    again.
    """
    async with serving() as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, [server.address] * 2)
        assert await passes(first, second)  # the worker has seen this route
        asked = [
            first.signed(Method.REFRESH, (Type.LIFETIME, encode_lifetime(600))) for _ in range(20)
        ]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect(server.address)
            # No checkpoint from here on: the control process, which is this one, takes nothing.
            end = time.monotonic() + 60
            while server.counters.drops[Drop.BUSY] < 100:
                assert time.monotonic() < end
                for _ in range(100):
                    stranger.send(BINDING)
            for request in asked:
                os.write(first.channel.sock.fileno(), request)
            received = server.counters.packets_in
            while time.monotonic() < end:
                time.sleep(0.2)  # noqa: ASYNC251 - it is to stand still
                before, received = received, server.counters.packets_in
                if before == received:
                    break
        answers = set()
        with trio.fail_after(60):
            while len(answers) < len(asked):
                answers.add((await first.channel.receive())[8:20])
        assert answers == {request[8:20] for request in asked}
