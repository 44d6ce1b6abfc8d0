"""What a peer may describe (spec/call.md, "Media descriptions and candidates")."""

from ipaddress import IPv4Network

import pytest
from msgspec.structs import replace

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.description import (
    check_candidates,
    check_directions,
    check_media_description,
)
from e2ecall.protocol.messages import (
    Candidate,
    CandidateType,
    Codec,
    MediaDescription,
    Stream,
    StreamDescription,
)

SOUND = StreamDescription(Stream.MICROPHONE, Codec.OPUS, 111, 1, None, None)
CAMERA = StreamDescription(Stream.CAMERA, Codec.VP8, 96, 2, 97, 3)
SCREEN = StreamDescription(Stream.SCREEN, Codec.VP8, 96, 4, 97, 5)
RELAYED = Candidate(CandidateType.RELAY, "198.18.0.1", 1024)


def media(*streams):
    return MediaDescription(b"f" * 32, "ufrag", "p" * 22, streams)


@pytest.mark.parametrize(
    "streams", [(SOUND,), (SOUND, CAMERA), (SOUND, CAMERA, SCREEN), (CAMERA,), (SOUND, SCREEN)]
)
def test_consistent_descriptions(streams):
    """CALL-10: each stream once, in order, with its codec."""
    check_media_description(media(*streams))


@pytest.mark.parametrize(
    "streams",
    [
        (CAMERA, SOUND),
        (SOUND, SOUND),
        (replace(SOUND, codec=Codec.VP8),),
        (replace(CAMERA, codec=Codec.OPUS),),
        (SOUND, replace(CAMERA, ssrc=1)),
        (SOUND, replace(CAMERA, rtx_ssrc=2)),
        (replace(CAMERA, rtx_ssrc=None),),
        (replace(CAMERA, rtx_payload_type=None),),
        (replace(CAMERA, rtx_payload_type=96),),
        (SOUND, replace(CAMERA, payload_type=111)),
        (CAMERA, replace(SCREEN, payload_type=97)),
        (replace(SOUND, rtx_payload_type=112, rtx_ssrc=9),),
    ],
)
def test_contradictions_are_refused(streams):
    """CALL-10: one failure each."""
    with pytest.raises(RemoteProtocolError) as refused:
        check_media_description(media(*streams))
    assert refused.value.reason is Reason.BAD_MEDIA_DESCRIPTION


@pytest.mark.parametrize(("audio", "video"), [(True, True), (False, True)])
def test_directions_need_streams(audio, video):
    """Only what is described can be sent."""
    check_directions(media(SOUND, CAMERA), audio=audio, video=video)
    with pytest.raises(RemoteProtocolError):
        check_directions(media(SOUND), audio=audio, video=video)


def test_relayed_candidates_pass():
    """CALL-11: both ends of the relay's network are inside."""
    check_candidates([RELAYED, replace(RELAYED, address="198.19.255.255"), RELAYED])
    other = replace(RELAYED, address="203.0.113.7")
    check_candidates([other], allowed_networks=[IPv4Network("203.0.113.0/24")])


@pytest.mark.parametrize(
    "change",
    [
        {"type": CandidateType.HOST},
        {"type": CandidateType.SRFLX},
        {"type": CandidateType.PRFLX},
        {"address": "198.17.255.255"},
        {"address": "198.20.0.0"},
        {"address": "127.0.0.1"},
        {"address": "0.0.0.0"},
        {"address": "192.168.1.2"},
        {"address": "::ffff:198.18.0.1"},
        {"address": "2001:db8::1"},
        {"address": "198.018.0.1"},
        {"address": "198.18.0.1 "},
        {"address": "relay.example"},
        {"address": "198.18.1"},
        {"address": "\u0661\u0669\u0668.18.0.1"},
    ],
)
def test_other_candidates_are_refused(change):
    """CALL-11: no other type, network, family, spelling or name."""
    with pytest.raises(RemoteProtocolError) as refused:
        check_candidates([RELAYED, replace(RELAYED, **change)])
    assert refused.value.reason is Reason.BAD_CANDIDATE
