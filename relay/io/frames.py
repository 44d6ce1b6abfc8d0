"""The frames of a client, told apart before they are parsed (RFC 6455 section 5.2).

Nearly all are a whole binary message each, which is unmasked here. Whatever else comes, and
whatever is at fault, is the library's, at several times the cost. It does no I/O, and knows no
state of a connection but whether a message in fragments has begun.
"""

from typing import Final

from relay.wire.limits import MAX_FRAME

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - built without a compiler
    from websockets.utils import apply_mask

_FIN: Final = 0x80
_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2
_KNOWN: Final = frozenset({_CONTINUATION, _TEXT, _BINARY, 0x8, 0x9, 0xA})
_CONTROL: Final = 0x8
_MASKED: Final = 0x80
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_KEY: Final = 4


class FrameSplitter:
    """Takes messages out of what came. Feed it everything from the first frame on."""

    __slots__ = ("_begun", "_gave_up", "_is_fragmented")

    def __init__(self) -> None:
        self._begun = b""
        """The beginning of a frame: less than `MAX_FRAME` bytes and a head."""
        self._is_fragmented = False
        self._gave_up = False

    def next_frame(self, data: bytes, position: int) -> tuple[bytes, int, bool] | None:
        """Return what is at ``position``, where it ends, and whether it is a message.

        What is not a message has to be given to the library as it is. None: the rest of ``data``
        was kept, to be put before what comes next (`with_rest`).
        """
        rest = len(data) - position
        if not rest:
            return None
        if self._gave_up:
            return data[position:], len(data), False
        head = _head(data, position)
        if head is None:
            self._begun = data[position:]
            return None
        first, start, size = head
        if size < 0 or first & ~_FIN not in _KNOWN:
            # The library says what is wrong with it, or with what comes next, and ends it.
            self._gave_up = True
            return data[position:], len(data), False
        end = start + size
        if end > len(data):
            self._begun = data[position:]
            return None
        if first == _FIN | _BINARY and not self._is_fragmented:
            return apply_mask(data[start:end], data[start - _KEY : start]), end, True
        if first & ~_FIN < _CONTROL:
            self._is_fragmented = not first & _FIN
        return data[position:end], end, False

    def with_rest(self, data: bytes) -> bytes:
        """Return ``data`` behind what was kept."""
        if not self._begun:
            return data
        joined, self._begun = self._begun + data, b""
        return joined


def _head(data: bytes, position: int) -> tuple[int, int, int] | None:
    """Return first byte, begin and size of the payload; a negative size where it is at fault.

    None: it is not whole.
    """
    if len(data) < position + 2:
        return None
    first, second = data[position], data[position + 1]
    size, start = second & ~_MASKED, position + 2
    if size == _TWO_BYTES:
        start += 2
        size = int.from_bytes(data[position + 2 : start])
    elif size == _EIGHT_BYTES:
        start += 8
        size = int.from_bytes(data[position + 2 : start])
    start += _KEY
    if not second & _MASKED:
        return first, start, -1
    if start > len(data):
        return None
    return first, start, size if size <= MAX_FRAME else -1
