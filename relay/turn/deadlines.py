"""Deadlines in buckets of one second, so that expiry costs what expires (spec/turn.md TURN-45).

A heap would keep an entry for everything that was deleted early; this keeps one for each key.
"""

import math
from typing import Generic, TypeVar

K = TypeVar("K")


class Deadlines(Generic[K]):
    """At most one deadline for each key."""

    __slots__ = ("_buckets", "_second")

    def __init__(self) -> None:
        self._buckets: dict[int, set[K]] = {}
        self._second: dict[K, int] = {}

    def set(self, key: K, when: float) -> None:
        """Make ``key`` due at ``when``, rounded up to a second, instead of what it had."""
        self.remove(key)
        second = math.ceil(when)
        self._second[key] = second
        self._buckets.setdefault(second, set()).add(key)

    def remove(self, key: K) -> None:
        """Forget ``key``, if it is known."""
        second = self._second.pop(key, None)
        if second is not None:
            bucket = self._buckets[second]
            bucket.discard(key)
            if not bucket:
                del self._buckets[second]

    def take_due(self, now: float) -> list[K]:
        """Remove and return all keys that are due."""
        due: list[K] = []
        for second in [second for second in self._buckets if second <= now]:
            due.extend(self._buckets.pop(second))
        for key in due:
            del self._second[key]
        return due

    def __len__(self) -> int:
        return len(self._second)
