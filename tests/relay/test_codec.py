"""Canonical MessagePack (spec/wire.md, "Encoding"): what is encoded can be decoded."""

import pytest

from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.limits import MAX_BUNDLE_FIELDS, MAX_FRAME
from relay.wire.messages import ClientFrame, PutTokens


def frame(count):
    return ClientFrame(1, PutTokens(tuple(number.to_bytes(32) for number in range(count))))


def test_longest_array():
    """WIRE-04: an array of 128 entries passes; a longer one is refused before it is sent."""
    longest = frame(MAX_BUNDLE_FIELDS)
    assert decode(encode(longest), ClientFrame, limit=MAX_FRAME) == longest
    with pytest.raises(WireError, match="more than 128 entries"):
        encode(frame(MAX_BUNDLE_FIELDS + 1))


def test_longer_arrays_elsewhere():
    """What never travels may have longer arrays, where writer and reader say so."""
    record = encode([1] * 500, max_array=500)
    assert decode(record, list[int], limit=1_000, max_array=500) == [1] * 500
    with pytest.raises(WireError):
        decode(record, list[int], limit=1_000)
