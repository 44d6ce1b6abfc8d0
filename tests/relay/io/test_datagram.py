"""The UDP socket loop: real sockets on loopback, a virtual clock where time matters."""

import logging
import os
import random
import socket

import aioice.stun
import pytest
import trio
import trio.testing

from relay.io.datagram import BATCH, EXPIRY_INTERVAL, open_socket, serve_turn, steady_clock
from relay.turn.counters import Drop
from relay.turn.server import TURNServer

pytestmark = pytest.mark.trio

NOW = 1_800_000_000.0


def make_core():
    return TURNServer(
        identify=lambda username, now: None, password=lambda username: "", nonce_key=bytes(32)
    )


def binding_request():
    return bytes(aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST))


class Client:
    """A UDP client socket; ``ask`` gives the answer to a datagram."""

    def __init__(self, server):
        self.server = server[:2]
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.sock = trio.socket.socket(family, socket.SOCK_DGRAM)

    async def __aenter__(self):
        await self.sock.bind(("::1" if self.sock.family == socket.AF_INET6 else "127.0.0.1", 0))
        return self

    async def __aexit__(self, *exc):
        self.sock.close()

    async def send(self, datagram):
        await self.sock.sendto(datagram, self.server)

    async def ask(self, datagram):
        await self.send(datagram)
        with trio.fail_after(10):
            return await self.sock.recv(4096)


async def assert_serving(client):
    request = binding_request()
    response = aioice.stun.parse_message(await client.ask(request))
    assert response.transaction_id == request[8:20]
    assert response.attributes["XOR-MAPPED-ADDRESS"] == client.sock.getsockname()[:2]


def has_ipv6():
    try:
        open_socket("::1", 0).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_serves(host, nursery):
    """A Binding request over IPv4 or IPv6 is answered, and counted (TURN-60)."""
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    core = make_core()
    (address,) = await nursery.start(serve_turn, [open_socket(host, 0)], core)
    async with Client(address) as client:
        await assert_serving(client)
    counters = core.counters
    assert (counters.packets_in, counters.packets_out) == (1, 1)
    assert (counters.bytes_in, counters.bytes_out) == (20, 32 if host == "127.0.0.1" else 44)


async def test_serves_several_sockets(nursery):
    """Each of several sockets answers for itself (TURN-50)."""
    sockets = [open_socket("127.0.0.1", 0) for _ in range(3)]
    for address in await nursery.start(serve_turn, sockets, make_core()):
        async with Client(address) as client:
            await assert_serving(client)


async def test_cancelled_cleanly():
    """Cancellation ends it at once and closes its sockets (TURN-50)."""
    sock = open_socket("127.0.0.1", 0)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_turn, [sock], make_core())
            scope.cancel()
    assert sock.fileno() == -1


async def test_cancelled_under_load(nursery):
    """A flood does not keep it from being cancelled, nor other tasks from running (TURN-50)."""
    sock = open_socket("127.0.0.1", 0)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            (address,) = await inner.start(serve_turn, [sock], make_core())
            async with Client(address) as client:
                for _ in range(4 * BATCH):
                    await client.send(b"\xff")
                scope.cancel()
    assert sock.fileno() == -1


async def test_garbage_flood(nursery):
    """M4, N1: after thousands of random datagrams it serves on, and has answered none (TURN-51)."""
    core = make_core()
    source = random.Random(1)
    (address,) = await nursery.start(serve_turn, [open_socket("127.0.0.1", 0)], core)
    async with Client(address) as client:
        for _ in range(100):
            for _ in range(20):
                datagram = source.randbytes(source.choice([0, 1, 3, 4, 19, 20, 60, 1400, 9000]))
                await client.send(datagram)
            await assert_serving(client)
    assert sum(core.counters.drops.values()) >= 1900
    assert core.counters.drops[Drop.INTERNAL] == 0
    assert core.counters.packets_out == 100


