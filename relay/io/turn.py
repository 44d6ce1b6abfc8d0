"""The TURN server of a relay process: its listeners, what clients are told, and its core.

Spec: spec/turn.md. It reads and writes no socket itself (`relay.io.datagram`, `relay.io.stream`).
"""

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

import trio

from relay.config import Config, LimitsSection, addresses, host_port, join_host_port
from relay.errors import AddressError, OperatorError, TicketError
from relay.io.capture import Capture
from relay.io.datagram import Clock, open_socket, serve_turn, steady_clock
from relay.io.media.plane import IS_AVAILABLE, open_group, serve_plane
from relay.io.media.routetable import MAX_RECORDS
from relay.io.media.sharedroutes import SharedRoutes
from relay.io.outlets import Outlets
from relay.io.stream import StreamLimits, StreamListener, open_stream_socket, serve_streams
from relay.io.tls import Certificates
from relay.services import tickets
from relay.turn.five_tuple import Transport
from relay.turn.limits import Limits
from relay.turn.server import TURNServer

NONCE_KEY_BYTES: Final = 32
ROUTES_PER_ALLOCATION: Final = 2
"""To the peer, and to the one before while a client changes its network."""

UNLIMITED: Final = 1_000_000
"""Connections of one source a minute in development."""

_URL: Final = {
    Transport.UDP: "turn:{}?transport=udp",
    Transport.TCP: "turn:{}?transport=tcp",
    Transport.TLS: "turns:{}?transport=tcp",
}


@dataclass(frozen=True, slots=True)
class Listeners:
    """Bound sockets: over UDP, a group for each listener, and over TCP and TLS."""

    groups: tuple[tuple[socket.socket, ...], ...]
    streams: tuple[StreamListener, ...]
    workers: int = 0
    """Processes that forward for each UDP listener, a socket of its group each; with 0 this one
    does."""

    @property
    def datagrams(self) -> tuple[socket.socket, ...]:
        """One socket of each UDP listener."""
        return tuple(group[0] for group in self.groups)

    def bound(self) -> Iterator[tuple[Transport, str, int]]:
        """Yield transport, host and port of each, UDP first."""
        for sock in self.datagrams:
            yield (Transport.UDP, *sock.getsockname()[:2])
        for listener in self.streams:
            transport = Transport.TCP if listener.certificates is None else Transport.TLS
            yield (transport, *listener.socket.getsockname()[:2])

    def bound_url(self) -> str:
        """Return the URL of the first UDP socket, by the address it is bound to."""
        transport, host, port = next(self.bound())
        return _URL[transport].format(join_host_port(host, port))

    def urls(self, name: str) -> tuple[str, ...]:
        """Return what clients are told: the bound addresses, or the relay's name for any address.

        ``name`` is ``host`` or ``host:port`` as clients dial it. UDP comes first: it is what
        suits media, and all that some clients know.
        """
        own = name if name.endswith("]") or ":" not in name else name.rpartition(":")[0]
        found = [
            _URL[transport].format(
                f"{own}:{port}" if ip_address(host).is_unspecified else join_host_port(host, port)
            )
            for transport, host, port in self.bound()
        ]
        return tuple(dict.fromkeys(found))


@contextmanager
def open_listeners(
    config: Config, certificates: Certificates | None, *, workers: int = 0
) -> Iterator[Listeners]:
    """Bind what the configuration says, UDP for ``workers``; closes it in the end.

    Raises:
        OperatorError: an address cannot be used, or there is no certificate for TLS.
    """
    turn = config.turn
    if turn.listen_tls and certificates is None:
        raise OperatorError("turn.listen_tls needs a certificate", hint="set [tls]")
    with ExitStack() as stack:
        groups = tuple(
            stack.enter_context(_bind(partial(_open_group, workers), text, "turn.listen", "UDP"))
            for text in addresses(turn.listen)
        )
        streams = [
            StreamListener(stack.enter_context(_bind(_open_stream, text, key, "TCP"))[0], tls)
            for key, texts, tls in (
                ("turn.listen_tcp", turn.listen_tcp, None),
                ("turn.listen_tls", turn.listen_tls, certificates),
            )
            for text in addresses(texts)
        ]
        yield Listeners(groups, tuple(streams), workers)


