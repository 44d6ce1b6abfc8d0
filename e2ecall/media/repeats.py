"""What is sent again until it is answered, at one pace (spec/media.md, MEDIA-37 and MEDIA-38).

aioice and OpenSSL wait twice as long after each time. Where a fifth is lost, a few of those waits
are longer than anybody holds the line. It knows neither what is sent nor when that is answered.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

REQUEST_PACE: Final = 0.5
"""Seconds between two times of a request of TURN or ICE: the least that RFC 8489 section 6.2.1 and
RFC 8445 section 14.3 have for the first."""

HANDSHAKE_PACE: Final = 0.25
"""Seconds between two times of a datagram of the DTLS handshake."""

HANDSHAKE_TIMES: Final = 12
"""So often: by then OpenSSL has sent it again by itself, as another datagram."""


class Repeats:
    """Sends one thing again and again. Lives on the media loop."""

    def __init__(self, pace: float, most: int | None = None) -> None:
        """``pace`` is in seconds, ``most`` how often, None for until the end."""
        self._pace = pace
        self._most = most
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, send: Callable[[], None], first: float | None = None) -> None:
        """Send by ``send`` from now on, in the place of what there was; ``first`` in seconds."""
        self.end()
        self._arm(send, self._pace if first is None else first, self._most)

    def end(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, send: Callable[[], None], wait: float, left: int | None) -> None:
        def again() -> None:
            self._arm(send, self._pace, None if left is None else left - 1)
            send()

        loop = asyncio.get_running_loop()
        self._timer = None if left == 0 else loop.call_later(wait, again)


@contextmanager
def repeating(send: Callable[[], None]) -> Iterator[None]:
    """Send a request again every `REQUEST_PACE` for as long as the block waits for its answer."""
    repeats = Repeats(REQUEST_PACE)
    # Half a step apart from aioice's own times, the first of which is after one.
    repeats.begin(send, first=1.5 * REQUEST_PACE)
    try:
        yield
    finally:
        repeats.end()
