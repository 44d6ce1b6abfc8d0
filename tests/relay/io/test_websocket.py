"""One connection of the relay over real sockets (spec/wire.md, Staying connected)."""

import random
import socket
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.trio.client import connect
from websockets.uri import parse_uri

from relay.io import websocket
from relay.io.stream_tls import PlainLayer
from relay.io.websocket import KEEPALIVE_SECONDS, ClosedError, SilentError, WebSocket
from relay.wire.limits import MAX_FRAME

pytestmark = pytest.mark.trio

AFTER = 20
"""Pieces of what it reads, after which a slow client says something: all buffers are full then."""


@asynccontextmanager
async def accepted(talk):
    """Give the relay's end of a connection whose other end is ``talk(port)``'s."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(talk, listener.socket.getsockname()[1])
        stream = await listener.accept()
        await listener.aclose()
        ours = WebSocket(socket.socket(fileno=stream.socket.detach()), PlainLayer(), (None,))
        try:
            with trio.fail_after(30):
                assert await ours.handshake(lambda _request: None)
                yield ours
        finally:
            ours.abort()
            nursery.cancel_scope.cancel()


async def polite(port):
    """Answer pings, and say something after each."""
    async with connect(f"ws://127.0.0.1:{port}", compression=None, ping_interval=None) as client:
        await client.send(b"hello")
        await client.recv()
        await client.send(b"after the ping")
        await trio.sleep_forever()


@asynccontextmanager
async def shaken_hands(port):
    """Give a stream on which frames can be written as nobody's library would."""
    protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}"))
    protocol.send_request(protocol.connect())
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"".join(protocol.data_to_send()))
        await stream.receive_some()
        yield stream


async def deaf(port, *, hello=b"hello"):
    """Take part in the opening handshake, and answer nothing from then on."""
    async with shaken_hands(port) as stream:
        await stream.send_all(bytes(Frame(Opcode.BINARY, hello).serialize(mask=True)))
        await trio.sleep_forever()


async def test_who_answers_pings_stays():
    """A ping goes out when it is time, and whoever answers it is pinged again and not cut off."""
    async with accepted(polite) as ours:
        assert await ours.recv_all(float("inf")) == [b"hello"]
        now = trio.current_time()
        for _ in range(2):
            ours.keep_alive(now + KEEPALIVE_SECONDS + 1)
        assert ours.write(b"the pong comes before what answers this")
        assert await ours.recv_all(float("inf")) == [b"after the ping"]
        ours.keep_alive(now + 2 * KEEPALIVE_SECONDS)
        with pytest.raises(SilentError):
            await ours.recv_all(0.01)


async def test_who_answers_no_ping_is_cut_off():
    """Who does not answer a ping in time is cut off, also while nothing is read or written."""
    async with accepted(deaf) as ours, trio.open_nursery() as nursery:
        assert await ours.recv_all(float("inf")) == [b"hello"]
        now, failures = trio.current_time(), []

        async def read():
            try:
                await ours.recv_all(float("inf"))
            except ClosedError as error:
                failures.append(error)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        ours.keep_alive(now + KEEPALIVE_SECONDS + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert not failures
        ours.keep_alive(now + 2 * KEEPALIVE_SECONDS + 2)
    assert len(failures) == 1
    assert ours._socket.fileno() == -1


async def test_patience():
    """Who says nothing for too long is told apart from who has gone."""
    async with accepted(partial(deaf, hello=b"one")) as ours:
        assert await ours.recv_all(10) == [b"one"]
        with pytest.raises(SilentError):
            await ours.recv_all(0.01)


async def test_a_slow_reader_is_heard():
    """WIRE-09: what a client says is received while it reads, and there is always more for it."""

    async def reading(port):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}"))
            protocol.send_request(protocol.connect())
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            await stream.socket.connect(("127.0.0.1", port))
            await stream.send_all(b"".join(protocol.data_to_send()))
            received = 0
            while await stream.receive_some(16_384):
                received += 1
                if received == AFTER:
                    await stream.send_all(bytes(Frame(Opcode.BINARY, b"ack").serialize(mask=True)))

    async with accepted(reading) as ours, trio.open_nursery() as nursery:

        async def write():
            while True:  # as deliveries do: one after the other, with nothing in between
                if not ours.write(bytes(60_000)):
                    await ours.drain()

        nursery.start_soon(write)
        assert await ours.recv_all(float("inf")) == [b"ack"]
        nursery.cancel_scope.cancel()


