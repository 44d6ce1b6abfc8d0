"""Argon2id: the cost is bounded, and derivations do not get in each other's way."""

import threading

import pytest

from e2ecall.crypto.argon2 import RECOMMENDED, SALT_BYTES, Argon2Cost, argon2id
from e2ecall.errors import LocalProtocolError
from e2ecall.secret import Secret

SALT = bytes(SALT_BYTES)


def test_two_at_once():
    """Two stores can be opened at the same time in one process."""
    derived = []

    def derive():
        derived.append(argon2id(Secret(b"passphrase"), salt=SALT, cost=RECOMMENDED, length=32))

    threads = [threading.Thread(target=derive, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(derived) == 2
    assert derived[0] == derived[1]


def test_every_input_counts():
    """RFC 9106 without secret and associated data: deterministic, and every input counts."""
    cost = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
    key = argon2id(Secret(b"pass"), salt=SALT, cost=cost, length=32)
    assert len(key) == 32
    assert key == argon2id(Secret(b"pass"), salt=SALT, cost=cost, length=32)
    assert key != argon2id(Secret(b"Pass"), salt=SALT, cost=cost, length=32)
    assert key != argon2id(Secret(b"pass"), salt=b"\x01" * SALT_BYTES, cost=cost, length=32)
    with pytest.raises(LocalProtocolError):
        argon2id(Secret(b""), salt=b"short", cost=cost, length=32)


@pytest.mark.parametrize(
    "cost",
    [(7, 1, 1), (1 << 21, 1, 1), (65_536, 0, 1), (65_536, 17, 1), (65_536, 3, 0), (65_536, 3, 2)],
)
def test_unreasonable_cost(cost):
    """A cost that a forged file could name to exhaust or hang the machine is refused (S1)."""
    with pytest.raises(LocalProtocolError):
        Argon2Cost(*cost)
