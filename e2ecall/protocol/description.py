"""What a peer may say about its media (spec/call.md, "Media descriptions and candidates").

Checks of decoded values only. The types are `e2ecall.protocol.messages`, ICE itself is
`e2ecall.media`.
"""

from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from itertools import pairwise
from typing import Final

from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.messages import (
    Candidate,
    CandidateType,
    Codec,
    MediaDescription,
    Stream,
    StreamDescription,
)

RELAYED_NETWORKS: Final[tuple[IPv4Network, ...]] = (IPv4Network("198.18.0.0/15"),)
"""Where a closed-world relay's addresses lie: they name allocations and reach nothing else."""

CODEC_OF: Final = {
    Stream.MICROPHONE: Codec.OPUS,
    Stream.CAMERA: Codec.VP8,
    Stream.SCREEN: Codec.VP8,
    Stream.SCREEN_SOUND: Codec.OPUS,
}


def check_media_description(media: MediaDescription) -> None:
    """Accept a description of streams in ascending order, each with its codec (CALL-10).

    SSRCs must differ; a payload type must mean one thing; retransmission is described whole or
    not at all, and for video alone.

    Raises:
        RemoteProtocolError: BAD_MEDIA_DESCRIPTION.
    """
    numbers = [description.stream for description in media.streams]
    ssrcs = [ssrc for d in media.streams for ssrc in (d.ssrc, d.rtx_ssrc) if ssrc is not None]
    meanings = {meaning for d in media.streams for meaning in _payload_types(d)}
    ok = (
        all(first < second for first, second in pairwise(numbers))
        and all(_is_consistent(description) for description in media.streams)
        and len(set(ssrcs)) == len(ssrcs)
        and len({payload_type for payload_type, _, _ in meanings}) == len(meanings)
    )
    if not ok:
        raise RemoteProtocolError(Reason.BAD_MEDIA_DESCRIPTION)


def check_replacement(media: MediaDescription, former: MediaDescription) -> None:
    """Accept the description of a new path in place of ``former`` (CALL-42).

    It has the same streams, and another certificate, other ICE credentials and other SSRCs.

    Raises:
        RemoteProtocolError: BAD_MEDIA_DESCRIPTION.
    """
    check_media_description(media)
    ok = (
        [described.stream for described in media.streams]
        == [described.stream for described in former.streams]
        and media.fingerprint != former.fingerprint
        and media.ice_ufrag != former.ice_ufrag
        and media.ice_pwd != former.ice_pwd
        and not _ssrcs(media) & _ssrcs(former)
    )
    if not ok:
        raise RemoteProtocolError(Reason.BAD_MEDIA_DESCRIPTION)


def describes(media: MediaDescription, stream: Stream) -> bool:
    """Return whether the description has this stream."""
    return any(description.stream is stream for description in media.streams)


def check_directions(media: MediaDescription, *, audio: bool, video: bool) -> None:
    """Accept that microphone or camera are sent only where they are described.

    Raises:
        RemoteProtocolError: BAD_MEDIA_DESCRIPTION.
    """
    missing_audio = audio and not describes(media, Stream.MICROPHONE)
    missing_video = video and not describes(media, Stream.CAMERA)
    if missing_audio or missing_video:
        raise RemoteProtocolError(Reason.BAD_MEDIA_DESCRIPTION)


def check_candidates(
    candidates: Sequence[Candidate],
    *,
    allowed_networks: Sequence[IPv4Network] = RELAYED_NETWORKS,
) -> None:
    """Accept only relayed IPv4 addresses of the networks the relay hands out (CALL-11).

    Raises:
        RemoteProtocolError: BAD_CANDIDATE for another type, another network, or an address in
            any but its canonical spelling.
    """
    for candidate in candidates:
        if candidate.type is not CandidateType.RELAY:
            raise RemoteProtocolError(Reason.BAD_CANDIDATE)
        try:
            address = IPv4Address(candidate.address)
        except AddressValueError as error:
            raise RemoteProtocolError(Reason.BAD_CANDIDATE) from error
        canonical = str(address) == candidate.address
        if not (canonical and any(address in network for network in allowed_networks)):
            raise RemoteProtocolError(Reason.BAD_CANDIDATE)


def _ssrcs(media: MediaDescription) -> set[int | None]:
    return {ssrc for d in media.streams for ssrc in (d.ssrc, d.rtx_ssrc)} - {None}


def _is_consistent(description: StreamDescription) -> bool:
    has_rtx = description.rtx_payload_type is not None
    return (
        description.codec is CODEC_OF[description.stream]
        and has_rtx == (description.rtx_ssrc is not None)
        and not (has_rtx and description.codec is not Codec.VP8)
    )


def _payload_types(description: StreamDescription) -> list[tuple[int, Codec, bool]]:
    meanings = [(description.payload_type, description.codec, False)]
    if description.rtx_payload_type is not None:
        meanings.append((description.rtx_payload_type, description.codec, True))
    return meanings
