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
from relay.errors import OperatorError, TicketError
from relay.io.capture import Capture
from relay.io.datagram import open_socket, serve_turn, steady_clock
from relay.io.outlets import Outlets
from relay.io.stream import StreamLimits, StreamListener, open_stream_socket, serve_streams
from relay.io.tls import Certificates
from relay.services import tickets
from relay.turn.five_tuple import Transport
from relay.turn.limits import Limits
from relay.turn.server import TURNServer

NONCE_KEY_BYTES: Final = 32

_URL: Final = {
    Transport.UDP: "turn:{}?transport=udp",
    Transport.TCP: "turn:{}?transport=tcp",
    Transport.TLS: "turns:{}?transport=tcp",
}


@dataclass(frozen=True, slots=True)
class Listeners:
    """Bound sockets: over UDP, and over TCP and TLS."""

    datagrams: tuple[socket.socket, ...]
    streams: tuple[StreamListener, ...]

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
def open_listeners(config: Config, certificates: Certificates | None) -> Iterator[Listeners]:
    """Bind what the configuration says; closes it in the end.

    Raises:
        OperatorError: an address cannot be used, or there is no certificate for TLS.
    """
    turn = config.turn
    if turn.listen_tls and certificates is None:
        raise OperatorError("turn.listen_tls needs a certificate", hint="set [tls]")
    with ExitStack() as stack:
        datagrams = tuple(
            stack.enter_context(_bind(open_socket, text, "turn.listen", "UDP"))
            for text in addresses(turn.listen)
        )
        streams = [
            StreamListener(stack.enter_context(_bind(open_stream_socket, text, key, "TCP")), tls)
            for key, texts, tls in (
                ("turn.listen_tcp", turn.listen_tcp, None),
                ("turn.listen_tls", turn.listen_tls, certificates),
            )
            for text in addresses(texts)
        ]
        yield Listeners(datagrams, tuple(streams))


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
        self.core = TURNServer(
            identify=identify,
            password=partial(tickets.password, secret),
            nonce_key=secrets.token_bytes(NONCE_KEY_BYTES),
        )
        self.limit(config.limits)

    def limit(self, limits: LimitsSection) -> None:
        """Put bounds into effect; what exceeds them already may stay."""
        self.core.limit(limits_of(limits, per_address=self._per_address))
        streams = self._stream_limits
        streams.connections = streams.connections_per_address = limits.turn_connections
        if self._per_address:
            streams.connections_per_address = limits.turn_connections_per_address

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
        shared: Any = {"outlets": outlets, "clock": clock, "capture": keep}
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_turn, listeners.datagrams, self.core, **shared))
            await nursery.start(
                partial(
                    serve_streams,
                    listeners.streams,
                    self.core,
                    limits=self._stream_limits,
                    **shared,
                )
            )
            task_status.started()


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
    opener: Callable[[str, int], socket.socket], text: str, key: str, protocol: str
) -> Iterator[socket.socket]:
    host, port = host_port(text, key)
    try:
        sock = opener(host, port)
    except OSError as error:
        problem = f"cannot use {protocol} {host} port {port}: {error.strerror}"
        raise OperatorError(problem) from error
    except ValueError as error:
        raise OperatorError(f"{key} needs a numeric address") from error
    with sock:
        yield sock
