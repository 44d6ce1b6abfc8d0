"""MessagePack that is built to hurt: refused by the decoder's own error, in little memory (M2)."""

import tracemalloc

import pytest

from e2ecall.errors import RemoteProtocolError
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.messages import decode_call_message, decode_payload
from e2ecall.protocol.sealing import InitialMessage
from relay.wire.codec import decode
from relay.wire.errors import WireError
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import ClientFrame, ServerFrame

READERS = {
    "client frame": lambda data: decode(data, ClientFrame, limit=MAX_FRAME),
    "server frame": lambda data: decode(data, ServerFrame, limit=MAX_FRAME),
    "initial message": lambda data: decode_remote(data, InitialMessage, limit=8_192),
    "payload": decode_payload,
    "call message": decode_call_message,
}

HOSTILE = {
    "empty": b"",
    "depth": b"\x91" * 4_000,
    "deep maps": b"\x81\xc0" * 2_000,
    "array of 2^32-1": b"\xdd\xff\xff\xff\xff",
    "arrays of 2^32-1": b"\xdd\xff\xff\xff\xff" * 800,
    "map of 2^32-1": b"\xdf\xff\xff\xff\xff",
    "bytes of 2^32-1": b"\xc6\xff\xff\xff\xff",
    "text of 2^32-1": b"\xdb\xff\xff\xff\xff",
    "extension of 2^32-1": b"\xc9\xff\xff\xff\xff\x01",
    "duplicate keys": b"\x82\xa1a\x01\xa1a\x02",
    "map": b"\x80",
    "timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "extension": b"\xd4\x05\x00",
    "float": b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
    "reserved": b"\xc1",
    "129 entries": b"\xdc\x00\x81" + b"\xc0" * 129,
    "bad UTF-8": b"\xa2\xc3\x28",
    "long spelling": b"\xce\x00\x00\x00\x01",
}

ROOM = 256 * 1024
"""Bytes: some times the data, and nothing like what the lengths in them ask for."""


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("field", range(4))
def test_refused_before_it_is_allocated(reader, name, field):
    """M2: depth, huge lengths, maps, extensions and other spellings are refused, in any field."""
    data = (
        HOSTILE[name]
        if field == 0
        else bytes([0x90 + field]) + b"\x01" * (field - 1) + HOSTILE[name]
    )
    read = READERS[reader]
    tracemalloc.start()
    try:
        with pytest.raises((WireError, RemoteProtocolError)):
            read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ROOM
