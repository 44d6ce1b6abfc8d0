"""Domain separation (spec/wire.md): a label and length-prefixed parts as one unambiguous string.

Every signature, hash and KDF input of the protocol is built here. It computes no hash itself.
"""

from functools import lru_cache
from typing import Final

PREFIX: Final = "e2ecall/1 "


def labelled(purpose: str, *parts: bytes) -> bytes:
    """Return ``u16(len(label)) || label || u32(len(part)) || part ...``, big-endian.

    The label is ``e2ecall/1 <purpose>``. Two different sequences of parts never give the
    same bytes, whatever the parts contain.
    """
    pieces = [_head(purpose)]
    for part in parts:
        pieces += (len(part).to_bytes(4), part)
    return b"".join(pieces)


@lru_cache(maxsize=64)
def _head(purpose: str) -> bytes:
    """Return the label with its length; purposes are constants of the program."""
    label = (PREFIX + purpose).encode("ascii")
    return len(label).to_bytes(2) + label
