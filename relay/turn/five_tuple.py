"""The five-tuple by which a client's allocation is found (RFC 8656 section 2.2).

The server's end, address and transport protocol together, is the number of the listener, so that
an answer leaves from where the request came in. It opens no socket.
"""

from enum import IntEnum, unique
from typing import Final

from relay.turn.attributes import TransportAddress

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""A client's address as Python's sockets name it: IPv4, or IPv6 with flow and scope."""

FiveTuple = tuple[int, SocketAddress]
"""Listener and client address; a plain tuple, as it is hashed once for every packet."""

_TRANSPORT_SHIFT: Final = 8

SHARES: Final = (1, 16)
"""Many a host is given a /48, with 65 536 networks of /64."""


@unique
class Transport(IntEnum):
    """How a client reaches a listener."""

    UDP = 0
    TCP = 1
    TLS = 2


def listener_number(transport: Transport, index: int) -> int:
    """Return the number of the ``index``-th listener of a transport.

    Layout: ``transport:8 index:8``, so the number of a UDP listener is its index.
    """
    if not 0 <= index < 1 << _TRANSPORT_SHIFT:
        raise ValueError("a transport has at most 256 listeners")
    return transport << _TRANSPORT_SHIFT | index


def transport_of(five_tuple: FiveTuple) -> Transport:
    """Return how the client of a five-tuple is connected."""
    return Transport(five_tuple[0] >> _TRANSPORT_SHIFT)


def sources_of(five_tuple: FiveTuple) -> tuple[bytes, ...]:
    """Return what counts as one source: an IPv4 address, or the /64 and the /48 of an IPv6 one.

    The n-th of them may have `SHARES[n]` times what one source may have (WIRE-52).
    """
    ip = client_address(five_tuple).ip
    return (ip,) if len(ip) == 4 else (ip[:8], ip[:6])


def client_address(five_tuple: FiveTuple) -> TransportAddress:
    """Return the client's (server-reflexive) transport address."""
    address = five_tuple[1]
    return TransportAddress.parse(address[0], address[1])
