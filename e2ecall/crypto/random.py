"""Randomness from the operating system: the one source of it in this package.

Protocol functions that are not called ``generate`` take their randomness as an argument.
"""

import os

from e2ecall.secret import Secret


def generate_bytes(length: int) -> bytes:
    """Return ``length`` public random bytes: nonces, ids."""
    return os.urandom(length)


def generate_secret(length: int) -> Secret:
    """Return ``length`` secret random bytes: seeds, tokens, keys."""
    return Secret(os.urandom(length))
