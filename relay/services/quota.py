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


class Pace:
    """When each key may go on: nothing is refused, but what comes too fast has to wait.

    A bucket as of `Limiter`, kept as the moment at which it is full again (GCRA).
    """

    __slots__ = ("_full_at", "_max_keys", "_rate")

    def __init__(self, rate: Rate, *, max_keys: int = MAX_KEYS) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Count one use; return the seconds to wait before it."""
        full_at = max(now, self._full_at.get(key, now)) + 1 / self._rate.per_second
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        while len(self._full_at) > self._max_keys:
            self._full_at.popitem(last=False)
        return max(0.0, full_at - now - self._rate.burst / self._rate.per_second)


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
