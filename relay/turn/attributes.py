"""The attributes of TURN: their types and how values stand on the wire (RFC 8656 section 18).

It frames no message (`relay.turn.stun`) and judges no value beyond its form.
"""

from enum import IntEnum, unique
from ipaddress import ip_address
from typing import Final, NamedTuple

from relay.turn.errors import ErrorCode, STUNError
from relay.turn.stun import MAGIC_COOKIE, STUNMessage

IPV4_FAMILY: Final = 0x01
IPV6_FAMILY: Final = 0x02
UDP_PROTOCOL: Final = 17

_COMPREHENSION_OPTIONAL: Final = 0x8000
_FAMILY_OF_LENGTH: Final = {4: IPV4_FAMILY, 16: IPV6_FAMILY}
_LENGTH_OF_FAMILY: Final = {family: length for length, family in _FAMILY_OF_LENGTH.items()}


@unique
class AttributeType(IntEnum):
    """The attributes this server reads or writes."""

    USERNAME = 0x0006
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    PASSWORD_ALGORITHM = 0x001D
    USERHASH = 0x001E
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    ADDITIONAL_ADDRESS_FAMILY = 0x8000
    ADDRESS_ERROR_CODE = 0x8001
    PASSWORD_ALGORITHMS = 0x8002


_KNOWN: Final = frozenset(AttributeType)
"""DONT-FRAGMENT is not among them: RFC 8656 section 7.2 lets a server that cannot set the DF bit
treat it as unknown, and virtual relayed addresses have no IP header to set it in."""


@unique
class PasswordAlgorithm(IntEnum):
    """How the key of a long-term credential is made (RFC 8489 section 18.5.1)."""

    MD5 = 0x0001
    SHA256 = 0x0002


class TransportAddress(NamedTuple):
    """An IP address as 4 or 16 packed bytes, and a port."""

    ip: bytes
    port: int

    @classmethod
    def parse(cls, host: str, port: int) -> "TransportAddress":
        """Read a numeric host as sockets name it; the scope of a link-local one is dropped."""
        return cls(ip_address(host.partition("%")[0]).packed, port)

    def __str__(self) -> str:
        host = str(ip_address(self.ip))
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def encode_xor_address(address: TransportAddress, transaction_id: bytes) -> bytes:
    """Return the value of XOR-MAPPED-, XOR-PEER- or XOR-RELAYED-ADDRESS.

    Layout: ``zero:8 family:8 port:16 address:32 or 128``, port and address XORed with the magic
    cookie and the transaction id (RFC 8489 section 14.2).
    """
    port = (address.port ^ (MAGIC_COOKIE >> 16)).to_bytes(2)
    family = _FAMILY_OF_LENGTH[len(address.ip)]
    return bytes((0, family)) + port + _xor_ip(address.ip, transaction_id)


def decode_xor_address(value: bytes, transaction_id: bytes) -> TransportAddress:
    """Read a XOR address.

    Raises:
        STUNError: unknown family or wrong length.
    """
    if len(value) < 4 or _LENGTH_OF_FAMILY.get(value[1]) != len(value) - 4:
        raise STUNError("not an address")
    port = int.from_bytes(value[2:4]) ^ (MAGIC_COOKIE >> 16)
    return TransportAddress(_xor_ip(value[4:], transaction_id), port)


def encode_error_code(code: ErrorCode, reason: str) -> bytes:
    """Return an ERROR-CODE value: ``zero:21 class:3 number:8 reason``."""
    return bytes((0, 0, code // 100, code % 100)) + reason.encode()


def encode_address_error_code(family: int, code: ErrorCode) -> bytes:
    """Return an ADDRESS-ERROR-CODE value: ``family:8 zero:13 class:3 number:8 reason``."""
    return bytes((family, 0, code // 100, code % 100)) + code.reason.encode()


def encode_unknown_attributes(kinds: tuple[int, ...]) -> bytes:
    """Return an UNKNOWN-ATTRIBUTES value, a list of 16-bit types."""
    return b"".join(kind.to_bytes(2) for kind in kinds)


def encode_lifetime(seconds: int) -> bytes:
    """Return a LIFETIME value."""
    return seconds.to_bytes(4)


def decode_lifetime(value: bytes) -> int:
    """Read LIFETIME, in seconds.

    Raises:
        STUNError: wrong length.
    """
    return int.from_bytes(_exactly(value, 4))


def decode_channel_number(value: bytes) -> int:
    """Read CHANNEL-NUMBER; the two reserved bytes are ignored.

    Raises:
        STUNError: wrong length.
    """
    return int.from_bytes(_exactly(value, 4)[:2])


def decode_first_byte(value: bytes, length: int) -> int:
    """Read REQUESTED-TRANSPORT, an address family (both of length 4) or EVEN-PORT (length 1).

    Raises:
        STUNError: wrong length.
    """
    return _exactly(value, length)[0]


def encode_password_algorithm(algorithm: PasswordAlgorithm) -> bytes:
    """Return a PASSWORD-ALGORITHM value, or an entry of PASSWORD-ALGORITHMS.

    Layout: ``algorithm:16 parameters_length:16 parameters``; neither algorithm has parameters.
    """
    return algorithm.to_bytes(2) + bytes(2)


def decode_password_algorithm(value: bytes) -> PasswordAlgorithm:
    """Read PASSWORD-ALGORITHM.

    Raises:
        STUNError: an unknown algorithm, or one with parameters.
    """
    for algorithm in PasswordAlgorithm:
        if value == encode_password_algorithm(algorithm):
            return algorithm
    raise STUNError("not a password algorithm of this server")


def unknown_attributes(message: STUNMessage) -> tuple[int, ...]:
    """Return the comprehension-required types that this server does not know, each once."""
    kinds = (kind for kind, _ in message.attributes if kind < _COMPREHENSION_OPTIONAL)
    return tuple(dict.fromkeys(kind for kind in kinds if kind not in _KNOWN))


def _xor_ip(ip: bytes, transaction_id: bytes) -> bytes:
    mask = (MAGIC_COOKIE.to_bytes(4) + transaction_id)[: len(ip)]
    return (int.from_bytes(ip) ^ int.from_bytes(mask)).to_bytes(len(ip))


def _exactly(value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise STUNError("an attribute has the wrong length")
    return value
