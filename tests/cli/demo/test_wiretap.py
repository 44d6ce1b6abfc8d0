"""The wiretap opens everything that SRTP keys can open, against aiortc as the other opinion."""

import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.rtp import RtpPacket

from e2ecall.cli.demo.wiretap import carried, frames_of, open_media, parse_rtp
from e2ecall.protocol.messages import Codec


def test_every_frame_is_put_together_again(call):
    """Frames come out whole behind their clear prefix, in spite of RTX and number wrap-around."""
    capture = call.capture(call.clear)
    keys = [side.key for side in call.sides]
    opened = open_media(capture.datagrams, keys, [side.media for side in call.sides])
    expected = [frame for side in call.sides for frame in side.sound]
    for side in call.sides:
        expected.append(side.pictures[0][10:])
        expected += [picture[1:] for picture in side.pictures[1:]]
    assert sorted(opened.frames) == sorted(expected)
    assert opened.refused == 0


def test_packets_of_an_undescribed_stream_are_kept(call):
    """What belongs to no description is still there to be searched."""
    capture = call.capture(call.clear)
    keys = [side.key for side in call.sides]
    opened = open_media(capture.datagrams, keys, [call.caller.media])
    assert call.callee.sound[0] in opened.frames
    assert call.callee.pictures[5] in b"".join(opened.frames)


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\x40", b"\x40\x01\x00\x05abcd", b"\x00\x01\x00\x00" + bytes(16), b"\x00\x16" * 20],
    ids=["empty", "one byte", "cut off", "request", "no cookie"],
)
def test_datagrams_that_carry_nothing(datagram):
    """Cut-off ChannelData, STUN requests and garbage carry nothing and raise nothing."""
    assert carried(datagram) is None


def test_channel_data_may_be_padded():
    """Bytes behind the stated length do not belong to the packet."""
    assert carried(b"\x40\x01\x00\x03abc\x00") == b"abc"


def test_rtp_is_read_as_aiortc_reads_it():
    """CSRCs, a header extension and padding are taken off."""
    packet = RtpPacket(97, 1, 65_535, 0xFFFF_0000, 0x1234_5678, b"payload")
    packet.csrc = [1, 2, 3]
    packet.padding_size = 5
    packet.extensions.mid = "0"
    data = bytearray(packet.serialize())
    parsed = parse_rtp(bytes(data))
    other = RtpPacket.parse(bytes(data))
    assert parsed.payload == other.payload == b"payload"
    assert (parsed.sequence, parsed.timestamp, parsed.ssrc) == (65_535, 0xFFFF_0000, 0x1234_5678)


@pytest.mark.parametrize("picture_id", [None, 5, 300])
@pytest.mark.parametrize("tl0picidx", [None, 9])
@pytest.mark.parametrize("tid", [None, (1, 0)])
@pytest.mark.parametrize("keyidx", [None, 3])
def test_vp8_descriptors_of_every_shape_are_taken_off(picture_id, tl0picidx, tid, keyidx):
    """The frame is what stands behind the descriptor and the one clear byte."""
    descriptor = VpxPayloadDescriptor(1, 0, picture_id, tl0picidx, tid, keyidx)
    packet = RtpPacket(97, 1, 1, 2, 3, bytes(descriptor) + b"\x01delta frame")
    parsed = parse_rtp(packet.serialize())
    assert list(frames_of(Codec.VP8, [parsed])) == [b"delta frame"]
