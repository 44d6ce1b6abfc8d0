"""Whether ours is better than theirs, beyond the spread of the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.calls.rows import Network
from tests.bench.harness import Budget, Report, Row, Spread


@dataclass(frozen=True)
class Metric:
    """A figure of `judge.Figures`; ``slack`` is a difference that nobody sees or hears.

    ``must`` says that ours has to be better over networks that lose packets, by whatever: where
    both can be perfect it cannot, and of an outage the most is lost by both.
    """

    field: str
    name: str
    unit: str
    more_is_better: bool
    slack: float
    must: bool = False


METRICS: Final = (
    Metric("psnr", "picture", "dB", more_is_better=True, slack=0.5),
    Metric("psnr_late", "picture, if none were late", "dB", more_is_better=True, slack=0.5),
    Metric("frames_a_second", "pictures", "/s", more_is_better=True, slack=0.5),
    Metric("freeze", "longest freeze", "s", more_is_better=False, slack=0.1),
    Metric("gaps", "sound missing", "%", more_is_better=False, slack=0.5, must=True),
    Metric("mouth_to_ear", "mouth to ear", "ms", more_is_better=False, slack=20),
)

LIPS: Final = Metric("out_of_sync", "lips and sound apart", "ms", more_is_better=False, slack=20)
LIPS_BUDGET: Final = Budget(80.0, "ms")
"""Whatever others reach: from there on people see it (ITU-R BT.1359 has 45 to 125)."""


@dataclass(frozen=True)
class Versus(Budget):
    """Ours against theirs: every run of the one beyond every run of the other, and the slack."""

    def __str__(self) -> str:
        return self.unit


def compare(
    report: Report, network: Network, metric: Metric, samples: Mapping[str, Sequence[float]]
) -> None:
    """Add a row for each contestant, ours first and judged."""
    if not all(samples.values()):
        report.skipped.append(f"{network.name}, {metric.name}: a contestant had no call")
        return
    if metric is LIPS:
        reference = list(samples)[-1]
        lists = {name: list(values) for name, values in samples.items()}
        report.compare(f"{network.name}: {metric.name}", metric.unit, lists, reference, LIPS_BUDGET)
        return
    ours, theirs = samples.values()
    must = network.lossy and metric.must
    ahead = standing(ours, theirs, metric, 0.0 if must else metric.slack)
    budget = Versus(0.0, "better" if must else "not worse")
    reference = list(samples)[-1]
    for number, (name, values) in enumerate(samples.items()):
        spread = Spread.of(values)
        own = number == 0
        report.rows.append(
            Row(
                f"{network.name}: {metric.name}",
                name,
                spread,
                None,
                reference,
                len(values),
                1,
                metric.unit,
                budget if own else None,
                (ahead > 0 if must else ahead >= 0) if own else None,
            )
        )


def standing(ours: Sequence[float], theirs: Sequence[float], metric: Metric, slack: float) -> int:
    """Return 1 where ours is better, -1 where it is worse, 0 where the runs overlap or nearly."""
    sign = 1 if metric.more_is_better else -1
    mine, others = [sign * value for value in ours], [sign * value for value in theirs]
    if min(mine) > max(others) + slack:
        return 1
    return -1 if max(mine) < min(others) - slack else 0
