"""The WebSocket listener (spec/wire.md, Connections): accepts, checks, hands to `Session`.

It also answers ``/healthz`` and ``/readyz``. It reads no frame.
"""

import socket
from collections.abc import Iterable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
import trio
from websockets.http11 import Request
from websockets.typing import Origin

from relay.errors import AddressError
from relay.io.endings import Code, Ending
from relay.io.listener import Gate, Share, accept_all
from relay.io.logs import place
from relay.io.node import Node
from relay.io.requests import answer
from relay.io.session import Session
from relay.io.stream_tls import PlainLayer, TLSLayer
from relay.io.tls import Certificates
from relay.io.websocket import Refusal, WebSocket
from relay.services.source import ForwardedError, client_address, is_within, source_key

PATH: Final = "/v1"
LOOK_SECONDS: Final = 1.0
"""Between two looks at who is to be pinged."""

log = structlog.get_logger()


async def open_listener(host: str, port: int) -> tuple[trio.SocketListener, int]:
    """Listen on a TCP address and return the listener with its port.

    Raises:
        AddressError: the address cannot be used.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise AddressError(f"cannot listen on {host} port {port}", error) from error
    # A name can stand for several addresses; the first is the one that is announced.
    for other in listeners[1:]:
        await other.aclose()
    return listeners[0], listeners[0].socket.getsockname()[1]


class Signalling:
    """All signalling connections of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.gate = Gate(self._handshakes_of, trio.current_time)
        self.sessions: set[Session] = set()
        self._connections: set[WebSocket] = set()
        self._certificates: Certificates | None = None
        self._origins: tuple[Origin | None, ...] = (None,)
        self._leave_delay_ms: int | None = None
        self._empty = trio.Event()

    def start(
        self,
        nursery: trio.Nursery,
        listeners: Iterable[trio.SocketListener],
        *,
        certificates: Certificates | None,
        origins: Sequence[str],
    ) -> None:
        """Begin to accept connections; they are served in ``nursery``."""
        self._certificates = certificates
        # Browsers name the page that connects; only pages that the operator chose may.
        self._origins = (None, *(Origin(origin) for origin in origins))

        def serve(sock: socket.socket, peer: str) -> None:
            nursery.start_soon(self._serve, sock, peer)

        for listener in listeners:
            nursery.start_soon(accept_all, listener, self.gate, serve)
        nursery.start_soon(self._keep_alive)

    async def leave(self, delay_ms: int) -> None:
        """Tell every client that the relay stops, and wait until all connections are closed.

        Whoever comes now is answered with 503: the listener stays open, so that monitors see it.
        """
        self._leave_delay_ms = delay_ms
        for session in list(self.sessions):
            session.leave(delay_ms)
        if self.sessions:
            await self._empty.wait()

    async def _serve(self, sock: socket.socket, peer: str) -> None:
        """Serve one connection for as long as it lasts."""
        served = None if self._certificates is None else self._certificates.current
        layer = PlainLayer() if served is None else TLSLayer(served.context)
        connection = WebSocket(sock, layer, self._origins)
        try:
            request = None
            try:
                # WIRE-42 MUST: TLS and WebSocket together have this time.
                with trio.move_on_after(self._node.limits.handshake_seconds):
                    request = await connection.handshake(partial(self._refusal, peer))
            finally:
                self.gate.leave(peer)
            if request is not None:
                endpoint = None if served is None else served.endpoint
                await self._handle(connection, peer, request, endpoint)
        except Exception as error:  # noqa: BLE001 - one connection must not end the relay
            log.error("connection failed", **place(error))  # noqa: TRY400 - texts may hold names
        finally:
            connection.abort()

    async def _keep_alive(self) -> None:
        """Ping all connections that are due, and forget who came lately."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = trio.current_time()
            self.gate.forget()
            for connection in list(self._connections):
                connection.keep_alive(now)

    async def _handle(
        self, connection: WebSocket, peer: str, request: Request, endpoint: bytes | None
    ) -> None:
        node = self._node
        source = source_key(self._client(peer, request))
        # WIRE-45: a browser cannot see the certificate, so it cannot sign it.
        if "Origin" in request.headers:
            endpoint = None
        session = Session(node, connection, source, answer, endpoint=endpoint)
        node.sources.enter(source)
        self.sessions.add(session)
        self._connections.add(connection)
        try:
            too_many = node.per_address and (
                node.sources.is_beyond(source, node.limits.connections_per_address)
            )
            if too_many or len(self.sessions) > node.limits.connections:
                session.end(Ending(Code.TRY_LATER, "too many connections"))
            if self._leave_delay_ms is not None:
                session.leave(self._leave_delay_ms)
            await session.run()
        finally:
            self.sessions.discard(session)
            self._connections.discard(connection)
            if not self.sessions and self._leave_delay_ms is not None:
                self._empty.set()
            node.sources.leave(source)

    def _refusal(self, peer: str, request: Request) -> Refusal | None:
        """Return what a request is answered with, if it is not for a WebSocket."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return Refusal(HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            if self._node.is_ready and self._node.can_store:
                return Refusal(HTTPStatus.OK, "ready\n")
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "not ready\n")
        if path != PATH:
            return Refusal(HTTPStatus.NOT_FOUND, "the relay is at /v1\n")
        if self._leave_delay_ms is not None:
            again = str(-(-self._leave_delay_ms // 1000))
            return Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "the relay stops\n", (("Retry-After", again),)
            )
        try:
            self._client(peer, request)
        except ForwardedError as error:
            return Refusal(HTTPStatus.BAD_REQUEST, f"{error}\n")
        return None

    def _client(self, peer: str, request: Request) -> str:
        header = self._node.proxy_header
        values = request.headers.get_all(header)
        return client_address(peer, header, values, self._node.trusted_proxies)

    def _handshakes_of(self, peer: str) -> Share | None:
        # Behind a proxy everybody has its address; who it is shows with the handshake only.
        if not self._node.per_address or is_within(peer, self._node.trusted_proxies):
            return None
        limits = self._node.limits
        return Share(limits.handshakes_per_address, limits.handshakes_per_address_and_minute)
