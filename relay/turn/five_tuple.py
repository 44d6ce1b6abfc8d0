"""The five-tuple by which a client's allocation is found (RFC 8656 section 2.2).

The transport is UDP throughout; the server's end is the index of the listening socket, so that an
answer leaves from where the request came in. It opens no socket.
"""

from relay.turn.attributes import TransportAddress

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""A client's address as Python's sockets name it: IPv4, or IPv6 with flow and scope."""

FiveTuple = tuple[int, SocketAddress]
"""Listening socket and client address; a plain tuple, as it is hashed once for every packet."""


def client_address(five_tuple: FiveTuple) -> TransportAddress:
    """Return the client's (server-reflexive) transport address."""
    address = five_tuple[1]
    return TransportAddress.parse(address[0], address[1])
