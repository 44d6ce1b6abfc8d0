"""Which video bitrate to aim at, from the receiver's reports (spec/media.md, "Video").

Sans-I/O. Two things speak: an estimate of what the path carries (REMB, draft-alvestrand-rmcat-remb)
and the share of packets that the receiver misses (RFC 3550). What size of picture suits a rate is
`ladder`.
"""

from typing import Final

MIN_RATE: Final = 100_000
"""Bits a second: a small moving picture; with less the sound is worth more."""

MAX_RATE: Final = 2_500_000
"""Bits a second: 1280 x 720 at 30 pictures a second, as good as in real time."""

START_RATE: Final = 1_000_000
"""Bits a second before anything is known of the path."""

DOWN_INTERVAL: Final = 1.0
"""Seconds between steps down: the estimate needs as long to see the effect of one."""

UP_INTERVAL: Final = 1.0
"""Seconds between steps up."""

UP_FACTOR: Final = 1.08
"""One step up: from the lowest rate to the highest in 42 s, so that a queue fills slowly enough
to be seen."""

LOSS_FLOOR: Final = 300_000
"""Bits a second below which moderate loss does not push: radio loses packets at any rate, and
only an estimate, or heavy loss, tells that the path is narrower."""

_CONGESTED: Final = 0.9
"""An estimate below this share of what is really sent means congestion. A higher one may only
mean that little is sent: the receiver cannot estimate more than it sees."""

_HEADROOM: Final = 1.1
"""An estimate must exceed the rate by this factor before a step up."""

_LITTLE_LOSS: Final = 0.02
_MUCH_LOSS: Final = 0.1
_HEAVY_LOSS: Final = 0.25


_REPAIR_SHARE: Final = 0.5
"""Of the rate, what may be sent again on top of it."""

_REPAIR_BURST: Final = 0.5
"""Seconds of that share that may be sent again at once."""

_PACKET_BITS: Final = 8 * 1_300


class RepairBudget:
    """How many packets may be sent again: where a queue overflows, each one costs another."""

    def __init__(self) -> None:
        self._left: float | None = None
        self._at = 0.0

    def take(self, wanted: int, bit_rate: int, now: float) -> int:
        """Return how many of the ``wanted`` packets may be sent again now."""
        a_second = bit_rate * _REPAIR_SHARE / _PACKET_BITS
        most = max(a_second * _REPAIR_BURST, 1.0)
        earned = most if self._left is None else self._left + (now - self._at) * a_second
        self._left, self._at = min(earned, most), now
        given = min(wanted, int(self._left))
        self._left -= given
        return given


class BitrateControl:
    """Keeps the current rate; `estimate` and `loss` move it."""

    def __init__(self) -> None:
        self._rate = float(START_RATE)
        self._loss = 0.0
        self._down_at = self._up_at = float("-inf")

    @property
    def bit_rate(self) -> int:
        """Bits a second to aim at."""
        return int(self._rate)

    def estimate(self, allowed: int, sent: int, now: float) -> None:
        """Take the receiver's estimate and what was really sent, both in bits a second."""
        if allowed < sent * _CONGESTED and allowed < self._rate:
            self._lower(allowed, MIN_RATE, now)
        elif (
            allowed >= self._rate * _HEADROOM
            and self._loss <= _LITTLE_LOSS
            and now - max(self._up_at, self._down_at) >= UP_INTERVAL
        ):
            self._up_at = now
            self._rate = min(self._rate * UP_FACTOR, MAX_RATE)

    def loss(self, share: float, now: float) -> None:
        """Take the share of packets, 0 to 1, that the receiver missed since its last report."""
        self._loss = share
        if share > _HEAVY_LOSS:
            self._lower(self._rate * (1 - share), MIN_RATE, now)
        elif share > _MUCH_LOSS:
            self._lower(self._rate * (1 - share / 2), LOSS_FLOOR, now)

    def _lower(self, rate: float, floor: int, now: float) -> None:
        if now - self._down_at >= DOWN_INTERVAL and self._rate > floor:
            self._down_at = now
            self._rate = max(rate, floor)
