"""How good a call is, from what was counted (spec/media.md, "Quality"). Sans-I/O.

It judges nothing and changes nothing: what is done about a bad network is `bitrate`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from e2ecall.media.events import Quality

FREEZE: Final = 0.3
"""Seconds for which one picture stands still before that is a freeze: nine pictures of thirty."""


class FreezeMeter:
    """Counts the freezes of one stream of pictures.

    A picture that stands still because the sender sends few is none: a freeze is a gap in which
    pictures were lost, or one that came later than the sender's clock says.
    """

    def __init__(self) -> None:
        self.freezes = 0
        self.frozen = 0.0
        self._last: tuple[float, float, int] | None = None

    def shown(self, now: float, sent: float, lost: int) -> None:
        """Take a picture with its place in the sender's time and what was lost so far."""
        if self._last is not None:
            before, sent_before, lost_before = self._last
            still = now - before
            is_late = still - (sent - sent_before) >= FREEZE / 2
            if still >= FREEZE and (is_late or lost > lost_before):
                self.freezes += 1
                self.frozen += still
        self._last = (now, sent, lost)


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of a transport so far; the last three are as they are now."""

    bytes_sent: int = 0
    bytes_received: int = 0
    packets_expected: int = 0
    packets_received: int = 0
    freezes: int = 0
    frozen: float = 0.0
    round_trips: tuple[float, ...] = ()
    lost_by_peer: tuple[float, ...] = ()
    jitter: float = 0.0


class QualityMeter:
    """Turns what is counted into what happened since the last look."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._before = Counted()

    def measure(self, counted: Counted, now: float) -> Quality:
        """Return the quality of the time since the last call of this."""
        before, seconds = self._before, max(now - self._at, 1e-3)
        self._before, self._at = counted, now
        expected = counted.packets_expected - before.packets_expected
        received = counted.packets_received - before.packets_received
        return Quality(
            round_trip=_mean(counted.round_trips),
            # The worst stream tells more of the network than the mean with one that rests.
            loss_sent=max(counted.lost_by_peer, default=0.0),
            # What came late, or twice, was counted as lost before.
            loss_received=min(max(1 - received / expected, 0.0), 1.0) if expected > 0 else 0.0,
            jitter=counted.jitter,
            bit_rate_sent=int((counted.bytes_sent - before.bytes_sent) * 8 / seconds),
            bit_rate_received=int((counted.bytes_received - before.bytes_received) * 8 / seconds),
            freezes=counted.freezes - before.freezes,
            frozen=counted.frozen - before.frozen,
        )


def _mean(values: Iterable[float]) -> float | None:
    known = tuple(values)
    return sum(known) / len(known) if known else None
