"""The UDP sockets of the TURN server: receive, feed the core, send what it says (spec/turn.md).

Each wake-up drains up to `BATCH` datagrams, so that the event loop costs little per packet. It
knows nothing of STUN; what a datagram means is `relay.turn.server`'s.
"""

import errno
import logging
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Final

import trio

from relay.io.outlets import Outlets
from relay.turn.counters import Drop
from relay.turn.five_tuple import SocketAddress
from relay.turn.server import TURNServer

BATCH: Final = 64
"""Datagrams of one wake-up: enough to spread its cost, few enough to let signalling run between."""

MAX_DATAGRAM: Final = 4096
"""Bytes; real-time media stays under the path's MTU. What is longer is dropped."""

EXPIRY_INTERVAL: Final = 1.0
"""Seconds between two sweeps for expired state."""

SOCKET_BUFFER: Final = 4 * 1024 * 1024
"""Bytes asked of the kernel in each direction, for bursts while the loop is elsewhere."""

_FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK})

_log = logging.getLogger(__name__)

Capture = Callable[[float, SocketAddress, bytes], None]
"""``capture(now, client, datagram)`` sees all that arrives; for `serve --dev --capture` only."""

Clock = Callable[[], float]


def steady_clock() -> Clock:
    """Return a clock of Unix seconds that never jumps, whatever is done to the system's."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset


def open_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a non-blocking UDP socket bound to a numeric IPv4 or IPv6 address; port 0 is any.

    With ``shared`` other such sockets of this user can be bound to the same port; each datagram of
    a client then arrives at the same one of them.

    Where the machine has several addresses, bind each one that clients use: an answer leaves from
    the socket, and so from the address, that was asked.

    Raises:
        ValueError: ``host`` is no numeric address.
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            # IPv4 clients have a socket of their own, so nobody shows up under a mapped address.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def serve_turn(
    sockets: Sequence[socket.socket],
    core: TURNServer,
    *,
    outlets: Outlets | None = None,
    capture: Capture | None = None,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[list[SocketAddress]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve TURN on bound, non-blocking UDP sockets until cancelled; closes them in any case.

    Reports the sockets' addresses once it serves. No datagram ends it: `core.counters` says what
    became of those that were not forwarded. ``outlets`` are those of the other transports, whose
    clients exchange data with these; ``clock`` is then the same for all.

    Raises:
        ExceptionGroup: of `trio.ClosedResourceError`, or OSError: a socket was closed from outside.
    """
    loop = _DatagramLoop(sockets, core, clock or steady_clock(), capture, outlets or Outlets())
    try:
        async with trio.open_nursery() as nursery:
            for listener in range(len(sockets)):
                nursery.start_soon(loop.serve, listener)
            nursery.start_soon(loop.sweep)
            task_status.started([sock.getsockname() for sock in sockets])
    finally:
        for sock in sockets:
            sock.close()


class _DatagramLoop:
    """The sockets and their one core."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        core: TURNServer,
        clock: Clock,
        capture: Capture | None,
        outlets: Outlets,
    ) -> None:
        self._sockets = sockets
        self._core = core
        self._clock = clock
        self._capture = capture
        self._outlets = outlets
        self._reported = False
        for listener in range(len(sockets)):
            outlets.add(listener, partial(self._send, listener))

    async def serve(self, listener: int) -> None:
        """Serve one socket."""
        while True:
            await trio.lowlevel.wait_readable(self._sockets[listener])
            self._drain(listener)

    async def sweep(self) -> None:
        """Let the core forget what has expired."""
        while True:
            await trio.sleep(EXPIRY_INTERVAL)
            self._core.expire(self._clock())

    def _drain(self, listener: int) -> None:
        receive = self._sockets[listener].recvfrom
        now, packets, size = self._clock(), 0, 0
        try:
            for _ in range(BATCH):
                datagram, address = receive(MAX_DATAGRAM + 1)
                packets += 1
                size += len(datagram)
                self._handle(now, listener, address, datagram)
        except BlockingIOError:
            pass
        except OSError as error:
            # Some systems report a client's ICMP error here; it concerns nobody else.
            if error.errno in _FATAL:
                raise
        if packets:
            self._core.counters.packets_in += packets
            self._core.counters.bytes_in += size
            self._core.counters.batches[(packets - 1).bit_length()] += 1

    def _handle(self, now: float, listener: int, address: SocketAddress, datagram: bytes) -> None:
        counters = self._core.counters
        if len(datagram) > MAX_DATAGRAM:
            counters.drops[Drop.MALFORMED] += 1
            return
        try:
            if self._capture is not None:
                self._capture(now, address, datagram)
            self._outlets.send(self._core.receive(now, (listener, address), datagram))
        except Exception:  # noqa: BLE001 - one client's datagram must not end everybody's calls
            counters.drops[Drop.INTERNAL] += 1
            self._report()

    def _send(self, listener: int, client: SocketAddress, data: bytes) -> None:
        counters = self._core.counters
        try:
            self._sockets[listener].sendto(data, client)
        except OSError:
            # Full buffer or unreachable: real-time media is dropped, not queued.
            counters.drops[Drop.SEND_FAILED] += 1
        else:
            counters.packets_out += 1
            counters.bytes_out += len(data)

    def _report(self) -> None:
        # Once, as whoever found the way in could fill the disk.
        if not self._reported:
            self._reported = True
            _log.exception("a datagram made the TURN server fail; further ones are only counted")
