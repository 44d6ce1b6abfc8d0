"""Typed media descriptions in the terms of aiortc (spec/media.md, "Description").

Parameters of ICE, DTLS and RTP; no SDP text exists anywhere. What a peer may say is checked by
`e2ecall.protocol.description`.
"""

from collections.abc import Mapping
from typing import Final

from aiortc import RTCDtlsFingerprint, RTCDtlsParameters, RTCIceCandidate, RTCIceParameters
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpDecodingParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpReceiveParameters,
    RTCRtpRtxParameters,
    RTCRtpSendParameters,
)

from e2ecall.media.sources import SAMPLE_RATE, VIDEO_CLOCK
from e2ecall.protocol.description import CODEC_OF
from e2ecall.protocol.messages import (
    Candidate,
    Codec,
    MediaDescription,
    Stream,
    StreamDescription,
)

PAYLOAD_TYPES: Final[Mapping[Stream, tuple[int, int | None]]] = {
    Stream.MICROPHONE: (96, None),
    Stream.CAMERA: (97, 98),
    Stream.SCREEN: (99, 100),
    Stream.SCREEN_SOUND: (101, None),
}
"""RTP payload types of what this end sends: media and its retransmissions."""

_ABS_SEND_TIME: Final = RTCRtpHeaderExtensionParameters(
    id=3, uri="http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
)
"""What REMB estimates from. MEDIA-04: the audio level extension is never configured."""

_CNAME: Final = "0"
"""RFC 3550 wants a canonical name; within one call it has nothing to tell apart."""


def kind_of(stream: Stream) -> str:
    """Return aiortc's word for a stream: ``audio`` or ``video``."""
    return "audio" if CODEC_OF[stream] is Codec.OPUS else "video"


def payload_types(description: MediaDescription) -> dict[int, frozenset[int]]:
    """Return every SSRC that the description names, with what may come under it."""
    expected = {d.ssrc: frozenset({d.payload_type}) for d in description.streams}
    for described in description.streams:
        if described.rtx_ssrc is not None and described.rtx_payload_type is not None:
            expected[described.rtx_ssrc] = frozenset({described.rtx_payload_type})
    return expected


def ice_candidate(candidate: Candidate) -> RTCIceCandidate:
    """Return a candidate for aiortc's ICE transport."""
    return RTCIceCandidate(
        component=1,
        foundation="relay",
        ip=candidate.address,
        port=candidate.port,
        priority=1,  # one candidate a side: there is nothing to prefer
        protocol="udp",
        type="relay",
    )


def ice_parameters(description: MediaDescription) -> RTCIceParameters:
    """Return the peer's ICE credentials."""
    return RTCIceParameters(
        usernameFragment=description.ice_ufrag, password=description.ice_pwd, iceLite=False
    )


def dtls_parameters(description: MediaDescription) -> RTCDtlsParameters:
    """Return the one certificate that will be accepted (MEDIA-02)."""
    value = description.fingerprint.hex(":").upper()
    return RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint(algorithm="sha-256", value=value)])


def send_parameters(described: StreamDescription) -> RTCRtpSendParameters:
    """Return how aiortc sends a stream of this end."""
    parameters = RTCRtpSendParameters(
        codecs=codecs(described),
        headerExtensions=_header_extensions(described),
        muxId="",
        rtcp=RTCRtcpParameters(cname=_CNAME, mux=True, ssrc=described.ssrc),
    )
    parameters.encodings = []
    return parameters


def receive_parameters(described: StreamDescription) -> RTCRtpReceiveParameters:
    """Return how aiortc receives a stream of the peer."""
    encodings = [RTCRtpDecodingParameters(ssrc=described.ssrc, payloadType=described.payload_type)]
    if described.rtx_ssrc is not None and described.rtx_payload_type is not None:
        encodings[0].rtx = RTCRtpRtxParameters(ssrc=described.rtx_ssrc)
        # Registered as well, because two streams may share the payload types of one codec.
        encodings.append(
            RTCRtpDecodingParameters(
                ssrc=described.rtx_ssrc, payloadType=described.rtx_payload_type
            )
        )
    return RTCRtpReceiveParameters(
        codecs=codecs(described),
        headerExtensions=_header_extensions(described),
        muxId="",
        rtcp=RTCRtcpParameters(mux=True),
        encodings=encodings,
    )


def codecs(described: StreamDescription) -> list[RTCRtpCodecParameters]:
    """Return the codec of a stream, first, and that of its retransmissions."""
    if described.codec is Codec.OPUS:
        return [
            RTCRtpCodecParameters(
                mimeType="audio/opus",
                clockRate=SAMPLE_RATE,
                channels=2,  # RFC 7587 section 7: always 2, whatever is sent
                payloadType=described.payload_type,
            )
        ]
    feedback = [
        RTCRtcpFeedback(type="nack"),
        RTCRtcpFeedback(type="nack", parameter="pli"),
        RTCRtcpFeedback(type="goog-remb"),
    ]
    vp8 = RTCRtpCodecParameters(
        mimeType="video/VP8",
        clockRate=VIDEO_CLOCK,
        payloadType=described.payload_type,
        rtcpFeedback=feedback,
    )
    if described.rtx_payload_type is None:
        return [vp8]
    rtx = RTCRtpCodecParameters(
        mimeType="video/rtx",
        clockRate=VIDEO_CLOCK,
        payloadType=described.rtx_payload_type,
        parameters={"apt": described.payload_type},
    )
    return [vp8, rtx]


def _header_extensions(described: StreamDescription) -> list[RTCRtpHeaderExtensionParameters]:
    return [_ABS_SEND_TIME] if kind_of(described.stream) == "video" else []
