"""recvmmsg and sendmmsg over arrays that numpy reads and writes as a whole (Linux, 64 bits).

An array of ``struct mmsghdr`` is laid out once; a call then takes a slice of it.
"""

import ctypes
import errno
import os
import socket
from collections.abc import Callable

import numpy as np

MMSGHDR = np.dtype(
    [
        ("name", "u8"),
        ("name_length", "u8"),
        ("vector", "u8"),
        ("vector_length", "u8"),
        ("control", "u8"),
        ("control_length", "u8"),
        ("flags", "u8"),
        ("length", "u4"),
        ("padding", "u4"),
    ]
)
"""``struct mmsghdr``; the upper halves of ``name_length`` and ``flags`` are its padding."""

IOVEC = np.dtype([("base", "u8"), ("length", "u8")])
FLAGS = int(socket.MSG_DONTWAIT)
TRUNCATED = FLAGS | int(socket.MSG_TRUNC)
"""Take the beginning of each datagram, but tell its whole length."""

_libc = ctypes.CDLL(None, use_errno=True)
_RETRY = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ECONNREFUSED})


def addresses(array: np.ndarray) -> np.ndarray:
    """Return where each row of an array lies."""
    return array.ctypes.data + np.arange(len(array), dtype=np.uint64) * np.uint64(array.strides[0])


def receive(fd: int, headers: np.ndarray, flags: int = FLAGS) -> int:
    """Receive into the headers without waiting; return how many datagrams came."""
    return _call(_libc.recvmmsg, fd, headers, flags, None)


def send(fd: int, headers: np.ndarray) -> int:
    """Send what the headers describe; return how many messages were taken."""
    return _call(_libc.sendmmsg, fd, headers, FLAGS)


def _call(
    function: Callable[..., int], fd: int, headers: np.ndarray, flags: int, *rest: None
) -> int:
    pointer = ctypes.c_void_p(headers.ctypes.data)
    count = function(fd, pointer, len(headers), flags, *rest)
    if count >= 0:
        return count
    code = ctypes.get_errno()
    if code in _RETRY:
        return 0
    raise OSError(code, os.strerror(code))
