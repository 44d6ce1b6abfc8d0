"""The TCP and TLS listeners of the TURN server: accept, feed the core, send what it says.

Spec: spec/turn.md TURN-70 ff. What one connection does is `relay.io.connection`; what a frame means
is `relay.turn.server`'s.
"""

import errno
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from relay.io.connection import Connection, Events, Queued
from relay.io.datagram import Capture, Clock
from relay.io.outlets import Outlets
from relay.io.stream_sources import StreamSources
from relay.io.stream_tls import PlainLayer, TLSLayer
from relay.io.tls import Certificates
from relay.turn.counters import Drop
from relay.turn.five_tuple import FiveTuple, SocketAddress, Transport, listener_number
from relay.turn.server import TURNServer

PATIENCE: Final = 10.0
"""Seconds a connection lives without an allocation, and that half a frame may take."""

BACKLOG: Final = 512
_RETRY: Final = 0.1
"""Seconds until accepting is tried again where the process has no descriptor left."""
_FORGET: Final = 1.0
"""Seconds between two looks at who may begin as many connections as any other again."""

_NO_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EINVAL})

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class StreamLimits:
    """How many connections there may be; may change at any time, for new ones."""

    connections: int = 4000
    connections_per_address: int = 200
    connections_per_address_and_minute: int = 600
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True)
class StreamListener:
    """A bound, listening, non-blocking socket, with certificates if it speaks TLS."""

    socket: socket.socket
    certificates: Certificates | None = None


def open_stream_socket(host: str, port: int) -> socket.socket:
    """Return a non-blocking TCP socket that listens on a numeric address; port 0 is any.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 clients have a socket of their own, so nobody shows up under a mapped address.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


async def serve_streams(
    listeners: Sequence[StreamListener],
    core: TURNServer,
    *,
    outlets: Outlets,
    clock: Clock,
    limits: StreamLimits | None = None,
    capture: Capture | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve TURN over TCP and TLS until cancelled; closes all sockets in any case.

    ``outlets`` and ``clock`` are those of the datagram loop, whose clients exchange data with
    these. Expired allocations are swept there.
    """
    server = _StreamServer(core, outlets, clock, limits or StreamLimits(), capture)
    try:
        async with trio.open_nursery() as nursery:
            for index, listener in enumerate(listeners):
                transport = Transport.TCP if listener.certificates is None else Transport.TLS
                number = listener_number(transport, index)
                outlets.add(number, partial(server.send, number))
                nursery.start_soon(server.accept, nursery, number, listener)
            nursery.start_soon(server.forget)
            task_status.started()
    finally:
        for listener in listeners:
            listener.socket.close()


class _StreamServer:
    """All connections, and their one core."""

    def __init__(
        self,
        core: TURNServer,
        outlets: Outlets,
        clock: Clock,
        limits: StreamLimits,
        capture: Capture | None,
    ) -> None:
        self._core = core
        self._outlets = outlets
        self._clock = clock
        self._limits = limits
        self._capture = capture
        self._connections: dict[FiveTuple, Connection] = {}
        self._sources = StreamSources()
        self._queued = Queued()
        self._reported = False

    async def accept(self, nursery: trio.Nursery, number: int, listener: StreamListener) -> None:
        """Accept the connections of one listener."""
        while True:
            await trio.lowlevel.wait_readable(listener.socket)
            try:
                sock, address = listener.socket.accept()
            except OSError as error:
                if error.errno in _FATAL:
                    raise
                if error.errno in _NO_RESOURCES:
                    await trio.sleep(_RETRY)
                # Anything else, a connection that has gone for instance, is that one's matter.
                continue
            five_tuple = (number, address)
            if not self._has_room(five_tuple):
                self._core.counters.connections_refused += 1
                sock.close()
                continue
            connection = self._connection(sock, five_tuple, listener)
            nursery.start_soon(self._serve, five_tuple, connection)

    async def forget(self) -> None:
        """Forget now and then who came lately."""
        while True:
            await trio.sleep(_FORGET)
            self._sources.forget(self._clock())

    def send(self, number: int, client: SocketAddress, data: bytes) -> None:
        """Send a frame to a client of a listener, or drop and count it."""
        connection = self._connections.get((number, client))
        if connection is None:
            self._dropped()
        else:
            connection.send(data)

    def _has_room(self, five_tuple: FiveTuple) -> bool:
        # An address of the connection before it, which is not closed here yet, is refused as well.
        return (
            five_tuple not in self._connections
            and len(self._connections) < self._limits.connections
            and self._sources.has_room(five_tuple, self._limits.connections_per_address)
            # Last, as it counts.
            and self._sources.is_seldom(
                five_tuple, self._limits.connections_per_address_and_minute, self._clock()
            )
        )

    def _connection(
        self, sock: socket.socket, five_tuple: FiveTuple, listener: StreamListener
    ) -> Connection:
        certificates = listener.certificates
        layer = PlainLayer() if certificates is None else TLSLayer(certificates.current.context)
        events = Events(
            received=partial(self._received, five_tuple),
            sent=self._sent,
            dropped=self._dropped,
            lifetime=lambda: self._core.lifetime(self._clock(), five_tuple),
        )
        connection = Connection(sock, layer, events, self._queued, self._limits.patience)
        self._connections[five_tuple] = connection
        self._sources.enter(five_tuple)
        self._core.counters.connections = len(self._connections)
        return connection

    async def _serve(self, five_tuple: FiveTuple, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception:  # noqa: BLE001 - one client's connection must not end everybody's calls
            self._failed()
        finally:
            del self._connections[five_tuple]
            self._sources.leave(five_tuple)
            # The five-tuple is the connection: whoever has the same one next is somebody else.
            self._core.disconnected(five_tuple)
            self._core.counters.connections = len(self._connections)
            self._core.counters.connections_timed_out += connection.timed_out

    def _received(self, five_tuple: FiveTuple, frame: bytes) -> None:
        now, counters = self._clock(), self._core.counters
        counters.packets_in += 1
        counters.bytes_in += len(frame)
        try:
            if self._capture is not None:
                self._capture(now, five_tuple[1], frame)
            self._outlets.send(self._core.receive(now, five_tuple, frame))
        except Exception:  # noqa: BLE001 - as for a datagram, see relay.io.datagram
            self._failed()

    def _sent(self, size: int) -> None:
        self._core.counters.packets_out += 1
        self._core.counters.bytes_out += size

    def _dropped(self) -> None:
        self._core.counters.drops[Drop.SEND_FAILED] += 1

    def _failed(self) -> None:
        self._core.counters.drops[Drop.INTERNAL] += 1
        # Once, as whoever found the way in could fill the disk.
        if not self._reported:
            self._reported = True
            _log.exception("a connection made the TURN server fail; further ones are only counted")
