"""What is sent again of pictures, and what the requests for it tell (spec/media.md, "Video").

Sans-I/O.
"""

from collections.abc import Sequence
from typing import Final

MISSING_WINDOW: Final = 0.5
"""Seconds for which what was asked for again is compared with what was sent."""

_LEAST_MISSING: Final = 8
"""Packets: of fewer no share is taken."""

MIN_REPEAT: Final = 0.03
MAX_REPEAT: Final = 0.3
"""Seconds between two times that a packet is sent again: a round trip, within these."""

_UNKNOWN_ROUND_TRIP: Final = 0.05

_REPAIR_SHARE: Final = 0.75
"""Of the rate, what may be sent again on top of it: a fifth that is lost, twice, and what is lost
of that."""

_REPAIR_BURST: Final = 0.5
"""Seconds of that share that may be sent again at once."""

PACKET_BYTES: Final = 1_300
"""Of an RTP payload, at most."""


class RepairBudget:
    """What may be sent again: where a queue overflows, each packet costs another.

    None is sent again before the last time can have helped: a receiver asks several times in one
    round trip.
    """

    def __init__(self) -> None:
        self._left: float | None = None
        self._at = 0.0
        self._sent: dict[int, float] = {}

    def take(
        self,
        wanted: Sequence[int],
        bit_rate: int,
        round_trip: float | None,
        now: float,
        *,
        size: float = PACKET_BYTES,
        times: int = 1,
    ) -> list[int]:
        """Return which of the ``wanted`` packets may be sent again now, each so many ``times``.

        ``size`` is that of a packet of late, in bytes.
        """
        wait = _UNKNOWN_ROUND_TRIP if round_trip is None else round_trip
        wait = min(max(wait, MIN_REPEAT), MAX_REPEAT)
        self._sent = {n: at for n, at in self._sent.items() if now - at < wait}
        fresh = [number for number in wanted if number not in self._sent]
        given = fresh[: self._afford(len(fresh) * times, bit_rate / (8 * size), now) // times]
        self._sent.update(dict.fromkeys(given, now))
        return given * times

    def _afford(self, wanted: int, packet_rate: float, now: float) -> int:
        a_second = packet_rate * _REPAIR_SHARE
        most = max(a_second * _REPAIR_BURST, 1.0)
        earned = most if self._left is None else self._left + (now - self._at) * a_second
        self._left, self._at = min(earned, most), now
        given = min(wanted, int(self._left))
        self._left -= given
        return given


class Missing:
    """What the receiver asks for again, as a sign that comes a second before its report."""

    def __init__(self) -> None:
        self._asked: dict[int, float] = {}

    def share(self, numbers: Sequence[int], sent: int, now: float) -> float:
        """Return the share of lost packets; ``sent`` is how many there were in `MISSING_WINDOW`."""
        recent = {n: at for n, at in self._asked.items() if now - at <= MISSING_WINDOW}
        for number in numbers:
            recent.setdefault(number, now)
        self._asked = recent
        return len(recent) / sent if sent and len(recent) >= _LEAST_MISSING else 0.0
