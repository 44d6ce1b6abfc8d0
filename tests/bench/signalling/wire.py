"""A client of our relay that costs next to nothing: bare WebSocket frames under asyncio.

Each frame is built once and written at once. The masking key is zero, which RFC 6455 allows and
which leaves the payload as it is; the relay unmasks all the same.
"""

import asyncio
import base64
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from relay.wire.messages import Ack, ClientFrame, Deliver, Failure, Hello, Request, ServerFrame
from relay.wire.records import bound_challenge, endpoint_hash

_BINARY, _CLOSE, _PING, _PONG = 0x82, 0x88, 0x89, 0x8A
_MASK = 0x80
_KEY = bytes(4)
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(ServerFrame)

Waiter = asyncio.Future[Any] | Callable[[], None] | None


class WireClosedError(Exception):
    """The relay ended the connection, or refused a request; the text says how."""


@dataclass(frozen=True)
class Node:
    """Where a node listens; ``certificate`` is the PEM file of the one that it shows."""

    host: str
    port: int
    certificate: str = ""

    def tls(self) -> ssl.SSLContext | None:
        if not self.certificate:
            return None
        return ssl.create_default_context(cafile=self.certificate)


class Wire(asyncio.Protocol):
    """One connection. Requests are answered in order; `on_deliver` gets each envelope."""

    def __init__(self) -> None:
        self.on_deliver: Callable[[Wire, Deliver], None] | None = None
        self.hello: Hello | None = None
        self._buffer = bytearray()
        self._waiting: dict[int, Waiter] = {}
        self._next_id = 0
        self._upgraded = False
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, node: Node, tls: ssl.SSLContext | None) -> "Wire":
        """Connect, shake hands and read Hello."""
        loop = asyncio.get_running_loop()
        self = cls()
        self._transport, _ = await loop.create_connection(
            lambda: self, node.host, node.port, ssl=tls
        )
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET /v1 HTTP/1.1\r\nHost: {node.host}:{node.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await self._greeted
        assert self.hello is not None
        if tls is not None:
            shown = self._transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            bound = bound_challenge(self.hello.challenge, endpoint_hash(shown))
            self.hello = replace(self.hello, challenge=bound)
        return self

    async def request(self, body: Request) -> Any:
        """Ask and return the reply.

        Raises:
            WireClosedError: refused, or the connection ended.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ask(body, future)
        reply = await future
        if isinstance(reply, Failure):
            raise WireClosedError(f"refused: {reply.code.name}, {reply.text}")
        return reply

    def send(self, body: Request, then: Callable[[], None] | None = None) -> None:
        """Ask, wait for nothing, and call ``then`` when it was done; a refusal ends the run."""
        self._ask(body, then)

    def acknowledge(self, delivery: Deliver) -> None:
        """Acknowledge one envelope, as clients do."""
        self._ask(Ack((delivery.delivery_id,)), None)

    def close(self) -> None:
        """Hang up without a word."""
        self._transport.abort()

    # --- asyncio.Protocol ---

    def data_received(self, data: bytes) -> None:
        """Take what the relay sent."""
        self._buffer += data
        if not self._upgraded and not self._read_head():
            return
        view, begin = bytes(self._buffer), 0
        while (frame := _frame(view, begin)) is not None:
            kind, payload, begin = frame
            if kind == _BINARY:
                self._take(payload)
            elif kind == _PING:
                self._write(_PONG, payload)
            elif kind == _CLOSE:
                self.connection_lost(WireClosedError(f"closed: {payload[2:].decode()}"))
        del self._buffer[:begin]

    def connection_lost(self, error: Exception | None) -> None:
        """Let whoever waits know."""
        reason = error or WireClosedError("the relay hung up")
        waiting = [*self._waiting.values(), self._greeted]
        self._waiting.clear()
        for one in waiting:
            if isinstance(one, asyncio.Future) and not one.done():
                one.set_exception(reason)

    # --- below ---

    def _read_head(self) -> bool:
        head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end:
            return False
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            self.connection_lost(WireClosedError(head.decode("latin-1")))
            return False
        self._buffer, self._upgraded = bytearray(rest), True
        return True

    def _ask(self, body: Request, waiter: Any) -> None:
        self._next_id += 1
        self._waiting[self._next_id] = waiter
        self._write(_BINARY, _ENCODER.encode(ClientFrame(self._next_id, body)))

    def _write(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        if size < _TWO_BYTES:
            head = bytes((kind, _MASK | size))
        elif size < 1 << 16:
            head = bytes((kind, _MASK | _TWO_BYTES)) + size.to_bytes(2)
        else:
            head = bytes((kind, _MASK | _EIGHT_BYTES)) + size.to_bytes(8)
        self._transport.write(b"".join((head, _KEY, payload)))

    def _take(self, payload: bytes) -> None:
        frame = _DECODER.decode(payload)
        if frame.id == 0:
            if isinstance(frame.body, Deliver):
                assert self.on_deliver is not None
                self.on_deliver(self, frame.body)
            elif isinstance(frame.body, Hello):
                self.hello = frame.body
                self._greeted.set_result(None)
            return
        waiter = self._waiting.pop(frame.id)
        if isinstance(waiter, asyncio.Future):
            if not waiter.done():
                waiter.set_result(frame.body)
            return
        if isinstance(frame.body, Failure):
            raise WireClosedError(f"refused: {frame.body.code.name}, {frame.body.text}")
        if waiter is not None:
            waiter()


def _frame(data: bytes, begin: int) -> tuple[int, bytes, int] | None:
    """Return kind, payload and end of the frame at ``begin``, if all of it is there."""
    if len(data) < begin + 2:
        return None
    kind, size, start = data[begin], data[begin + 1], begin + 2
    if size == _TWO_BYTES:
        size, start = int.from_bytes(data[start : start + 2]), start + 2
    elif size == _EIGHT_BYTES:
        size, start = int.from_bytes(data[start : start + 8]), start + 8
    end = start + size
    return (kind, data[start:end], end) if len(data) >= end else None