def workers_of(config: Config, *, is_captured: bool) -> int:
    """Return how many processes forward for each UDP listener.

    None with a capture, which sees what comes to this process, nor where the system has no support.
    """
    return 0 if is_captured or not IS_AVAILABLE else config.turn.workers


class Media:
    """The TURN server: its core, and the bounds that an operator may change while it runs."""

    def __init__(self, config: Config, *, per_address: bool) -> None:
        """Make the core. Without ``per_address`` no source is limited."""
        secret = config.turn.secret.encode()

        def identify(username: str, now: float) -> tickets.Identity | None:
            try:
                return tickets.open_id(secret, username, now)
            except TicketError:
                return None

        self._per_address = per_address
        self._stream_limits = StreamLimits()
        self._routes: SharedRoutes | None = None
        self.core = TURNServer(
            identify=identify,
            password=partial(tickets.password, secret),
            nonce_key=secrets.token_bytes(NONCE_KEY_BYTES),
        )
        self.limit(config.limits)

    def limit(self, limits: LimitsSection) -> None:
        """Put bounds into effect; what exceeds them already may stay."""
        bounds = self._bounds = limits_of(limits, per_address=self._per_address)
        self.core.limit(bounds)
        if self._routes is not None:
            self._routes.set_bandwidth(bounds.bandwidth)
        streams = self._stream_limits
        streams.connections = streams.connections_per_address = limits.turn_connections
        streams.connections_per_address_and_minute = UNLIMITED
        if self._per_address:
            streams.connections_per_address = limits.turn_connections_per_address
            streams.connections_per_address_and_minute = limits.handshakes_per_address_and_minute

    async def serve(
        self,
        listeners: Listeners,
        *,
        capture: Capture | None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on all listeners until cancelled."""
        outlets, clock = Outlets(), steady_clock()
        keep = None if capture is None else capture.datagram
        shared: Any = {"outlets": outlets, "clock": clock}
        with ExitStack() as stack:
            if listeners.workers:
                routes = stack.enter_context(self._share_routes(listeners, clock))
                groups = listeners.groups
                serve_udp = partial(serve_plane, groups, self.core, routes, **shared)
            else:
                serve_udp = partial(
                    serve_turn, listeners.datagrams, self.core, capture=keep, **shared
                )
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_udp)
                await nursery.start(
                    partial(
                        serve_streams,
                        listeners.streams,
                        self.core,
                        limits=self._stream_limits,
                        capture=keep,
                        **shared,
                    )
                )
                task_status.started()

    def _share_routes(self, listeners: Listeners, clock: Clock) -> SharedRoutes:
        bounds = self._bounds
        self._routes = SharedRoutes(
            listeners=len(listeners.groups),
            records=min(ROUTES_PER_ALLOCATION * bounds.allocations, MAX_RECORDS),
            bandwidth=bounds.bandwidth,
            clock=clock,
        )
        self.core.observe(self._routes)
        return self._routes


def limits_of(limits: LimitsSection, *, per_address: bool) -> Limits:
    """Return the bounds of allocations that the configuration sets."""
    return Limits(
        allocations=limits.allocations,
        allocations_per_side=limits.allocations_per_side,
        allocations_per_address=limits.allocations_per_address
        if per_address
        else limits.allocations,
        max_lifetime=limits.allocation_seconds,
        bandwidth=limits.allocation_bytes_per_second,
    )


@contextmanager
def _bind(
    opener: Callable[[str, int], tuple[socket.socket, ...]], text: str, key: str, protocol: str
) -> Iterator[tuple[socket.socket, ...]]:
    host, port = host_port(text, key)
    try:
        group = opener(host, port)
    except OSError as error:
        raise AddressError(f"cannot use {protocol} {host} port {port}", error) from error
    except ValueError as error:
        raise OperatorError(f"{key} needs a numeric address") from error
    with ExitStack() as stack:
        for sock in group:
            stack.enter_context(sock)
        yield group


def _open_group(workers: int, host: str, port: int) -> tuple[socket.socket, ...]:
    return tuple(open_group(host, port, workers)) if workers else (open_socket(host, port),)


def _open_stream(host: str, port: int) -> tuple[socket.socket, ...]:
    return (open_stream_socket(host, port),)
