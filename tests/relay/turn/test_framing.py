"""TURN's frames in a byte stream, cut anywhere (spec/turn.md TURN-71)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.turn.errors import STUNError
from relay.turn.framing import MAX_FRAME, FrameReader, encode_frame, is_media
from relay.turn.stun import MessageClass, Method, encode_message

TRANSACTION_ID = bytes(range(12))


def stun(*attributes):
    return encode_message(Method.BINDING, MessageClass.REQUEST, TRANSACTION_ID, attributes)


def channel_data(data):
    return b"\x40\x01" + len(data).to_bytes(2) + data


frames = st.one_of(
    st.binary(max_size=40).map(channel_data),
    st.binary(max_size=40).map(lambda value: stun((0x8022, value))),
)


@given(st.lists(frames, max_size=6), st.lists(st.integers(1, 30), min_size=1))
def test_any_cut(sent, sizes):
    """However a stream is cut, the same frames come out, ChannelData padded to 4 (TURN-71)."""
    stream = b"".join(map(encode_frame, sent))
    reader, received, at, cut = FrameReader(), [], 0, 0
    while at < len(stream):
        size = sizes[cut % len(sizes)]
        received += reader.receive(stream[at : at + size])
        at, cut = at + size, cut + 1
    assert received == [encode_frame(frame) for frame in sent]
    assert not reader.is_partial


@pytest.mark.parametrize("length", range(8))
def test_padding(length):
    """A frame for a stream is a multiple of four bytes, and its length field stays (TURN-71)."""
    frame = channel_data(bytes(length))
    padded = encode_frame(frame)
    assert len(padded) % 4 == 0
    assert len(padded) - len(frame) < 4
    assert padded.startswith(frame)
    assert encode_frame(stun()) == stun()


@pytest.mark.parametrize(
    "data",
    [
        b"\x50",
        b"\x80\0\0\0",
        b"GET / HTTP/1.1\r\n",
        b"\0\1\0\3",  # not a multiple of four
        b"\0\1\0\0\x21\x13",  # another cookie
        b"\x16\x03\x01\x02\0\1",  # TLS where none is spoken
        b"\x40\0" + (MAX_FRAME - 3).to_bytes(2),
        b"\0\1" + (MAX_FRAME - 16).to_bytes(2),
    ],
)
def test_no_frame(data):
    """What begins no frame, or one that is too long, is refused as soon as it shows (TURN-71)."""
    with pytest.raises(STUNError):
        list(FrameReader().receive(data))
    with pytest.raises(STUNError):
        list(FrameReader().receive(stun() + data))


@pytest.mark.parametrize(
    "head", [b"\x40\0" + (MAX_FRAME - 4).to_bytes(2), stun()[:2] + (MAX_FRAME - 20).to_bytes(2)]
)
def test_longest(head):
    """A frame of MAX_FRAME bytes is taken, and no more than it is ever held (TURN-71)."""
    reader = FrameReader()
    data = (head + stun()[4:20]).ljust(MAX_FRAME, b"\0")
    assert list(reader.receive(data[:-1])) == []
    assert reader.is_partial
    assert len(reader._buffer) == MAX_FRAME - 1
    assert list(reader.receive(data[-1:])) == [data]


@given(st.binary(max_size=200))
def test_any_bytes(data):
    """M4: any bytes give frames or our own error, and no other exception (TURN-71)."""
    reader = FrameReader()
    try:
        for frame in reader.receive(data):
            assert len(frame) % 4 == 0
    except STUNError:
        pass
    assert len(reader._buffer) <= len(data)


def test_what_may_be_dropped():
    """ChannelData and Data indications are media, responses are not (TURN-73)."""
    data = encode_message(Method.DATA, MessageClass.INDICATION, TRANSACTION_ID, [])
    response = encode_message(Method.ALLOCATE, MessageClass.SUCCESS, TRANSACTION_ID, [])
    assert is_media(channel_data(b"x"))
    assert is_media(data)
    assert not is_media(response)
    assert not is_media(encode_message(Method.BINDING, MessageClass.ERROR, TRANSACTION_ID, []))
