"""Lips and sound: how long a picture is held so that it is seen when its sound is heard.

spec/media.md, "Receiving". Sans-I/O: ``now`` is in seconds. Sender reports (RFC 3550 section
6.4.1) put the RTP timestamps of two streams on the sender's one clock. Sound is never held: what
it waits is lost to the conversation, and a picture that is early waits as long for nothing.
"""

from collections import deque
from typing import Final

AHEAD: Final = 0.01
"""Seconds by which a picture may be shown before its sound: the clocks are known no better."""

MOST: Final = 0.15
"""Seconds for which a picture is held at most: five of thirty a second."""

RESERVE: Final = 0.1
"""Seconds of sound that whoever plays it keeps; of more the rest is left out."""

_REPORTS: Final = 4
"""Reports that a stream's place on the clock is taken from."""

_WRAP: Final = 1 << 32
_FRACTION: Final = 1 << 32  # of a second, in the time stamps of NTP


class SenderClock:
    """Tells when something was sent, in seconds of the sender's clock, from its RTP timestamp."""

    def __init__(self, rate: int) -> None:
        """``rate`` is that of the stream's RTP clock, in ticks a second."""
        self._rate = rate
        self._reports: deque[tuple[float, int]] = deque(maxlen=_REPORTS)

    def report(self, ntp: int, timestamp: int) -> None:
        """Take the two time stamps of a sender report; one without a time says nothing."""
        if ntp:
            self._reports.append((ntp / _FRACTION, timestamp))

    def sent(self, timestamp: int) -> float | None:
        """Return when it was sent; None before the first report."""
        # A packet that was late when it was reported makes a time too late, and none too early.
        times = (at + self._ticks(timestamp - then) / self._rate for at, then in self._reports)
        return min(times, default=None)

    def _ticks(self, difference: int) -> int:
        return (difference + _WRAP // 2) % _WRAP - _WRAP // 2


class Lips:
    """Follows when sound is heard, and holds the pictures that belong to it."""

    def __init__(self) -> None:
        self._free = float("-inf")  # when what came before has been played
        self._delay: float | None = None

    def heard(self, sent: float | None, length: float, now: float) -> None:
        """Take a frame of sound, of so many seconds, that can be played now.

        Whoever plays it does so as soon as it is there and what was before it has been played. So
        it comes to keep in reserve what was needed once, up to `RESERVE`.
        """
        at = max(now, self._free)
        if at - now > RESERVE:
            return
        self._free = at + length
        if sent is not None:
            self._delay = at - sent

    def hold(self, sent: float | None, now: float) -> float:
        """Return for how many seconds a picture that is decoded is to be held."""
        if self._delay is None or sent is None:
            return 0.0
        return min(max(self._delay - (now - sent) - AHEAD, 0.0), MOST)
