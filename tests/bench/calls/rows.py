"""The networks over which calls are measured: what happens on the link of the callee.

Both directions of that link have the conditions; the caller's link is perfect. What a call does
before it knows the network counts as well.
"""

from dataclasses import dataclass
from typing import Final

from tests.network.link import Conditions

SECONDS: Final = 10.0
"""Of media, from the moment at which both ends are connected."""


@dataclass(frozen=True)
class Outage:
    """Nothing gets through from ``at`` on, for ``lasting`` seconds."""

    at: float
    lasting: float


@dataclass(frozen=True)
class Network:
    """One line of the table; ``lossy`` is where ours has to be better."""

    name: str
    conditions: Conditions
    lossy: bool = False
    outage: Outage | None = None
    seconds: float = SECONDS


def _loss(share: float) -> Network:
    return Network(f"loss {share:.0%}", Conditions(delay=0.02, loss=share), lossy=share > 0)


def _delay(seconds: float) -> Network:
    return Network(f"delay {seconds * 1000:.0f} ms", Conditions(delay=seconds))


def _narrow(name: str, rate: int, *, lossy: bool) -> Network:
    return Network(f"bottleneck {name}", Conditions(delay=0.02, rate=rate), lossy=lossy)


NETWORKS: Final = (
    *(_loss(share) for share in (0, 0.02, 0.05, 0.1, 0.2)),
    *(_delay(seconds) for seconds in (0.05, 0.1, 0.2, 0.4)),
    Network("jitter 60 ms", Conditions(delay=0.02, jitter=0.06)),
    Network("reordering 5%", Conditions(delay=0.03, reorder=0.05)),
    _narrow("300 kbit/s", 300_000, lossy=True),
    _narrow("1 Mbit/s", 1_000_000, lossy=False),  # both find their way before it overflows
    Network("outage 2 s", Conditions(delay=0.02), lossy=True, outage=Outage(4.0, 2.0)),
    Network(
        "outage 10 s", Conditions(delay=0.02), lossy=True, outage=Outage(3.0, 10.0), seconds=18
    ),
)
SHORT: Final = ("loss 0%", "loss 10%")
"""What the short form measures, once each."""
