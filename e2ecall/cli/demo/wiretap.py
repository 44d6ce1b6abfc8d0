"""Opens captured media as far as SRTP keys reach: TURN, then SRTP, then whole encoded frames.

Written from the RFCs (8656, 3711 through libsrtp, 3550, 7741) and not from the product's own
parsers, which it is meant to check. What it yields is what a relay would see if it had broken
DTLS: frames that SFrame alone still protects. It searches nothing: that is `blindness`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pylibsrtp import Error as SRTPError
from pylibsrtp import Policy, Session

from e2ecall.cli.demo.evidence import SRTPKey
from e2ecall.protocol.messages import Codec, MediaDescription

_COOKIE: Final = bytes.fromhex("2112a442")
_SEND_INDICATION: Final = 0x0016
_DATA: Final = 0x0013
_RTP: Final = range(128, 192)
_RTCP: Final = range(192, 224)
_MIN_RTP: Final = 12
_STUN_HEADER: Final = 20
_CLEAR_KEY_FRAME: Final = 10
_CLEAR_DELTA_FRAME: Final = 1


@dataclass(slots=True)
class OpenedMedia:
    """Everything behind SRTP: frames without their clear prefix, and RTCP packets."""

    frames: list[bytes] = field(default_factory=list)
    reports: list[bytes] = field(default_factory=list)
    packets: int = 0
    refused: int = 0
    """SRTP packets that none of the keys opened."""


@dataclass(frozen=True, slots=True)
class _RTPPacket:
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def carried(datagram: bytes) -> bytes | None:
    """Return what a TURN client's datagram carries to its peer, or None if it carries nothing.

    ChannelData (RFC 8656 section 12.4) and Send indications (section 11.1) carry something.
    """
    if len(datagram) >= 4 and datagram[0] >> 6 == 1:
        length = int.from_bytes(datagram[2:4])
        return datagram[4 : 4 + length] if len(datagram) >= 4 + length else None
    if len(datagram) < _STUN_HEADER or datagram[4:8] != _COOKIE:
        return None
    if int.from_bytes(datagram[:2]) != _SEND_INDICATION:
        return None
    at = _STUN_HEADER
    while at + 4 <= len(datagram):
        kind, length = (
            int.from_bytes(datagram[at : at + 2]),
            int.from_bytes(datagram[at + 2 : at + 4]),
        )
        if kind == _DATA:
            return datagram[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return None


def open_media(
    datagrams: Iterable[bytes], keys: Iterable[SRTPKey], media: Iterable[MediaDescription]
) -> OpenedMedia:
    """Decrypt the SRTP in TURN datagrams and put the encoded frames together again.

    ``keys`` are those of both senders, ``media`` their descriptions: which payload type of which
    SSRC is what.
    """
    opened = OpenedMedia()
    sessions = [_session(key) for key in keys]
    packets: dict[int, list[_RTPPacket]] = defaultdict(list)
    for datagram in datagrams:
        packet = carried(datagram)
        if packet is None or len(packet) < _MIN_RTP or packet[0] not in _RTP:
            continue
        opened.packets += 1
        is_report = packet[1] in _RTCP
        plain = _unprotect(sessions, packet, is_report=is_report)
        if plain is None:
            opened.refused += 1
        elif is_report:
            opened.reports.append(plain)
        else:
            parsed = parse_rtp(plain)
            packets[parsed.ssrc].append(parsed)
    for description in media:
        for stream in description.streams:
            mine = packets.pop(stream.ssrc, [])
            if stream.rtx_ssrc is not None:
                mine += [_without_rtx(packet) for packet in packets.pop(stream.rtx_ssrc, [])]
            opened.frames.extend(frames_of(stream.codec, mine))
    for unknown in packets.values():  # nothing that was opened goes unsearched
        opened.frames.extend(packet.payload for packet in unknown)
    return opened


def parse_rtp(packet: bytes) -> _RTPPacket:
    """Read an RTP packet (RFC 3550 section 5.1): extension and padding are taken off."""
    at = _MIN_RTP + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        at += 4 + 4 * int.from_bytes(packet[at + 2 : at + 4])
    end = len(packet) - (packet[-1] if packet[0] & 0x20 else 0)
    return _RTPPacket(
        payload_type=packet[1] & 0x7F,
        sequence=int.from_bytes(packet[2:4]),
        timestamp=int.from_bytes(packet[4:8]),
        ssrc=int.from_bytes(packet[8:12]),
        payload=packet[at:end],
    )


def frames_of(codec: Codec, packets: Iterable[_RTPPacket]) -> Iterator[bytes]:
    """Yield each frame's bytes after its clear prefix; what is missing of a frame is left out."""
    frames: dict[int, dict[int, bytes]] = defaultdict(dict)
    for packet in packets:
        frames[packet.timestamp][packet.sequence] = packet.payload
    for pieces in frames.values():
        first = min(pieces)
        if max(pieces) - first > 0x8000:  # the sequence number wrapped around within the frame
            first = min(number for number in pieces if number > 0x8000)
        ordered = [pieces[key] for key in sorted(pieces, key=lambda n: (n - first) & 0xFFFF)]
        if codec is Codec.OPUS:
            yield from ordered
        else:
            yield _vp8_frame([piece for piece in ordered if piece])


def _vp8_frame(payloads: list[bytes]) -> bytes:
    if not payloads:
        return b""
    starts = bool(payloads[0][0] & 0x10)
    frame = b"".join(payload[_vp8_descriptor(payload) :] for payload in payloads)
    if not starts or not frame:
        return frame
    return frame[_CLEAR_DELTA_FRAME if frame[0] & 1 else _CLEAR_KEY_FRAME :]


def _vp8_descriptor(payload: bytes) -> int:
    """Return the length of the VP8 payload descriptor (RFC 7741 section 4.2)."""
    if not payload[0] & 0x80:
        return 1
    extensions, length = payload[1], 2
    if extensions & 0x80:
        length += 2 if payload[2] & 0x80 else 1
    if extensions & 0x40:
        length += 1
    return length + (1 if extensions & 0x30 else 0)


def _without_rtx(packet: _RTPPacket) -> _RTPPacket:
    """Undo RFC 4588 section 4: the original sequence number stands in front of the payload."""
    original = int.from_bytes(packet.payload[:2])
    return _RTPPacket(
        packet.payload_type, original, packet.timestamp, packet.ssrc, packet.payload[2:]
    )


def _session(key: SRTPKey) -> Session:
    policy = Policy(key=key.key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=key.profile)
    policy.window_size = 0x7FFF
    return Session(policy)


def _unprotect(sessions: list[Session], packet: bytes, *, is_report: bool) -> bytes | None:
    for session in sessions:
        try:
            return session.unprotect_rtcp(packet) if is_report else session.unprotect(packet)
        except (SRTPError, ValueError):
            continue
    return None
