"""STUN and ChannelData in a byte stream (RFC 8489 section 6.2.2, RFC 8656 section 12.5).

It cuts a stream into frames and pads frames for one. What a frame means is not looked at, and time
limits on half a frame are the shell's.
"""

from collections.abc import Iterator
from typing import Final

from relay.turn.channel import CHANNEL_DATA_HEADER
from relay.turn.errors import STUNError
from relay.turn.stun import HEADER_LENGTH, MAGIC_COOKIE, MessageClass, Method

MAX_FRAME: Final = 4096
"""Bytes, as of a datagram: every frame can be passed on to a client on UDP."""

_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_COOKIE: Final = MAGIC_COOKIE.to_bytes(4)
_DATA_INDICATION: Final = (Method.DATA | MessageClass.INDICATION).to_bytes(2)


class FrameReader:
    """Gives the frames of one stream; holds less than one frame and what came last."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that ``data`` completes, ChannelData with its padding.

        Raises:
            STUNError: no frame begins here, or too long a one: nothing after it can be read.
        """
        self._buffer += data
        while (end := self._frame_end()) is not None and end <= len(self._buffer):
            frame = bytes(self._buffer[:end])
            del self._buffer[:end]
            yield frame

    def _frame_end(self) -> int | None:
        buffer = self._buffer
        # RFC 8656 section 12: 0x40-0x4F is ChannelData, less is STUN. What is neither is refused
        # with its first byte, and a STUN header with its first wrong one.
        if buffer and buffer[0] > 0x4F:
            raise STUNError("neither STUN nor ChannelData")
        if len(buffer) < CHANNEL_DATA_HEADER:
            return None
        length = int.from_bytes(buffer[2:4])
        if buffer[0] >= 0x40:
            # RFC 8656 section 12.5: over TCP and TLS, ChannelData MUST be padded to a multiple of
            # four bytes; the padding is not in the length field.
            end = CHANNEL_DATA_HEADER + length + len(_PADDING[length % 4])
        elif length % 4 or not _COOKIE.startswith(buffer[4:8]):
            raise STUNError("not a STUN header")
        else:
            end = HEADER_LENGTH + length
        if end > MAX_FRAME:
            raise STUNError("a frame is too long")
        return end


def encode_frame(data: bytes) -> bytes:
    """Return a STUN message or ChannelData as it goes over a stream."""
    return data + _PADDING[len(data) % 4]


def is_media(data: bytes) -> bool:
    """Say whether this is somebody's data, which may be dropped, and not a response."""
    return 0x40 <= data[0] <= 0x4F or data.startswith(_DATA_INDICATION)