def frames(source, messages):
    """Return the bytes of messages, some of them in fragments, with pings in between."""
    found = []
    for message in messages:
        cuts = sorted(source.randint(0, len(message)) for _ in range(source.choice((0, 0, 1, 3))))
        parts = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
        for number, part in enumerate(parts):
            opcode = Opcode.CONT if number else Opcode.BINARY
            found.append(Frame(opcode, part, fin=number == len(parts) - 1))
            if source.random() < 0.2:
                found.append(Frame(Opcode.PING, b"are you there?"))
    return b"".join(bytes(frame.serialize(mask=True)) for frame in found)


@pytest.mark.parametrize("seed", range(5))
async def test_messages_in_pieces(seed):
    """Messages come whole and in their order, in whatever frames and pieces they were sent."""
    source = random.Random(seed)
    sizes = (0, 1, 125, 126, 9_329, 65_535, MAX_FRAME)
    messages = [source.randbytes(source.choice(sizes)) for _ in range(60)]
    data = frames(source, messages)

    async def talk(port):
        async with shaken_hands(port) as stream:
            position = 0
            while position < len(data):
                size = source.choice((1, 2, 7, 1_000, 30_000))
                await stream.send_all(data[position : position + size])
                position += size
            await trio.sleep_forever()

    async with accepted(talk) as ours:
        came = []
        while len(came) < len(messages):
            came += await ours.recv_all(float("inf"))
    assert came == messages


async def test_messages_in_one_write():
    """Messages that are written together come apart, whatever the length of each."""
    messages = [bytes([number]) * size for number, size in enumerate((0, 125, 126, 9_329, 65_535))]
    came, are_here = [], trio.Event()

    async def talk(port):
        async with connect(f"ws://127.0.0.1:{port}", compression=None) as client:
            while len(came) < 2 * len(messages):
                came.append(await client.recv())
            are_here.set()
            await trio.sleep_forever()

    async with accepted(talk) as ours:
        for _ in range(2):
            if not ours.write(*messages):
                await ours.drain()
        await are_here.wait()
    assert came == messages * 2


@pytest.mark.parametrize(
    "wrong",
    [
        bytes((0x82, 0x05)) + b"plain",  # not masked
        bytes((0xC2, 0x80)) + bytes(4),  # a bit that nobody agreed on
        bytes((0x83, 0x80)) + bytes(4),  # an opcode that there is not
        bytes((0x80, 0x80)) + bytes(4),  # the end of what never began
        bytes((0x02, 0x80)) + bytes(4) + bytes((0x82, 0x80)) + bytes(4),  # one within another
        bytes((0x82, 0xFF)) + (MAX_FRAME + 1).to_bytes(8),  # too long
    ],
)
async def test_frames_at_fault(wrong):
    """What comes before a frame at fault is received, and nothing of it or after it."""
    good = bytes(Frame(Opcode.BINARY, b"good").serialize(mask=True))

    async def talk(port):
        async with shaken_hands(port) as stream:
            await stream.send_all(good + wrong + good)
            await trio.sleep_forever()

    async with accepted(talk) as ours:
        assert await ours.recv_all(float("inf")) == [b"good"]
        with pytest.raises(ClosedError):
            await ours.recv_all(float("inf"))


async def test_looked_after(monkeypatch):
    """Who says nothing for long is found by whoever looks after all connections."""
    monkeypatch.setattr(websocket, "KEEPALIVE_SECONDS", 0.0)
    async with accepted(partial(deaf, hello=b"one")) as ours:
        assert await ours.recv_all(10) == [b"one"]
        failures = []

        async def read():
            with pytest.raises(SilentError):
                await ours.recv_all(0.01)
            failures.append(None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(30):
                while not failures:
                    ours.keep_alive(trio.current_time())
                    await trio.sleep(0.01)
