"""Which video bitrate to aim at, from the receiver's estimates (spec/media.md, "Video").

Sans-I/O. The estimates are REMB (draft-alvestrand-rmcat-remb); the encoder has to be rebuilt for
a change, at the price of a key frame, so the rate moves in few steps and slowly upwards.
"""

from typing import Final

RATES: Final = (150_000, 250_000, 400_000, 650_000, 1_000_000)
"""Bits a second, one step about 1.6 of the one before; the last is what 640x360 is sent with."""

DOWN_INTERVAL: Final = 1.0
"""Seconds between steps down: the estimate needs as long to see the effect of one."""

UP_INTERVAL: Final = 5.0
"""Seconds that an estimate must have allowed more before a step up."""

_CONGESTED: Final = 0.9
"""An estimate below this share of what is really sent means congestion. A higher one may only
mean that little is sent: the receiver cannot estimate more than it sees."""

_HEADROOM: Final = 1.1
"""An estimate must exceed the next rate by this factor before a step up."""


class BitrateControl:
    """Keeps the current rate; `estimate` moves it."""

    def __init__(self) -> None:
        self._step = len(RATES) - 1
        self._changed_at = float("-inf")

    @property
    def bit_rate(self) -> int:
        """Bits a second to aim at."""
        return RATES[self._step]

    def estimate(self, allowed: int, sent: int, now: float) -> None:
        """Take the receiver's estimate and what was really sent, both in bits a second."""
        since = now - self._changed_at
        if allowed < sent * _CONGESTED and allowed < self.bit_rate:
            if since >= DOWN_INTERVAL and self._step > 0:
                fitting = [step for step in range(self._step) if RATES[step] <= allowed]
                self._step = max(fitting, default=0)
                self._changed_at = now
        elif (
            since >= UP_INTERVAL
            and self._step + 1 < len(RATES)
            and allowed >= RATES[self._step + 1] * _HEADROOM
        ):
            self._step += 1
            self._changed_at = now
