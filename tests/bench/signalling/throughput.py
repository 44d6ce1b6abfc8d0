"""Envelopes a second, and how long one is under way: sent, stored, delivered, acknowledged."""

from collections.abc import Callable
from dataclasses import dataclass

from e2ecall.crypto.hpke import OVERHEAD
from e2ecall.protocol.sealing import CALL_CLASSES, OTHER_CLASSES
from tests.bench.harness import Budget, Report, Spread
from tests.bench.signalling.generator import Generator
from tests.bench.signalling.pairs import Outcome

PAIRS, WINDOW = 100, 4
"""Pairs, and how many envelopes of each are under way at the highest rate."""
SIZES = {
    "text": 1 + OTHER_CLASSES[0] + OVERHEAD,
    "call message": 1 + CALL_CLASSES[0] + OVERHEAD,
}
"""Bytes of the envelopes that clients send most."""
TASKS = {(kind, size): f"envelopes a second, {kind} of {size} B" for kind, size in SIZES.items()}
RATE = Budget(2_000, "/s", at_least=True)
DELAY = Budget(50, "ms")
PACE = RATE.limit / 2
"""Envelopes a second at which the way has a budget: half of what is asked for."""


@dataclass
class Contestant:
    """A running server with its generator."""

    name: str
    generator: Generator


def measure(report: Report, contestants: list[Contestant]) -> None:
    """Measure all contestants with each size: the highest rate, then the way at `PACE`."""
    for (kind, size), task in TASKS.items():
        if report.only in task:
            _measure_one(report, contestants, task, kind, size)


def _measure_one(
    report: Report, contestants: list[Contestant], task: str, kind: str, size: int
) -> None:
    rounds, seconds, warm = (3, 1.5, 0.5) if report.short else (5, 3.0, 1.0)
    for one in contestants:
        one.generator.open_pairs(PAIRS, size)

    def highest(one: Contestant) -> Outcome:
        return one.generator.saturate(WINDOW, seconds, warm)

    full = _in_turns(contestants, rounds, highest)
    rates = {name: [one.rate for one in outcomes] for name, outcomes in full.items()}
    reference = contestants[-1].name
    # Ours with SQLite stands first, and budgets are asked of it.
    report.compare(task, "/s", rates, reference, RATE)
    cpu = {
        name: [one.server_cpu / one.delivered * 1e6 for one in outcomes]
        for name, outcomes in full.items()
    }
    report.compare(f"CPU of the server for each, {kind}", "µs", cpu, reference)
    half = {name: Spread.of(values).median / 2 for name, values in rates.items()}
    for label, budget, paces in (
        ("half that rate", None, half),
        (f"{PACE:.0f}/s or half", DELAY, {name: min(PACE, rate) for name, rate in half.items()}),
    ):

        def at_pace(one: Contestant, paces: dict[str, float] = paces) -> Outcome:
            return one.generator.paced(paces[one.name], seconds, warm)

        paced = _in_turns(contestants, rounds, at_pace)
        for field, limit in (("p50", None), ("p99", budget)):
            ways = {name: [getattr(one, field) for one in took] for name, took in paced.items()}
            report.compare(f"way at {label}, {field}, {kind}", "ms", ways, reference, limit)
        late = max(one.late for outcomes in paced.values() for one in outcomes)
        report.notes.append(
            f"{kind}: at {label} the generator sent at most {late:.1f} ms late (99th "
            "percentile), which counts as part of the way"
        )


def _in_turns(
    contestants: list[Contestant], rounds: int, measure: Callable[[Contestant], Outcome]
) -> dict[str, list[Outcome]]:
    """Measure each contestant in each round, in an order that rotates."""
    outcomes: dict[str, list[Outcome]] = {one.name: [] for one in contestants}
    for number in range(rounds):
        turn = number % len(contestants)
        for one in (*contestants[turn:], *contestants[:turn]):
            outcomes[one.name].append(measure(one))
    return outcomes
