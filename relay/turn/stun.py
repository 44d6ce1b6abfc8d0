"""STUN messages as bytes and as values (RFC 8489 sections 5 and 14.5 to 14.7; spec/turn.md).

It knows header, attribute framing, both integrity attributes and FINGERPRINT, not what the other
attributes mean (`relay.turn.attributes`) nor who may send what.

Layout, big-endian: ``type:16 length:16 cookie:32 transaction_id:96`` and then attributes of
``type:16 length:16 value padding``, each padded to four bytes.
"""

import binascii
import hmac
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

from relay.turn.errors import STUNError

MAGIC_COOKIE: Final = 0x2112A442
HEADER_LENGTH: Final = 20
TRANSACTION_ID_LENGTH: Final = 12

MESSAGE_INTEGRITY: Final = 0x0008
MESSAGE_INTEGRITY_SHA256: Final = 0x001C
FINGERPRINT: Final = 0x8028

MAX_ATTRIBUTES: Final = 32
"""Limit of this implementation: a TURN request has at most a dozen; more is an attribute bomb."""

_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")
_MAC_LENGTH: Final = 20
_MAC_SHA256_LENGTHS: Final = range(16, 33, 4)
_CRC_LENGTH: Final = 4
_FINGERPRINT_XOR: Final = 0x5354554E
_CLASS_MASK: Final = 0x0110
_METHOD_MASK: Final = 0x3EEF
_SIGNATURES: Final = {
    False: (MESSAGE_INTEGRITY, "sha1", _MAC_LENGTH),
    True: (MESSAGE_INTEGRITY_SHA256, "sha256", max(_MAC_SHA256_LENGTHS)),
}
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


