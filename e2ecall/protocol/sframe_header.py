"""The SFrame header (RFC 9605 section 4.3; spec/sframe.md, "Header") and the key id's layout.

Bytes and integers only: which key ids are accepted and what is done with a counter is
`e2ecall.protocol.sframe`.
"""

from typing import Final

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.messages import Stream

MAX_HEADER: Final = 17
"""Config byte, eight bytes of key id, eight of counter."""

MAX_EPOCH: Final = 0xFFFF_FFFF
MAX_SENDER: Final = 0xFF
_SHORT: Final = 8
"""Values below this stand in the config byte itself."""
_EXTENDED: Final = 8
"""The bit of a config nibble that says: the three others are a length minus one."""


def key_id(epoch: int, stream: Stream, sender: int) -> int:
    """Return ``epoch << 12 | sender << 4 | stream``; sender 0 is the caller, 1 the callee.

    Raises:
        LocalProtocolError: epoch or sender out of range.
    """
    if not (0 <= epoch <= MAX_EPOCH and 0 <= sender <= MAX_SENDER):
        raise LocalProtocolError("epoch or sender is out of range")
    return epoch << 12 | sender << 4 | stream


def epoch_of(kid: int) -> int:
    """Return the epoch that a key id names."""
    return kid >> 12


def encode_header(kid: int, ctr: int) -> bytes:
    """Return the minimal encoding: config byte, then key id and counter where they need bytes.

    The config byte is ``X KKK Y CCC``. With X = 0, KKK is the key id; with X = 1 it is the
    length of the key id minus one. Y and CCC say the same of the counter.
    """
    k, kid_bytes = _encode_value(kid)
    c, ctr_bytes = _encode_value(ctr)
    return bytes((k << 4 | c,)) + kid_bytes + ctr_bytes


def parse_header(data: bytes, start: int) -> tuple[int, int, int]:
    """Return key id, counter and the offset of the first byte after the header.

    Raises:
        RemoteProtocolError: BAD_FRAME_HEADER, where it is cut off or not minimal (SFRAME-03).
    """
    if start >= len(data):
        raise RemoteProtocolError(Reason.BAD_FRAME_HEADER)
    config = data[start]
    kid, start = _parse_value(data, start + 1, config >> 4)
    ctr, start = _parse_value(data, start, config & 0x0F)
    return kid, ctr, start


def header_heads(kid: int, counter_bytes: int) -> list[int]:
    """Return every head that headers of this key id can have, as integers.

    The head is the header without the counter bytes at its end; it depends on the key id and on
    how the counter is written, so a receiver finds a key by it in one look-up. Heads are those
    of minimal headers with counters of at most ``counter_bytes`` bytes.
    """
    inline = [encode_header(kid, ctr) for ctr in range(_SHORT)]
    extended = [encode_header(kid, 256**n - 1)[:-n] for n in range(1, counter_bytes + 1)]
    return [int.from_bytes(head) for head in inline + extended]


def _encode_value(value: int) -> tuple[int, bytes]:
    if value < _SHORT:
        return value, b""
    size = (value.bit_length() + 7) >> 3
    return _EXTENDED | size - 1, value.to_bytes(size)


def _parse_value(data: bytes, start: int, nibble: int) -> tuple[int, int]:
    if nibble < _EXTENDED:
        return nibble, start
    end = start + nibble - _EXTENDED + 1
    if end > len(data):
        raise RemoteProtocolError(Reason.BAD_FRAME_HEADER)
    value = int.from_bytes(data[start:end])
    if value < _SHORT or not data[start]:
        raise RemoteProtocolError(Reason.BAD_FRAME_HEADER)
    return value, end


def _layout(config: int) -> tuple[int, int, int, int, int]:
    kid_size = max(0, (config >> 4) - _EXTENDED + 1)
    ctr_nibble = config & 0x0F
    if ctr_nibble < _SHORT:
        return 1 + kid_size, 0, 0, 0, ctr_nibble
    ctr_size = ctr_nibble - _EXTENDED + 1
    bits = 8 * ctr_size
    return 1 + kid_size + ctr_size, bits, (1 << bits) - 1, max(_SHORT, 1 << bits - 8), 0


HEADER_LAYOUTS: Final = tuple(_layout(config) for config in range(256))
"""What a config byte says of its header: size, counter bits, mask, smallest, inline.

Bytes of the header; bits of the counter behind the head; the mask of those bits; the smallest
counter that may be written so; the counter itself, where the config byte holds it. Plain tuples,
as one is unpacked per frame. `parse_header` says the same more slowly, and why it refuses.
"""
