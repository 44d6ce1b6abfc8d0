"""Requests that are given up, on a connection that others use too (spec/wire.md)."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from e2ecall.errors import ConnectionFailedError
from e2ecall.io import websocket
from e2ecall.io.connection import RelayConnection
from relay.wire.codec import decode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import ClientFrame, Done, PrekeyStatus

pytestmark = pytest.mark.anyio


async def nothing(_):
    pass


async def answer(server):
    await server.handshake()
    await server.hello()
    while (frame := await server.receive()).opcode == 2:
        request = decode(bytes(frame.data), ClientFrame, limit=MAX_FRAME)
        await server.say(Done(), request.id)


async def test_a_cancelled_request_does_not_break_the_connection(impostor):
    """WIRE-41: at whatever step one request is cancelled, those beside it are answered."""
    async with impostor(answer) as endpoint, anyio.create_task_group() as tasks:
        connection = await RelayConnection.connect(endpoint, None)
        answered = []

        async def read():
            with pytest.raises(ConnectionFailedError):
                await connection.run(nothing)

        async def ask():
            answered.append(await connection.request(PrekeyStatus(), Done))

        tasks.start_soon(read)
        with anyio.fail_after(10):
            for steps in range(12):
                async with anyio.create_task_group() as kept, anyio.create_task_group() as given_up:
                    for _ in range(3):
                        given_up.start_soon(connection.request, PrekeyStatus(), Done)
                        kept.start_soon(ask)
                    for _ in range(steps):
                        await checkpoint()
                    given_up.cancel_scope.cancel()
        assert answered == [Done()] * 36
        assert not connection._socket._broken
        await connection.aclose()


async def test_a_relay_that_does_not_read_is_noticed_by_everyone(impostor, monkeypatch):
    """WIRE-41: a message that finds no room breaks the connection for who reads it as well."""
    monkeypatch.setattr(websocket, "WRITE_TIMEOUT", 0.2)

    async def deaf(server):
        await server.handshake()
        await server.hello()
        await anyio.sleep_forever()

    async with impostor(deaf) as endpoint, anyio.create_task_group() as tasks:
        connection = await RelayConnection.connect(endpoint, None)
        ended = anyio.Event()

        async def read():
            with pytest.raises(ConnectionFailedError):
                await connection.run(nothing)
            ended.set()

        async def fill():
            with pytest.raises(ConnectionFailedError):
                while True:
                    await connection._socket.send(bytes(60_000))

        tasks.start_soon(read)
        tasks.start_soon(fill)
        with anyio.fail_after(20):
            await ended.wait()
        tasks.cancel_scope.cancel()
