"""The forwarding loop's memory: datagrams, and what the kernel is told about them.

Everything is allocated once, and every address computed once. A slot holds one datagram::

    sender's socket address, ending at byte 32 | datagram, up to MAX_DATAGRAM + 1 bytes | unused

so that address and channel number, by which a route is found, stand next to each other, and an
address and its datagram go to the control process as they are. It calls nothing.
"""

import ctypes
import struct
from functools import partial
from typing import Final

from relay.io.media.libc import (
    CONTROL,
    CONTROL_LENGTH,
    IOVEC,
    MMSGHDR,
    SOL_UDP,
    UDP_SEGMENT,
    address_of,
)

BATCH: Final = 64
"""Datagrams of one system call: more saves nothing that can be measured, and adds latency."""

MAX_DATAGRAM: Final = 4096
"""Bytes; real-time media stays under the path's MTU."""

DATA: Final = 32
"""Where the datagram stands in its slot."""

SLOT: Final = 4160

_POINTERS = struct.Struct("=QQ")
_HEADER = struct.Struct("=QIIQQQQIIII")
_CONTROL = struct.Struct("=QIIHHI")
_SEGMENT = (CONTROL_LENGTH, SOL_UDP, UDP_SEGMENT, 0, 0, 0)


class Received:
    """Up to `BATCH` datagrams and the argument of recvmmsg."""

    def __init__(self, name_length: int) -> None:
        """Make room for senders whose socket addresses have ``name_length`` bytes."""
        self.buffer = bytearray(SLOT * BATCH)
        self.view = memoryview(self.buffer)
        self.words = self.view.cast("H")
        self.starts = [SLOT * slot + DATA for slot in range(BATCH)]
        """Where each datagram begins."""
        self.places = [start >> 1 for start in self.starts]
        """Where its channel number is in ``words``."""
        self.keys = [start - name_length for start in self.starts]
        """Where its sender's address, and so its key, begins."""
        self.address = address_of(self.buffer)
        self._iovecs = bytearray(IOVEC * BATCH)
        self._headers = bytearray(MMSGHDR * BATCH)
        iovecs = address_of(self._iovecs)
        for slot, (start, key) in enumerate(zip(self.starts, self.keys, strict=True)):
            _POINTERS.pack_into(self._iovecs, IOVEC * slot, self.address + start, MAX_DATAGRAM + 1)
            name, iovec = self.address + key, iovecs + IOVEC * slot
            header = (name, name_length, 0, iovec, 1, 0, 0, 0, 0, 0, 0)
            _HEADER.pack_into(self._headers, MMSGHDR * slot, *header)
        self._cut = bytearray(IOVEC * BATCH)
        for slot, start in enumerate(self.starts):
            _POINTERS.pack_into(self._cut, IOVEC * slot, self.address + start, 0)
        self.sizes = memoryview(self._cut).cast("Q")[1::2]
        """How much of each datagram is sent on."""
        cut = address_of(self._cut)
        self.iovecs = [cut + IOVEC * slot for slot in range(BATCH)]
        """Where what is sent on of each datagram is described."""
        self.argument = ctypes.c_void_p(address_of(self._headers))
        head, gap = f"{name_length + 2}sH", SLOT - name_length - 4
        self.heads = [
            struct.Struct(">" + f"{gap}x".join([head] * n)).unpack_from for n in range(BATCH + 1)
        ]
        """``heads[count](buffer, keys[0])``: in turns, sender and channel number of each of the
        first ``count`` datagrams, and the length field after them."""
        self.lengths = [
            partial(struct.Struct("=" + "56xI4x" * n).unpack_from, self._headers)
            for n in range(BATCH + 1)
        ]
        """``lengths[count]()`` is how long the first ``count`` datagrams are."""


class Outgoing:
    """Up to `BATCH` messages for one socket and the argument of sendmmsg.

    A message is a run of datagrams of a `Received`, which it sends without copying them.
    """

    def __init__(self, socket: int) -> None:
        self.socket = ctypes.c_int(socket)
        self.pending = 0
        """Messages that wait for the end of the batch."""
        self._headers = bytearray(MMSGHDR * BATCH)
        self._controls = bytearray(CONTROL * BATCH)
        controls = address_of(self._controls)
        for message in range(BATCH):
            control = controls + CONTROL * message
            header = (0, 0, 0, 0, 0, control, 0, 0, 0, 0, 0)
            _HEADER.pack_into(self._headers, MMSGHDR * message, *header)
            _CONTROL.pack_into(self._controls, CONTROL * message, *_SEGMENT)
        self.headers = memoryview(self._headers).cast("Q")
        """Eight words for each message, in the order of `MMSGHDR`."""
        self.segments = memoryview(self._controls).cast("H")[8 :: CONTROL // 2]
        """The size of each message's segments."""
        self.kept: list[object] = [None] * BATCH
        """What owns the memory of each message's destination, which only a pointer names: a route
        may be forgotten while its message waits."""
        headers = address_of(self._headers)
        self.arguments = [ctypes.c_void_p(headers + MMSGHDR * n) for n in range(BATCH)]
