"""Argon2id (RFC 9106): the key of the store from a passphrase.

It chooses the cost and states it; keeping salt and cost beside the store is the store's work.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from e2ecall.errors import LocalProtocolError
from e2ecall.secret import Secret

SALT_BYTES: Final = 16
_MAX_MEMORY_KIB: Final = 1 << 20
_MAX_ITERATIONS: Final = 16
_MAX_LANES: Final = 1
"""With more, two derivations at once in one process wait for each other for ever: seen with
cryptography 50.0.2, whose OpenSSL shares one thread pool among them."""


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """Memory in KiB, passes and lanes; RFC 9106 section 4 names them m, t and p."""

    memory_kib: int
    iterations: int
    lanes: int

    def __post_init__(self) -> None:
        # The cost is read from a file before its key is known: bound what it can make us do.
        if not (
            8 * self.lanes <= self.memory_kib <= _MAX_MEMORY_KIB
            and 1 <= self.iterations <= _MAX_ITERATIONS
            and 1 <= self.lanes <= _MAX_LANES
        ):
            raise LocalProtocolError("the key derivation cost is out of range")


RECOMMENDED: Final = Argon2Cost(memory_kib=65_536, iterations=3, lanes=1)
"""64 MiB and 3 passes as in RFC 9106's second recommended option, in one lane."""


def argon2id(passphrase: Secret, *, salt: bytes, cost: Argon2Cost, length: int) -> Secret:
    """Return ``length`` bytes derived from ``passphrase``; the salt has 16 bytes."""
    if len(salt) != SALT_BYTES:
        raise LocalProtocolError(f"a salt has {SALT_BYTES} bytes")
    kdf = Argon2id(
        salt=salt,
        length=length,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    return Secret(kdf.derive(passphrase.expose()))
