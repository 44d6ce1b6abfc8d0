"""Secret bytes that do not leak by accident (spec/threat-model.md says what that is worth).

It cannot wipe memory: Python copies bytes where it likes.
"""

import hmac
import weakref
from typing import Final, Generic, NoReturn, TypeVar, final

T = TypeVar("T")

_REDACTED: Final = "<secret>"


@final
class Secret:
    """Immutable key material: no repr, no formatting, no pickle, no copy into logs.

    Equality is constant-time; there is no hash, so a secret cannot be a dictionary key.
    """

    __slots__ = ("__weakref__", "_value")

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


class Beside(Generic[T]):
    """What was computed from secrets and lives exactly as long as they do.

    A key expanded from its seed is kept in memory while the seed object is, and dropped with it:
    whoever deletes a secret need not know that something was derived from it.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Secret], T]] = {}

    def get(self, secret: Secret) -> T | None:
        """Return what was put beside this very object, not beside an equal one."""
        kept = self._kept.get(id(secret))
        return kept[1] if kept is not None and kept[0]() is secret else None

    def put(self, secret: Secret, value: T) -> None:
        """Keep ``value`` until ``secret`` is gone."""
        place, entries = id(secret), self._kept
        entries[place] = weakref.ref(secret, lambda _: entries.pop(place, None)), value

    def __len__(self) -> int:
        return len(self._kept)
