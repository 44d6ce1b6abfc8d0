"""Secret bytes that do not leak by accident (spec/threat-model.md says what that is worth).

It cannot wipe memory: Python copies bytes where it likes.
"""

import hmac
from typing import Final, NoReturn, final

_REDACTED: Final = "<secret>"


@final
class Secret:
    """Immutable key material: no repr, no formatting, no pickle, no copy into logs.

    Equality is constant-time; there is no hash, so a secret cannot be a dictionary key.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def expose(self) -> bytes:
        """Return the bytes, to hand them to a cryptographic function or to the store."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a hash would let secrets be compared in variable time

    def __repr__(self) -> str:
        return _REDACTED

    def __format__(self, spec: str) -> str:
        return _REDACTED

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("secrets cannot be pickled or copied")
