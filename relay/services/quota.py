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


class _Buckets:
    """What is left of a rate for each key, and since when.

    Those of which all is left say nothing and are dropped by `forget`.
    """

    __slots__ = ("_left", "_max_keys", "_rate")

    def __init__(self, rate: Rate, *, max_keys: int = MAX_KEYS) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def forget(self, now: float) -> None:
        """Drop what is full again, in the order of its last use (WIRE-62)."""
        while self._left:
            key, (level, since) = next(iter(self._left.items()))
            if since > now:
                # The clock was set back: it counts from here, or it would be kept until then.
                self._left[key] = (level, now)
            if self._level(key, now) < self._rate.burst:
                return
            del self._left[key]

    def _level(self, key: str, now: float) -> float:
        found, rate = self._left.get(key), self._rate
        if found is None:
            return rate.burst
        level, since = found
        # WIRE-50: a clock that was set back must not keep anybody out until it has caught up.
        if now > since:
            level += (now - since) * rate.per_second
        return min(rate.burst, level)

    def _note(self, key: str, level: float, now: float) -> None:
        self._left[key] = (level, now)
        self._left.move_to_end(key)
        if len(self._left) > self._max_keys:
            self._left.popitem(last=False)


class Pace(_Buckets):
    """When each key may go on: nothing is refused, but what comes too fast has to wait."""

    __slots__ = ()

    def wait(self, key: str, now: float) -> float:
        """Count one use; return the seconds to wait before it."""
        level = self._level(key, now) - 1
        self._note(key, level, now)
        return max(0.0, -level / self._rate.per_second)


class Limiter(_Buckets):
    """A token bucket for each key."""

    __slots__ = ()

    def take(self, key: str, now: float) -> None:
        """Count one use.

        Raises:
            RefusedError: TOO_MANY, with the seconds after which one more is free.
        """
        level = self._level(key, now)
        if level < 1:
            self._note(key, level, now)
            wait = min(86_400, ceil((1 - level) / self._rate.per_second))
            raise RefusedError(ErrorCode.TOO_MANY, "too many requests", retry_after=wait)
        self._note(key, level - 1, now)
