"""A cheap passphrase, and a server that answers as a test wants it to."""

import contextlib
from collections import deque
from contextlib import asynccontextmanager

import anyio
import pytest
from websockets.server import ServerProtocol

from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.io.endpoint import RelayEndpoint
from relay.wire.codec import encode
from relay.wire.messages import PROTOCOL_VERSION, Hello, ServerFrame

CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)


class Impostor:
    """One WebSocket connection, seen from the server."""

    def __init__(self, stream, name):
        self.stream, self.name = stream, name
        self.protocol = ServerProtocol()
        self._events = deque()

    async def handshake(self):
        while not (events := self.protocol.events_received()):
            self.protocol.receive_data(await self.stream.receive())
        self.protocol.send_response(self.protocol.accept(events[0]))
        await self.flush()

    async def flush(self):
        for data in self.protocol.data_to_send():
            if data:
                await self.stream.send(data)

    async def send(self, message):
        self.protocol.send_binary(message)
        await self.flush()

    async def say(self, body, number=0):
        await self.send(encode(ServerFrame(number, body)))

    async def hello(self, **changes):
        fields = {
            "version": PROTOCOL_VERSION,
            "relay": self.name,
            "relay_key": bytes(32),
            "challenge": bytes(32),
            "turn": (),
            "time": 0,
            "binding": 0,
        }
        await self.say(Hello(**fields | changes))

    async def receive(self):
        """Return the next frame of the client."""
        while not self._events:
            self.protocol.receive_data(await self.stream.receive())
            self._events += self.protocol.events_received()
            await self.flush()
        return self._events.popleft()


@pytest.fixture
def impostor():
    """Serve every connection with a function of the test; gives where."""

    @asynccontextmanager
    async def serve(behave):
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        endpoint = RelayEndpoint("127.0.0.1", port, tls=False)

        async def handle(stream):
            async with stream:
                # The client may go when it likes.
                with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                    await behave(Impostor(stream, endpoint.name))

        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
            yield endpoint
            tasks.cancel_scope.cancel()

    return serve
