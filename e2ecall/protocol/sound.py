"""Sound that brings along what was before it (spec/media.md, MEDIA-32). Sans-I/O.

The layout is that of RFC 2198, inside of SFrame: who does not have the key sees a size and nothing
else. How much is brought along is `e2ecall.media.voice_rate`; it decodes nothing.

    block header   1 | payload type (7 bits) | ticks back (14) | length (10)    for each copy
                   0 | payload type (7 bits)                                    for the last
    blocks         oldest first, the frame's own last
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from e2ecall.errors import Reason, RemoteProtocolError

MAX_COPIES: Final = 2
"""Packets before its own that a frame may bring along."""

TICKS: Final = 960
"""Of the RTP clock of sound in the 20 ms of a packet."""

_COPY_HEADER: Final = 4
_MAX_LENGTH: Final = (1 << 10) - 1
_FOLLOWED: Final = 0x80


class Sound(NamedTuple):
    """An Opus packet, and how many packets and ticks before the frame that brought it."""

    back: int
    ticks: int
    data: bytes


def pack(packet: bytes, before: Sequence[bytes], payload_type: int) -> bytes:
    """Return a frame with a packet and those before it, oldest first; each is 20 ms."""
    headers, count = bytearray(), len(before)
    for place, copy in enumerate(before):
        ticks = (count - place) * TICKS
        word = (_FOLLOWED | payload_type) << 24 | ticks << 10 | len(copy)
        headers += word.to_bytes(_COPY_HEADER)
    return b"".join((headers, bytes((payload_type,)), *before, packet))


def unpack(frame: bytes, payload_type: int) -> list[Sound]:
    """Return what a frame has in it, oldest first; the last is its own.

    Raises:
        RemoteProtocolError: MALFORMED: another layout, an empty packet, too many copies.
    """
    headers: list[tuple[int, int]] = []
    at = 0
    while frame[at : at + 1] and frame[at] & _FOLLOWED:
        word = int.from_bytes(frame[at : at + _COPY_HEADER])
        headers.append((word >> 10 & 0x3FFF, word & _MAX_LENGTH))
        if word >> 24 & ~_FOLLOWED != payload_type or len(headers) > MAX_COPIES:
            raise RemoteProtocolError(Reason.MALFORMED)
        at += _COPY_HEADER
    if frame[at : at + 1] != bytes((payload_type,)):
        raise RemoteProtocolError(Reason.MALFORMED)
    at += 1
    sounds = []
    for place, (ticks, length) in enumerate(headers):
        sounds.append(Sound(len(headers) - place, ticks, frame[at : at + length]))
        at += length
    sounds.append(Sound(0, 0, frame[at:]))
    if not all(sound.data for sound in sounds):
        raise RemoteProtocolError(Reason.MALFORMED)
    return sounds
