"""What an attacker of bytes begins with: each prefix of a message, and each single flipped bit."""

import random
from collections.abc import Callable, Iterator

import pytest

from e2ecall.errors import E2ECallError


def flipped(data: bytes, bit: int) -> bytes:
    """Return ``data`` with one bit turned over."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flips(data: bytes, *, sample: int | None = None, seed: int = 1) -> Iterator[bytes]:
    """Give every single-bit flip, or a seeded sample of them."""
    bits = range(8 * len(data))
    for bit in bits if sample is None else random.Random(seed).sample(bits, sample):
        yield flipped(data, bit)


def prefixes(data: bytes) -> Iterator[bytes]:
    """Give every prefix but the whole, and what is one byte too long."""
    for end in range(len(data)):
        yield data[:end]
    yield data + b"\0"


def refused(read: Callable[[bytes], object], data: bytes, *errors: type[E2ECallError]) -> None:
    """Expect a refusal by one of exactly these errors."""
    with pytest.raises(E2ECallError) as caught:
        read(data)
    assert type(caught.value) in errors


def check_encoding(
    data: bytes,
    read: Callable[[bytes], object],
    write: Callable[[object], bytes],
    *errors: type[E2ECallError],
    sample: int | None = None,
) -> None:
    """Expect of an encoding that nobody signed: a refusal, or another value in its one spelling."""
    original = read(data)
    assert write(original) == data
    for prefix in prefixes(data):
        refused(read, prefix, *errors)
    for changed in flips(data, sample=sample):
        try:
            value = read(changed)
        except errors:
            continue
        assert write(value) == changed
        assert value != original
