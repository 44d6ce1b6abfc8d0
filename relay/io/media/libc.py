"""The few calls of the C library by which many datagrams cost one system call (Linux only).

Layouts are those of 64-bit little-endian Linux.
It decides nothing and handles no error.
"""

import ctypes
import sys
from typing import Final

IOVEC: Final = 16
"""Bytes: ``base:u64 length:u64``."""

MMSGHDR: Final = 64
"""Bytes: ``name:u64 name_length:u32 pad:u32 iovec:u64 iovecs:u64 control:u64 control_length:u64
flags:u32 pad:u32 received:u32 pad:u32``."""

CONTROL: Final = 24
"""Bytes of one control message that holds a u16: ``length:u64 level:u32 type:u32 value pad``."""
CONTROL_LENGTH: Final = 18
"""What its length field says."""

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
MAX_SEGMENTS: Final = 64
MAX_SEGMENTED: Final = 65_000
"""Bytes of all segments: they are one datagram until the kernel cuts it."""

MSG_DONTWAIT: Final = 0x40
MSG_WAITFORONE: Final = 0x10000

INTEGER = ctypes.c_int
"""Arguments are made once and passed as they are: converting them costs more than the call."""
POINTER = ctypes.c_void_p
UNSIGNED = ctypes.c_uint

IS_SUPPORTED: Final = (
    sys.platform == "linux" and sys.byteorder == "little" and ctypes.sizeof(ctypes.c_void_p) == 8
)


class CLibrary:
    """The functions, without declared argument types; failures set `errno` and return -1."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self.recvmmsg = library["recvmmsg"]
        self.sendmmsg = library["sendmmsg"]
        self.errno = ctypes.get_errno


def address_of(buffer: bytearray) -> int:
    """Return where a buffer is; it must be neither freed nor resized while that is in use."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
