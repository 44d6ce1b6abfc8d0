"""Descriptions: what this end makes, what aiortc is told, and which datagrams are kept."""

import msgspec
import pytest

from e2ecall.media import description
from e2ecall.media.engine import MediaIdentity
from e2ecall.media.ice import RelayConnection, relay_gatherer
from e2ecall.protocol.description import check_media_description
from e2ecall.protocol.messages import Codec, MediaDescription, Stream
from relay.wire.codec import decode, encode

ALL = tuple(Stream)


def generated():
    return MediaIdentity.generate(ALL).description


def test_an_identity_is_fresh_and_says_what_it_is():
    """Each identity has its own certificate, credentials and SSRCs, and passes the wire."""
    one, two = MediaIdentity.generate(ALL), MediaIdentity.generate(ALL)
    assert one.description.fingerprint != two.description.fingerprint
    assert one.description.ice_pwd != two.description.ice_pwd
    assert len(description.payload_types(one.description)) == 6
    ssrcs = [description.payload_types(each.description).keys() for each in (one, two)]
    assert not ssrcs[0] & ssrcs[1]
    check_media_description(one.description)
    assert decode(encode(one.description), MediaDescription, limit=4096) == one.description
    assert "certificate" not in repr(one)


def test_the_fingerprint_is_that_of_the_certificate():
    """MEDIA-02: 32 bytes of SHA-256, which aiortc compares exactly."""
    identity = MediaIdentity.generate(ALL)
    (expected,) = [f for f in identity.certificate.getFingerprints() if f.algorithm == "sha-256"]
    (accepted,) = description.dtls_parameters(identity.description).fingerprints
    assert accepted == expected


def test_what_aiortc_is_told():
    """MEDIA-04: no header extension for sound, abs-send-time alone for pictures."""
    for described in generated().streams:
        send = description.send_parameters(described)
        receive = description.receive_parameters(described)
        sound = described.codec is Codec.OPUS
        for parameters in (send, receive):
            assert [ext.id for ext in parameters.headerExtensions] == ([] if sound else [3])
            assert parameters.muxId == ""
        assert [c.payloadType for c in send.codecs] == [
            t for t in description.PAYLOAD_TYPES[described.stream] if t is not None
        ]
        assert receive.encodings[0].ssrc == described.ssrc
        assert [e.ssrc for e in receive.encodings[1:]] == ([] if sound else [described.rtx_ssrc])
        assert (receive.encodings[0].rtx is None) is sound


def test_pictures_without_retransmission_are_received():
    """A peer may describe a picture without RTX; packets are then sent again as they were."""
    described = msgspec.structs.replace(
        generated().streams[1], rtx_payload_type=None, rtx_ssrc=None
    )
    assert [c.name for c in description.receive_parameters(described).codecs] == ["VP8"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_gatherer_has_one_turn_server_and_nothing_else():
    """MEDIA-01: the connection is relay-only and knows no STUN server."""
    gatherer, connection = relay_gatherer(
        ["turn:127.0.0.1:3478?transport=udp"], "u", "p", ice_ufrag="abcd", ice_pwd="x" * 22
    )
    assert gatherer._connection is connection
    assert isinstance(connection, RelayConnection)
    assert connection.turn_server == ("127.0.0.1", 3478)
    assert connection.stun_server is None
    assert connection._transport_policy.name == "RELAY"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_datagrams_of_strangers_are_not_kept():
    """MEDIA-09: short, unknown and foreign datagrams are ignored, a flood is bounded."""
    _, connection = relay_gatherer(
        ["turn:127.0.0.1:1"], "u", "p", ice_ufrag="abcd", ice_pwd="x" * 22
    )
    connection.expected = {0x01020304: {96}}
    rtp, rtcp = b"\x80\x60" + bytes(6), b"\x80\xc8" + bytes(2)
    for foreign in (b"", b"\x80", bytes(20), b"\xff" * 20, rtp + bytes(12), rtcp + bytes(20)):
        connection.data_received(foreign, 1)
    assert connection.datagrams_ignored == 6
    for known in (rtp + b"\1\2\3\4xx", rtcp + b"\1\2\3\4" + bytes(9), b"\x16" + bytes(20)):
        connection.data_received(known, 1)
    assert connection._queue.qsize() == 3
    for _ in range(5_000):
        connection.data_received(b"\x16" + bytes(20), 1)
    assert connection._queue.qsize() == 2_048