async def test_an_error_of_the_core_is_survived(nursery, monkeypatch, caplog):
    """An error of the program itself costs one datagram, one line of log and no more (TURN-51)."""
    core = make_core()
    # import-linter, where it ran before in this process, has disabled the loggers there were.
    monkeypatch.setattr(logging.getLogger("relay.io.datagram"), "disabled", False)

    def capture(now, client, datagram):
        if datagram == b"bad":
            raise ZeroDivisionError

    (address,) = await nursery.start(
        lambda task_status: serve_turn(
            [open_socket("127.0.0.1", 0)], core, capture=capture, task_status=task_status
        )
    )
    async with Client(address) as client:
        for _ in range(3):
            await client.send(b"bad")
        await assert_serving(client)
        port = str(client.sock.getsockname()[1])
    assert core.counters.drops[Drop.INTERNAL] == 3
    assert len(caplog.records) == 1
    assert port not in caplog.text


async def test_unsendable_answers_are_counted(nursery):
    """What the socket does not take is dropped and counted (TURN-52)."""

    class Core:
        counters = make_core().counters

        def receive(self, now, five_tuple, datagram):
            return [(five_tuple, bytes(70_000)), (five_tuple, b"ok")]

        def expire(self, now):
            pass

    (address,) = await nursery.start(serve_turn, [open_socket("127.0.0.1", 0)], Core())
    async with Client(address) as client:
        assert await client.ask(b"x") == b"ok"
    assert Core.counters.drops[Drop.SEND_FAILED] == 1
    assert Core.counters.packets_out == 1


async def test_capture_sees_everything(nursery):
    """Capture gets each datagram with its client and time, answered or not (TURN-53)."""
    seen = []
    (address,) = await nursery.start(
        lambda task_status: serve_turn(
            [open_socket("127.0.0.1", 0)],
            make_core(),
            capture=lambda *args: seen.append(args),
            clock=lambda: NOW,
            task_status=task_status,
        )
    )
    async with Client(address) as client:
        await client.send(b"\xffgarbage")
        request = binding_request()
        await client.ask(request)
        here = client.sock.getsockname()
    assert seen == [(NOW, here, b"\xffgarbage"), (NOW, here, request)]


async def test_sweeps(autojump_clock):
    """The core is told the time in every interval (TURN-45)."""
    told = []
    core = make_core()
    core_like = type(
        "Core", (), {"counters": core.counters, "expire": lambda self, now: told.append(now)}
    )()
    with trio.move_on_after(EXPIRY_INTERVAL * 3.5):
        await serve_turn([open_socket("127.0.0.1", 0)], core_like, clock=trio.current_time)
    assert len(told) == 3


async def test_socket_closed_from_outside():
    """A socket that vanishes is an error, not a loop that spins (TURN-51)."""
    sock = open_socket("127.0.0.1", 0)
    with pytest.raises(BaseExceptionGroup) as raised:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_turn, [sock], make_core())
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.notify_closing(sock)
            sock.close()
    assert raised.group_contains(trio.ClosedResourceError)


async def test_sockets_are_numeric():
    """A host name is refused: which address it means is the operator's to say."""
    with pytest.raises(ValueError, match="localhost"):
        open_socket("localhost", 0)


async def test_port_in_use():
    """A taken port is an error at once, and leaves no socket behind."""
    sock = open_socket("127.0.0.1", 0)
    try:
        with pytest.raises(OSError, match="in use"):
            open_socket("127.0.0.1", sock.getsockname()[1])
    finally:
        sock.close()


async def test_steady_clock(monkeypatch):
    """The clock is Unix time and goes on evenly when the system's is set (TURN-54)."""
    clock = steady_clock()
    before = clock()
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert before <= clock() < before + 60
    assert before > 1_700_000_000


@pytest.mark.parametrize("length", [4096, 4097, 9000])
async def test_long_datagrams(length, nursery):
    """A datagram above MAX_DATAGRAM is cut and dropped for its length (TURN-51)."""
    core = make_core()
    (address,) = await nursery.start(serve_turn, [open_socket("127.0.0.1", 0)], core)
    body = (0x8022).to_bytes(2) + (length - 24).to_bytes(2) + bytes(length - 24)
    data = b"\0\1" + (length - 20).to_bytes(2) + bytes.fromhex("2112a442") + os.urandom(12) + body
    async with Client(address) as client:
        if length == 4096:
            assert (await client.ask(data))[8:20] == data[8:20]
        else:
            await client.send(data)
        await assert_serving(client)
    assert core.counters.packets_out == (2 if length == 4096 else 1)
