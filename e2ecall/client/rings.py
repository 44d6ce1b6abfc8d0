"""How often a person's calls may ring (spec/reach.md, REACH-17), counted while the client is open.

Counts and nothing else: what becomes of a call that may not ring is `e2ecall.client.admission`.
"""

from collections import deque
from typing import Final, NamedTuple

from relay.wire.names import Address

MAX_RINGS: Final = 5
"""Calls of one person, or of all strangers together, that ring within `RINGS_WINDOW` untaken."""

RINGS_WINDOW: Final = 300.0
"""Seconds: whoever lets it ring as long as it does, a minute each, is never silenced."""

_MAX_KEPT: Final = 1024
"""Rings that are kept; two never begin in the same third of a second for five minutes on end."""


class _Ring(NamedTuple):
    peer: Address
    stranger: bool
    at: float


class Rings:
    """The calls that rang lately and were not taken; times are seconds that nobody sets."""

    def __init__(self) -> None:
        self._rings: deque[_Ring] = deque(maxlen=_MAX_KEPT)

    def has_room(self, peer: Address, *, stranger: bool, now: float) -> bool:
        """REACH-17: tell whether one more call of ``peer`` may ring."""
        while self._rings and now - self._rings[0].at >= RINGS_WINDOW:
            self._rings.popleft()
        of_peer = sum(ring.peer == peer for ring in self._rings)
        of_strangers = sum(ring.stranger for ring in self._rings)
        return of_peer < MAX_RINGS and not (stranger and of_strangers >= MAX_RINGS)

    def rang(self, peer: Address, *, stranger: bool, now: float) -> None:
        """Count a call that rings."""
        self._rings.append(_Ring(peer, stranger, now))

    def taken(self, peer: Address) -> None:
        """Forget the calls of ``peer``: the user wants to hear from them."""
        kept = [ring for ring in self._rings if ring.peer != peer]
        self._rings = deque(kept, maxlen=_MAX_KEPT)
