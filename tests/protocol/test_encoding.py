"""Decoding at the edges (spec/wire.md): foreign bytes and own records fail in different words."""

import pytest

from e2ecall.errors import Reason, RemoteProtocolError, StoreError
from e2ecall.protocol.encoding import (
    decode_remote,
    decode_stored,
    encode_stored,
    parse_remote_address,
    parse_stored_address,
)
from e2ecall.protocol.messages import Bytes16, Payload
from relay.wire.names import Address


def test_foreign_bytes():
    """M2: what is not exactly one value within the limit is malformed."""
    for data, limit in ((b"\xc4\x01x", 2), (b"\xc5\x00\x01x", 9), (b"\xc4\x01xx", 9), (b"x", 9)):
        with pytest.raises(RemoteProtocolError) as refused:
            decode_remote(data, bytes, limit=limit)
        assert refused.value.reason is Reason.MALFORMED
    assert decode_remote(b"\xc4\x01x", bytes, limit=3) == b"x"


def test_own_records():
    """S1: what this program did not write is a StoreError that says what may have happened."""
    with pytest.raises(StoreError) as refused:
        decode_stored(b"\xc4\x01x", Payload)
    assert "another version" in refused.value.hint
    assert decode_stored(encode_stored([b"x" * 16]), list[Bytes16]) == [b"x" * 16]


@pytest.mark.parametrize("record", [[b""] * 4_097, [b"x" * (1 << 20)]], ids=["entries", "bytes"])
def test_records_can_be_read_again(record):
    """STORE-05: what is too long to be read again is refused when it is written."""
    with pytest.raises(StoreError):
        encode_stored(record)


@pytest.mark.parametrize("text", ["", "bob", "Bob@relay.example", "bob@", "bob@relay.example@"])
def test_addresses(text):
    """M1: an address that is none is refused by whoever wrote it."""
    with pytest.raises(RemoteProtocolError) as refused:
        parse_remote_address(text)
    assert refused.value.reason is Reason.MALFORMED
    with pytest.raises(StoreError):
        parse_stored_address(text)
    known = "bob@relay.example"
    assert parse_remote_address(known) == parse_stored_address(known) == Address.parse(known)
