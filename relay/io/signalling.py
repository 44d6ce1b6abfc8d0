"""The WebSocket listener (spec/wire.md, Connections): accepts, checks, hands to `Session`.

It also answers ``/healthz`` and ``/readyz``. It reads no frame.
"""

import logging
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

import trio
from websockets.http11 import Request, Response
from websockets.trio.server import ServerConnection, serve
from websockets.typing import Origin

from relay.errors import OperatorError
from relay.io.listener import Gate, GatedListener, transport
from relay.io.node import Node
from relay.io.requests import answer
from relay.io.session import TRY_LATER, Ending, Session
from relay.io.tls import Certificates
from relay.services.source import ForwardedError, client_address, is_within, source_key
from relay.wire.limits import MAX_FRAME

PATH: Final = "/v1"
KEEPALIVE_SECONDS: Final = 20.0
CLOSE_SECONDS: Final = 3.0
IN_FLIGHT: Final = 16
"""Frames of a connection that wait for their turn; then its socket is not read any further."""

# The library logs handshakes that fail with a traceback, and addresses: anybody could fill a disk.
_silent = logging.getLogger("relay.websockets")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)


async def open_listener(host: str, port: int) -> tuple[trio.SocketListener, int]:
    """Listen on a TCP address and return the listener with its port.

    Raises:
        OperatorError: the address cannot be used.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise OperatorError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    # A name can stand for several addresses; the first is the one that is announced.
    for other in listeners[1:]:
        await other.aclose()
    return listeners[0], listeners[0].socket.getsockname()[1]


class Signalling:
    """All signalling connections of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.gate = Gate(self._handshakes_of)
        self.sessions: set[Session] = set()
        self._leave_delay_ms: int | None = None
        self._empty = trio.Event()

    async def start(
        self,
        nursery: trio.Nursery,
        listener: trio.SocketListener,
        *,
        certificates: Certificates | None,
        origins: Sequence[str],
    ) -> None:
        """Begin to accept connections; they are served in ``nursery``."""
        await nursery.start(
            partial(
                serve,
                self._handle,
                # Of a listener, serve() uses no more than `accept`, `aclose` and `socket`.
                listeners=[GatedListener(listener, self.gate, certificates)],  # type: ignore[list-item]
                # Browsers name the page that connects; only pages that the operator chose may.
                origins=[None, *(Origin(origin) for origin in origins)],
                compression=None,  # lengths of compressed secrets tell what is in them
                process_request=self._process_request,
                server_header=None,
                open_timeout=self._node.limits.handshake_seconds,
                ping_interval=KEEPALIVE_SECONDS,
                ping_timeout=KEEPALIVE_SECONDS,
                close_timeout=CLOSE_SECONDS,
                max_size=MAX_FRAME,
                max_queue=IN_FLIGHT,
                logger=_silent,
            )
        )

    async def leave(self, delay_ms: int) -> None:
        """Tell every client that the relay stops, and wait until all connections are closed.

        Whoever comes now is answered with 503: the listener stays open, so that monitors see it.
        """
        self._leave_delay_ms = delay_ms
        for session in list(self.sessions):
            session.leave(delay_ms)
        if self.sessions:
            await self._empty.wait()

    async def _handle(self, socket: ServerConnection) -> None:
        node = self._node
        below = transport(socket.stream)
        below.passed()
        source = source_key(self._client(below.peer, socket.request))
        # WIRE-45: a browser cannot see the certificate, so it cannot sign it.
        is_browser = socket.request is not None and "Origin" in socket.request.headers
        endpoint = None if is_browser else below.endpoint
        session = Session(node, socket, source, answer, endpoint=endpoint)
        node.sources[source] += 1
        self.sessions.add(session)
        try:
            too_many = node.per_address and (
                node.sources[source] > node.limits.connections_per_address
            )
            if too_many or len(self.sessions) > node.limits.connections:
                session.end(Ending(TRY_LATER, "too many connections"))
            if self._leave_delay_ms is not None:
                session.leave(self._leave_delay_ms)
            await session.run()
        finally:
            self.sessions.discard(session)
            if not self.sessions and self._leave_delay_ms is not None:
                self._empty.set()
            node.sources[source] -= 1
            if not node.sources[source]:
                del node.sources[source]

    def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return socket.respond(HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            if self._node.is_ready and self._node.can_store:
                return socket.respond(HTTPStatus.OK, "ready\n")
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "not ready\n")
        if path != PATH:
            return socket.respond(HTTPStatus.NOT_FOUND, "the relay is at /v1\n")
        if self._leave_delay_ms is not None:
            response = socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "the relay stops\n")
            response.headers["Retry-After"] = str(-(-self._leave_delay_ms // 1000))
            return response
        try:
            self._client(transport(socket.stream).peer, request)
        except ForwardedError as error:
            return socket.respond(HTTPStatus.BAD_REQUEST, f"{error}\n")
        return None

    def _client(self, peer: str, request: Request | None) -> str:
        assert request is not None
        header = self._node.proxy_header
        values = request.headers.get_all(header)
        return client_address(peer, header, values, self._node.trusted_proxies)

    def _handshakes_of(self, peer: str) -> int | None:
        # Behind a proxy everybody has its address; who it is shows with the handshake only.
        if not self._node.per_address or is_within(peer, self._node.trusted_proxies):
            return None
        return self._node.limits.handshakes_per_address
