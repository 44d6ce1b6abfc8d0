"""Rates: token buckets per key, bounded in number (spec/wire.md, Limits).

Counts what it is told to count; what is counted and under which key is its user's choice.
"""

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil
from typing import Final

from relay.errors import RefusedError
from relay.wire.messages import ErrorCode

MAX_KEYS: Final = 65_536
"""Buckets kept at once; beyond it the one that was used least recently starts afresh."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, then ``per_second`` on average."""

    per_second: float
    burst: int


class Limiter:
    """A token bucket for each key."""

    __slots__ = ("_buckets", "_max_keys", "_rate")

    def __init__(self, rate: Rate, *, max_keys: int = MAX_KEYS) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> None:
        """Count one use.

        Raises:
            RefusedError: TOO_MANY, with the seconds after which one more is free.
        """
        level, since = self._buckets.get(key, (float(self._rate.burst), now))
        level = min(self._rate.burst, level + max(0.0, now - since) * self._rate.per_second)
        if level < 1:
            # WIRE-50: a clock that was set back must not keep anybody out until it has caught up.
            self._buckets[key] = (level, now)
            wait = min(86_400, ceil((1 - level) / self._rate.per_second))
            raise RefusedError(ErrorCode.TOO_MANY, "too many requests", retry_after=wait)
        self._buckets[key] = (level - 1, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
