"""When a busy worker rests, so that datagrams gather (spec/turn.md TURN-59).

Waking up costs a worker more than forwarding a datagram does. It is network cards' moderation of
interrupts, one floor up.
It neither sleeps nor looks at a clock.
"""

from typing import Final

from relay.io.media.batch import BATCH

BUSY_RATE: Final = 10_000
"""Datagrams a second from which on it rests: what some twenty video calls send."""
GATHERED: Final = 24
"""Datagrams that are to come meanwhile."""
LONGEST_REST: Final = 0.0008
"""Seconds, of the 0.15 that people notice; a kernel adds 0.00007 of its own."""
PAUSE: Final = 0.002
"""After so many seconds without a datagram it is not busy."""

_MEASURED = 128
"""Datagrams after which the rate is looked at."""


class Pace:
    """How fast datagrams come to one worker."""

    __slots__ = ("_count", "_last", "_rest", "_since")

    def __init__(self) -> None:
        self._rest = self._since = self._last = 0.0
        self._count = 0

    def rest_after(self, count: int, now: float) -> float:
        """Return for how many seconds to rest after a batch of ``count`` that came at ``now``."""
        if now - self._last > PAUSE:
            self._rest, self._since, self._count = 0.0, now, 0
        else:
            self._count += count
        self._last = now
        if self._count >= _MEASURED:
            spacing = (now - self._since) / self._count
            is_busy = spacing * BUSY_RATE < 1
            self._rest = min(GATHERED * spacing, LONGEST_REST) if is_busy else 0.0
            self._since, self._count = now, 0
        # Behind a full batch there are more already.
        return self._rest if count < BATCH else 0.0
