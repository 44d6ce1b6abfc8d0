"""Routes: the shortcut for packets between two bound channels (spec/turn.md TURN-35).

A route holds what the rules said when it was published, and until when that cannot change by
itself. Whoever forwards by routes outside the core is told of each change as it happens. It
decides nothing.
"""

from typing import NamedTuple, Protocol

from relay.turn.bandwidth import Bandwidth
from relay.turn.five_tuple import FiveTuple

RouteKey = tuple[FiveTuple, bytes]
"""The sender, and the first two bytes of its ChannelData: the channel number."""


class Route(NamedTuple):
    """Where ChannelData goes. A plain tuple underneath, as each packet reads it."""

    until: float
    """Unix seconds; the shortest of two allocations and two channels."""
    receiver: FiveTuple
    number: bytes
    """By which the receiver knows the sender."""
    bandwidth: Bandwidth
    """The sender's."""


class RouteObserver(Protocol):
    """Keeps a copy of the routes."""

    def publish(self, key: RouteKey, route: Route) -> None:
        """Take a route, new or in place of the one under this key, from this moment on."""

    def withdraw(self, key: RouteKey) -> None:
        """Forget a route. When this returns, no packet that is read later may follow it."""


class Routes:
    """All routes; an observer, if there is one, has those that were published since it came."""

    __slots__ = ("_observer", "by_key")

    def __init__(self) -> None:
        self._observer: RouteObserver | None = None
        self.by_key: dict[RouteKey, Route] = {}

    def observe(self, observer: RouteObserver) -> None:
        """Tell ``observer`` of every change from now on, and nobody else."""
        self._observer = observer

    def __len__(self) -> int:
        return len(self.by_key)

    def publish(self, key: RouteKey, route: Route) -> None:
        """Add or replace; what stands already is not published again."""
        if self.by_key.get(key) != route:
            self.by_key[key] = route
            if self._observer is not None:
                self._observer.publish(key, route)

    def withdraw(self, key: RouteKey) -> Route | None:
        """Remove and return, if there is one."""
        route = self.by_key.pop(key, None)
        if route is not None and self._observer is not None:
            self._observer.withdraw(key)
        return route
