"""Canonical MessagePack (spec/wire.md, "Encoding"): the values of the protocol, encoded only.

It reads nothing: what receivers must refuse is written byte by byte where it is needed.
"""

from collections.abc import Sequence

Value = None | bool | int | bytes | str | Sequence["Value"]


def enc(value: Value) -> bytes:
    """Return the one encoding of a value: each length and integer in its shortest form."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, bytes):
        return _sized(len(value), ((0xC4, 1), (0xC5, 2), (0xC6, 4))) + value
    if isinstance(value, str):
        data = value.encode()
        if len(data) < 32:
            return bytes([0xA0 | len(data)]) + data
        return _sized(len(data), ((0xD9, 1), (0xDA, 2), (0xDB, 4))) + data
    body = b"".join(enc(item) for item in value)
    if len(value) < 16:
        return bytes([0x90 | len(value)]) + body
    return _sized(len(value), ((0xDC, 2), (0xDD, 4))) + body


def _integer(value: int) -> bytes:
    if not 0 <= value < 1 << 64:
        raise ValueError("the protocol has no such integer")
    if value < 0x80:
        return bytes([value])
    return _sized(value, ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)))


def _sized(number: int, forms: Sequence[tuple[int, int]]) -> bytes:
    """Return the first form whose bytes hold the number."""
    for first, size in forms:
        if number < 1 << 8 * size:
            return bytes([first]) + number.to_bytes(size)
    raise ValueError("too long for MessagePack")