@unique
class Method(IntEnum):
    """The methods of STUN and TURN, as they stand in the message type."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


@unique
class MessageClass(IntEnum):
    """The class bits, as they stand in the message type."""

    REQUEST = 0x000
    INDICATION = 0x010
    SUCCESS = 0x100
    ERROR = 0x110


Attribute = tuple[int, bytes]

Integrity = tuple[bytes, bytes]
"""The bytes that an integrity attribute covers, and its value."""


@dataclass(frozen=True, slots=True)
class STUNMessage:
    """A parsed message. ``attributes`` ends before the first integrity attribute.

    ``integrity`` and ``integrity_sha256`` are of MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256,
    or None without one.
    """

    method: int
    message_class: MessageClass
    transaction_id: bytes
    attributes: tuple[Attribute, ...]
    integrity: Integrity | None
    integrity_sha256: Integrity | None
    has_fingerprint: bool

    @property
    def is_signed(self) -> bool:
        """Whether the message has an integrity attribute, verified or not."""
        return self.integrity is not None or self.integrity_sha256 is not None

    def first(self, kind: int) -> bytes | None:
        """Return the value of the first attribute of this type; later ones do not count."""
        for found, value in self.attributes:
            if found == kind:
                return value
        return None

    def every(self, kind: int) -> list[bytes]:
        """Return the values of all attributes of this type, in order."""
        return [value for found, value in self.attributes if found == kind]

    def verify_integrity(self, key: bytes) -> None:
        """Check MESSAGE-INTEGRITY-SHA256 under ``key`` or, without one, MESSAGE-INTEGRITY.

        Raises:
            STUNError: there is neither, or it is another key's.
        """
        integrity, digest = self.integrity_sha256, "sha256"
        if integrity is None:
            integrity, digest = self.integrity, "sha1"
        if integrity is None:
            raise STUNError("the message carries no MESSAGE-INTEGRITY")
        covered, mac = integrity
        # RFC 8489 section 14.6: the value MUST be the full 32 bytes unless the usage allows
        # truncation. TURN does not, so a truncated one never matches.
        if not hmac.compare_digest(hmac.digest(key, covered, digest), mac):
            raise STUNError("the message integrity does not match")


def parse_message(data: bytes) -> STUNMessage:
    """Read one datagram as one STUN message.

    Raises:
        STUNError: it is none, or its FINGERPRINT does not match.
    """
    if len(data) < HEADER_LENGTH:
        raise STUNError("shorter than a STUN header")
    message_type, length, cookie, transaction_id = _HEADER.unpack_from(data)
    # RFC 8489 section 6.3: two zero bits, the magic cookie and a sensible length, or it is dropped.
    if message_type > 0x3FFF or cookie != MAGIC_COOKIE:
        raise STUNError("not a STUN header")
    if length % 4 or length != len(data) - HEADER_LENGTH:
        raise STUNError("the length does not match the datagram")
    attributes, integrity, integrity_sha256, has_fingerprint = _parse_attributes(data)
    return STUNMessage(
        method=message_type & _METHOD_MASK,
        message_class=MessageClass(message_type & _CLASS_MASK),
        transaction_id=transaction_id,
        attributes=attributes,
        integrity=integrity,
        integrity_sha256=integrity_sha256,
        has_fingerprint=has_fingerprint,
    )


def encode_message(
    method: int,
    message_class: MessageClass,
    transaction_id: bytes,
    attributes: Iterable[Attribute],
    *,
    key: bytes | None = None,
    sha256: bool = False,
    fingerprint: bool = False,
) -> bytes:
    """Return the bytes of a message, signed under ``key``, with FINGERPRINT if asked for.

    The signature is MESSAGE-INTEGRITY-SHA256 with ``sha256``, else MESSAGE-INTEGRITY.
    """
    body = b"".join(_encode_attribute(kind, value) for kind, value in attributes)
    data = _HEADER.pack(method | message_class, len(body), MAGIC_COOKIE, transaction_id) + body
    if key is not None:
        kind, digest, length = _SIGNATURES[sha256]
        covered = _with_length(data, extra=_ATTRIBUTE.size + length)
        data = covered + _encode_attribute(kind, hmac.digest(key, covered, digest))
    if fingerprint:
        covered = _with_length(data, extra=_ATTRIBUTE.size + _CRC_LENGTH)
        data = covered + _encode_attribute(FINGERPRINT, _fingerprint(covered))
    return data


def _parse_attributes(
    data: bytes,
) -> tuple[tuple[Attribute, ...], Integrity | None, Integrity | None, bool]:
    attributes: list[Attribute] = []
    integrity: Integrity | None = None
    integrity_sha256: Integrity | None = None
    position, count = HEADER_LENGTH, 0
    while position < len(data):
        kind, value, following = _attribute_at(data, position)
        count += 1
        if count > MAX_ATTRIBUTES:
            raise STUNError("too many attributes")
        if kind == FINGERPRINT:
            _check_fingerprint(data, position, value)
            return tuple(attributes), integrity, integrity_sha256, True
        # RFC 8489 sections 14.5 and 14.6: attributes after MESSAGE-INTEGRITY, except
        # MESSAGE-INTEGRITY-SHA256 and FINGERPRINT, and all after MESSAGE-INTEGRITY-SHA256 except
        # FINGERPRINT, MUST be ignored.
        if integrity_sha256 is None:
            if kind == MESSAGE_INTEGRITY_SHA256:
                integrity_sha256 = _covered(data, position, value, _MAC_SHA256_LENGTHS)
            elif integrity is None and kind == MESSAGE_INTEGRITY:
                integrity = _covered(data, position, value, (_MAC_LENGTH,))
            elif integrity is None:
                attributes.append((kind, value))
        position = following
    return tuple(attributes), integrity, integrity_sha256, False


def _attribute_at(data: bytes, position: int) -> tuple[int, bytes, int]:
    # The message length is a multiple of four, so a header is always whole here.
    kind, length = _ATTRIBUTE.unpack_from(data, position)
    start = position + _ATTRIBUTE.size
    following = start + length + len(_PADDING[length % 4])
    if following > len(data):
        raise STUNError("an attribute is longer than the message")
    return kind, data[start : start + length], following


def _encode_attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + _PADDING[len(value) % 4]


def _covered(data: bytes, position: int, mac: bytes, lengths: Collection[int]) -> Integrity:
    if len(mac) not in lengths:
        raise STUNError("an integrity attribute has the wrong length")
    # RFC 8489 section 14.5: the length that is authenticated ends after the integrity attribute.
    return _with_length(data[:position], extra=_ATTRIBUTE.size + len(mac)), mac


def _with_length(data: bytes, *, extra: int) -> bytes:
    return data[:2] + (len(data) - HEADER_LENGTH + extra).to_bytes(2) + data[4:]


def _check_fingerprint(data: bytes, position: int, value: bytes) -> None:
    if position + _ATTRIBUTE.size + _CRC_LENGTH != len(data):
        raise STUNError("FINGERPRINT is not the last attribute")
    if _fingerprint(data[:position]) != _exactly(value, _CRC_LENGTH):
        raise STUNError("FINGERPRINT does not match")


def _fingerprint(covered: bytes) -> bytes:
    return (binascii.crc32(covered) ^ _FINGERPRINT_XOR).to_bytes(4)


def _exactly(value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise STUNError("an attribute has the wrong length")
    return value
