"""Who connects over TCP and TLS, and how often (spec/turn.md TURN-74, TURN-75).

Counts connections per source and, for IPv6, per network of networks. It closes nothing.
"""

from collections import Counter

from relay.errors import RefusedError
from relay.services.quota import Limiter, Rate
from relay.turn.five_tuple import SHARES, FiveTuple, sources_of


class StreamSources:
    """The connections of a server's listeners."""

    __slots__ = ("_counts", "_per_minute", "_rates")

    def __init__(self) -> None:
        self._counts: Counter[bytes] = Counter()
        self._per_minute = 0
        self._rates: list[Limiter] = []

    def has_room(self, five_tuple: FiveTuple, most: int) -> bool:
        """Tell whether a source may have one more, with ``most`` for one source."""
        return all(
            self._counts[source] < share * most
            for source, share in zip(sources_of(five_tuple), SHARES, strict=False)
        )

    def is_seldom(self, five_tuple: FiveTuple, per_minute: int, now: float) -> bool:
        """Tell whether a source has not had too many lately, and count this one."""
        if per_minute != self._per_minute:
            self._per_minute = per_minute
            self._rates = [
                Limiter(Rate(share * per_minute / 60, share * per_minute)) for share in SHARES
            ]
        try:
            for source, rate in zip(sources_of(five_tuple), self._rates, strict=False):
                rate.take(source.hex(), now)
        except RefusedError:
            return False
        return True

    def forget(self, now: float) -> None:
        """WIRE-62: drop the sources that may begin as many as any other again."""
        for rate in self._rates:
            rate.forget(now)

    def enter(self, five_tuple: FiveTuple) -> None:
        """Count one more."""
        self._counts.update(sources_of(five_tuple))

    def leave(self, five_tuple: FiveTuple) -> None:
        """Count one less."""
        for source in sources_of(five_tuple):
            self._counts[source] -= 1
            if not self._counts[source]:
                del self._counts[source]

    def __len__(self) -> int:
        return len(self._counts)
