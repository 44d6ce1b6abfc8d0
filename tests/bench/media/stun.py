"""As much of STUN and TURN as a client needs that measures a server (RFC 8489, RFC 8656).

Written apart from the relay's own code, so that an error there does not hide behind the same one
here. It reads answers of servers that it started itself and is not hardened against others.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

MAGIC = 0x2112_A442
HEADER = 20
INTEGRITY = 24
SUCCESS, ERROR = 0x0100, 0x0110

UDP_TRANSPORT = bytes((17, 0, 0, 0))


class Method(IntEnum):
    ALLOCATE = 3
    REFRESH = 4
    CHANNEL_BIND = 9


class Attribute(IntEnum):
    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_TRANSPORT = 0x0019


@dataclass(frozen=True)
class Credential:
    username: str
    password: str

    def key(self, realm: str) -> bytes:
        """Return the long-term key."""
        return hashlib.md5(f"{self.username}:{realm}:{self.password}".encode()).digest()

    @classmethod
    def time_limited(cls, secret: str, expires: int, name: str) -> "Credential":
        """Make what any server with ``secret`` accepts until ``expires`` (Unix seconds)."""
        username = f"{expires}:{name}"
        digest = hmac.digest(secret.encode(), username.encode(), "sha1")
        return cls(username, base64.b64encode(digest).decode())


@dataclass(frozen=True)
class Answer:
    """``code`` is 0 for a success; ``attributes`` holds the first of each."""

    method: int
    code: int
    attributes: dict[int, bytes]

    def relayed(self) -> tuple[str, int]:
        """Return XOR-RELAYED-ADDRESS, IPv4."""
        _, port, host = struct.unpack(">HHI", self.attributes[Attribute.XOR_RELAYED_ADDRESS])
        return socket.inet_ntoa(struct.pack(">I", host ^ MAGIC)), port ^ (MAGIC >> 16)


def xor_address(address: tuple[str, int]) -> bytes:
    """Return the value of an XOR address attribute, IPv4."""
    host = int.from_bytes(socket.inet_aton(address[0]))
    return struct.pack(">HHI", 1, address[1] ^ (MAGIC >> 16), host ^ MAGIC)


def request(
    method: Method, attributes: list[tuple[int, bytes]], key: bytes | None = None
) -> tuple[bytes, bytes]:
    """Return a request's transaction id and bytes, signed if there is a key."""
    transaction = os.urandom(12)
    body = b"".join(
        struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )
    length = len(body) + (INTEGRITY if key is not None else 0)
    message = struct.pack(">HHI", method, length, MAGIC) + transaction + body
    if key is not None:
        digest = hmac.digest(key, message, "sha1")
        message += struct.pack(">HH", Attribute.MESSAGE_INTEGRITY, 20) + digest
    return transaction, message


def parse(data: bytes) -> tuple[bytes, Answer] | None:
    """Return transaction id and answer, or None where this is no response."""
    if len(data) < HEADER or data[0] > 0x3F:
        return None
    kind, length = struct.unpack_from(">HH", data)
    if kind & 0x0110 not in {SUCCESS, ERROR}:
        return None
    attributes: dict[int, bytes] = {}
    position = HEADER
    while position < HEADER + length:
        name, size = struct.unpack_from(">HH", data, position)
        attributes.setdefault(name, data[position + 4 : position + 4 + size])
        position += 4 + size + -size % 4
    code = 0
    if kind & 0x0110 == ERROR:
        value = attributes[Attribute.ERROR_CODE]
        code = value[2] * 100 + value[3]
    return data[8:20], Answer(kind & 0x3EEF, code, attributes)
