"""Decoding at the edges of the protocol: foreign bytes and our own stored records (spec/wire.md).

Both are canonical MessagePack structs; only the error differs. It knows no message types.
"""

from typing import TypeVar

from e2ecall.errors import Reason, RemoteProtocolError, StoreError
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.names import Address

T = TypeVar("T")

_STORED_LIMIT = 1 << 20
"""Bytes of one stored record; the largest, a peer with six full sessions, stays below."""

_STORED_ARRAY = 4_096
"""Entries of an array in a stored record; what is bounded on the wire may be longer here."""


def decode_remote(data: bytes, kind: type[T], *, limit: int) -> T:
    """Read bytes of a peer or relay.

    Raises:
        RemoteProtocolError: `Reason.MALFORMED`.
    """
    try:
        return decode(data, kind, limit=limit)
    except WireError as error:
        raise RemoteProtocolError(Reason.MALFORMED) from error


def parse_remote_address(text: str) -> Address:
    """Read an address that a peer or relay wrote.

    Raises:
        RemoteProtocolError: `Reason.MALFORMED`.
    """
    try:
        return Address.parse(text)
    except WireError as error:
        raise RemoteProtocolError(Reason.MALFORMED) from error


def encode_stored(record: object) -> bytes:
    """Return the bytes of a record for the store, which `decode_stored` can read.

    Raises:
        StoreError: it is longer than what could be read again.
    """
    try:
        data = encode(record, max_array=_STORED_ARRAY)
    except WireError as error:
        raise StoreError("a record is too long for the store") from error
    if len(data) > _STORED_LIMIT:
        raise StoreError("a record is too long for the store")
    return data


def decode_stored(data: bytes, kind: type[T]) -> T:
    """Read a record that this program wrote.

    Raises:
        StoreError: it was written in another format.
    """
    try:
        return decode(data, kind, limit=_STORED_LIMIT, max_array=_STORED_ARRAY)
    except WireError as error:
        raise _unreadable() from error


def parse_stored_address(text: str) -> Address:
    """Read an address of a record that this program wrote.

    Raises:
        StoreError: it is none.
    """
    try:
        return Address.parse(text)
    except WireError as error:
        raise _unreadable() from error


def _unreadable() -> StoreError:
    return StoreError(
        "a stored record cannot be read",
        hint="was the store written by another version of e2ecall?",
    )
