"""The kernel's socket addresses, as bytes, and Python's (ip(7), ipv6(7)).

``sockaddr_in``: ``family:u16 port:u16 address: 4 bytes zero: 8 bytes``; ``sockaddr_in6``:
``family:u16 port:u16 flow:u32 address: 16 bytes scope:u32``. Ports are big-endian, family and
scope little-endian here. It looks nothing up.
"""

import socket
from typing import Final

from relay.turn.five_tuple import SocketAddress

IPV4_NAME: Final = 16
IPV6_NAME: Final = 28


def encode_name(address: SocketAddress) -> bytes:
    """Return a numeric socket address as the kernel writes it for what it receives."""
    host, port = address[0].partition("%")[0], address[1].to_bytes(2)
    if ":" not in host:
        family = socket.AF_INET.to_bytes(2, "little")
        return family + port + socket.inet_pton(socket.AF_INET, host) + bytes(8)
    family = socket.AF_INET6.to_bytes(2, "little")
    scope = address[3] if len(address) == 4 else 0
    ip = socket.inet_pton(socket.AF_INET6, host)
    return family + port + bytes(4) + ip + scope.to_bytes(4, "little")


def decode_name(name: bytes) -> SocketAddress:
    """Return a socket address of the kernel as Python's sockets take it."""
    port = int.from_bytes(name[2:4])
    if len(name) == IPV4_NAME:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    host = socket.inet_ntop(socket.AF_INET6, name[8:24])
    return host, port, 0, int.from_bytes(name[24:28], "little")


def name_length(sock: socket.socket) -> int:
    """Return the length of the addresses of a socket's clients."""
    return IPV4_NAME if sock.family == socket.AF_INET else IPV6_NAME
