"""One connection of the relay over real sockets (spec/wire.md, Staying connected)."""

import socket
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from websockets.client import ClientProtocol
from websockets.trio.client import connect
from websockets.uri import parse_uri

from relay.io.stream_tls import PlainLayer
from relay.io.websocket import KEEPALIVE_SECONDS, ClosedError, SilentError, WebSocket

pytestmark = pytest.mark.trio


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


async def deaf(port, *, hello=b"hello"):
    """Take part in the opening handshake, and answer nothing from then on."""
    protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}"))
    protocol.send_request(protocol.connect())
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"".join(protocol.data_to_send()))
        protocol.receive_data(await stream.receive_some())
        protocol.send_binary(hello)
        await stream.send_all(b"".join(protocol.data_to_send()))
        await trio.sleep_forever()


async def test_who_answers_pings_stays():
    """A ping goes out when it is time, and whoever answers it is pinged again and not cut off."""
    async with accepted(polite) as ours:
        assert await ours.recv(float("inf")) == b"hello"
        now = trio.current_time()
        for _ in range(2):
            ours.keep_alive(now + KEEPALIVE_SECONDS + 1)
        assert ours.write(b"the pong comes before what answers this")
        assert await ours.recv(float("inf")) == b"after the ping"
        ours.keep_alive(now + 2 * KEEPALIVE_SECONDS)
        with pytest.raises(SilentError):
            await ours.recv(0.01)


async def test_who_answers_no_ping_is_cut_off():
    """Who does not answer a ping in time is cut off, also while nothing is read or written."""
    async with accepted(deaf) as ours, trio.open_nursery() as nursery:
        assert await ours.recv(float("inf")) == b"hello"
        now, failures = trio.current_time(), []

        async def read():
            try:
                await ours.recv(float("inf"))
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
        assert await ours.recv(10) == b"one"
        with pytest.raises(SilentError):
            await ours.recv(0.01)
