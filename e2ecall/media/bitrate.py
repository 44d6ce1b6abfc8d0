"""Which video bitrate to aim at, from the receiver's reports (spec/media.md, "Video").

Sans-I/O. Two things speak: an estimate of what the path carries (REMB, draft-alvestrand-rmcat-remb)
and the share of packets that the receiver misses (RFC 3550). What size of picture suits a rate is
`ladder`, what is sent again is `repair`.
"""

from math import sqrt
from typing import Final

MIN_RATE: Final = 100_000
"""Bits a second: a small moving picture; with less the sound is worth more."""

MAX_RATE: Final = 2_500_000
"""Bits a second: 1280 x 720 at 30 pictures a second, as good as in real time."""

START_RATE: Final = 400_000
"""Bits a second before anything is known of the path."""

PROBE_RATE: Final = 800_000
"""Bits a second up to which the beginning of a call climbs quickly."""

PROBE_FACTOR: Final = 1.3
"""One step at the beginning, with each report of the receiver that shows no trouble."""

DOWN_INTERVAL: Final = 1.0
"""Seconds between steps down: the estimate needs as long to see the effect of one."""

UP_INTERVAL: Final = 1.0
"""Seconds between steps up."""

UP_FACTOR: Final = 1.08
"""One step up: from the lowest rate to the highest in 42 s, so that a queue fills slowly enough
to be seen."""

LOSS_FLOOR: Final = 800_000
"""Bits a second below which moderate loss neither pushes down nor holds: radio loses packets at any
rate, and only an estimate, or heavy loss, tells that the path is narrower."""

_CONGESTED: Final = 0.9
"""An estimate below this share of what is really sent means congestion. A higher one may only
mean that little is sent: the receiver cannot estimate more than it sees."""

_HEADROOM: Final = 1.1
"""An estimate must exceed the rate by this factor before a step up."""

_LITTLE_LOSS: Final = 0.02
_MUCH_LOSS: Final = 0.1
_HEAVY_LOSS: Final = 0.3
"""As a mean, where no estimate speaks against it."""
_SUDDEN_LOSS: Final = 0.4
"""In a single report."""

PROBE_INTERVAL: Final = 0.4
"""Seconds between steps at the beginning: reports come every 0.5 to 1.5 s."""

_OVERFLOWING: Final = 0.25
"""Of what was sent in that time, by three standard deviations: on a path on which one can talk
chance alone does not lose as much."""

_FRESH: Final = 2.0
"""Seconds for which an estimate holds."""

_FAR_BELOW: Final = 1.5
"""An estimate of so many times the rate says that the rate was lowered for nothing."""

_DRAIN: Final = 0.85
"""What is sent of a rate that just fits, so that a queue that is full empties."""


class BitrateControl:
    """Keeps the current rate; `estimate`, `loss` and `missing` move it."""

    def __init__(self) -> None:
        self._rate = float(START_RATE)
        self._loss: float | None = None
        self._probe_at: float | None = None
        self._probing = True
        self._allowed, self._estimated_at = 0, float("-inf")
        self._up_at = self._down_at = self._estimated_down_at = float("-inf")

    @property
    def bit_rate(self) -> int:
        """Bits a second to aim at."""
        return int(self._rate)

    @property
    def loses_much(self) -> bool:
        """Whether more was lost, by the last report, than a repair can be sure to survive."""
        return self._mean_loss > _MUCH_LOSS

    @property
    def _mean_loss(self) -> float:
        """The share of lost packets, of which half is what the last report says."""
        return self._loss or 0.0

    def estimate(self, allowed: int, sent: int, now: float) -> None:
        """Take the receiver's estimate and what was really sent, both in bits a second."""
        self._allowed, self._estimated_at = allowed, now
        if allowed < sent * _CONGESTED and allowed < self._rate:
            # By its own clock: a measured rate is better than what a share of losses suggests.
            if now - self._estimated_down_at >= DOWN_INTERVAL:
                self._estimated_down_at = now
                self._lower(allowed, MIN_RATE, now)
        elif (
            allowed >= self._rate * _HEADROOM
            and self._mean_loss <= (_HEAVY_LOSS if self._rate < LOSS_FLOOR else _LITTLE_LOSS)
            and now - max(self._up_at, self._down_at) >= UP_INTERVAL
        ):
            self._up_at = now
            quick = self._rate < LOSS_FLOOR and allowed >= self._rate * _FAR_BELOW
            self._rate = min(self._rate * (PROBE_FACTOR if quick else UP_FACTOR), MAX_RATE)

    def loss(self, share: float, now: float) -> None:
        """Take the share of packets, 0 to 1, that the receiver missed since its last report."""
        self._loss = share if self._loss is None else (self._loss + share) / 2
        # A queue that overflows shows in the estimate as well, and radio does not.
        has_room = now - self._estimated_at <= _FRESH and self._allowed >= self._rate * _HEADROOM
        heavy = (self._loss > _HEAVY_LOSS and not has_room) or share > _SUDDEN_LOSS
        if heavy or (self._loss > _MUCH_LOSS and self._rate > LOSS_FLOOR):
            if now - self._down_at >= DOWN_INTERVAL:
                lower = self._rate * ((1 - share) * _DRAIN if heavy else 1 - self._loss / 2)
                self._lower(lower, MIN_RATE if heavy else LOSS_FLOOR, now)
        elif self._probing and self._probe_at is not None:
            # For its first three seconds a receiver estimates nothing, unless a queue grows.
            if now - self._probe_at >= PROBE_INTERVAL:
                self._probe_at = now
                self._rate = min(self._rate * PROBE_FACTOR, PROBE_RATE)
                self._probing = self._rate < PROBE_RATE
        else:
            self._probe_at = now  # the first report is of a moment

    def missing(self, share: float, sent: int, now: float) -> bool:
        """Take the share of packets that were asked for again just now, of how many were ``sent``.

        Returns whether it is so high that the path is too narrow for them: then sending them
        again would take the place of what is new. More than was sent is an outage that is over.
        """
        if share > 1 or share - 3 * sqrt(share * (1 - share) / max(sent, 1)) < _OVERFLOWING:
            return False
        if now - self._down_at >= DOWN_INTERVAL:
            self._lower(self._rate * (1 - share) * _DRAIN, MIN_RATE, now)
        return True

    def _lower(self, rate: float, floor: int, now: float) -> None:
        self._probing = False
        if self._rate > floor:
            self._down_at = now
            self._rate = max(rate, floor)
