"""What one side's media transport is known by (spec/media.md, "Description").

It is made before the call's first message, because the Offer and the Ringing carry it and the
call key is bound to it. The private key of the certificate stays inside aiortc's object.
"""

import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self

from aiortc import RTCCertificate

from e2ecall.media.description import PAYLOAD_TYPES
from e2ecall.protocol.description import CODEC_OF
from e2ecall.protocol.messages import MediaDescription, Stream, StreamDescription

_ICE_CHARACTERS: Final = string.ascii_letters + string.digits + "+/"
_UFRAG_CHARACTERS: Final = 8
_PWD_CHARACTERS: Final = 24
"""144 bits; RFC 8445 section 5.3 asks for 128."""


@dataclass(frozen=True, slots=True)
class MediaIdentity:
    """A DTLS certificate, ICE credentials and SSRCs of one transport, used once."""

    certificate: RTCCertificate = field(repr=False)
    description: MediaDescription

    @classmethod
    def generate(cls, streams: Iterable[Stream]) -> Self:
        """Draw a fresh identity that can send ``streams``."""
        certificate = RTCCertificate.generateCertificate()
        wanted = sorted(set(streams))
        ssrcs = _distinct_ssrcs(2 * len(wanted))
        described = []
        for stream in wanted:
            payload_type, rtx_payload_type = PAYLOAD_TYPES[stream]
            ssrc, rtx_ssrc = ssrcs.pop(), ssrcs.pop()
            described.append(
                StreamDescription(
                    stream=stream,
                    codec=CODEC_OF[stream],
                    payload_type=payload_type,
                    ssrc=ssrc,
                    rtx_payload_type=rtx_payload_type,
                    rtx_ssrc=None if rtx_payload_type is None else rtx_ssrc,
                )
            )
        description = MediaDescription(
            fingerprint=_sha256_fingerprint(certificate),
            ice_ufrag=_ice_characters(_UFRAG_CHARACTERS),
            ice_pwd=_ice_characters(_PWD_CHARACTERS),
            streams=tuple(described),
        )
        return cls(certificate, description)


def _distinct_ssrcs(count: int) -> list[int]:
    drawn: set[int] = set()
    while len(drawn) < count:
        drawn.add(1 + secrets.randbelow(0xFFFF_FFFF))
    return list(drawn)


def _ice_characters(count: int) -> str:
    return "".join(secrets.choice(_ICE_CHARACTERS) for _ in range(count))


def _sha256_fingerprint(certificate: RTCCertificate) -> bytes:
    (text,) = (f.value for f in certificate.getFingerprints() if f.algorithm == "sha-256")
    return bytes.fromhex(text.replace(":", ""))
