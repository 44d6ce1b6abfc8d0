"""CPU per packet, loss and latency at fixed rates."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.harness import Budget
from tests.bench.media.servers import Server
from tests.bench.media.stage import Stage
from tests.bench.media.traffic import Outcome, Plan

PERCENT = "%"
LOSS = Budget(0.01, PERCENT)
FULL_SECONDS, SHORT_SECONDS = 1.5, 0.5


@dataclass(frozen=True)
class Scenario:
    """``cpu`` and ``p99`` are budgets, as multiples of coturn's."""

    rate: int
    pairs: int = 100
    burst: int = 4
    size: int = 1_000
    cpu: float | None = None
    p99: float | None = None

    def __str__(self) -> str:
        return f"{self.rate}/s, {self.pairs} pairs, bursts of {self.burst}, {self.size} B"


BUDGETED = (
    Scenario(60_000, cpu=0.35),
    Scenario(60_000, burst=1, cpu=0.65),
    Scenario(40_000, p99=1.0),
)


def scenarios(*, short: bool) -> Iterator[Scenario]:
    """Yield those with budgets, then all others."""
    yield from BUDGETED
    if short:
        return
    known = {str(one) for one in BUDGETED}
    for pairs in (100, 1_000):
        for size in (1_000, 160):
            for burst in (4, 1):
                for rate in (20_000, 60_000, 100_000):
                    one = Scenario(rate, pairs, burst, size)
                    if str(one) not in known:
                        yield one


def forwarding(stage: Stage) -> None:
    """Measure all scenarios."""
    for scenario in scenarios(short=stage.report.short):
        if stage.wants(str(scenario)):
            _measure(stage, scenario)


def _measure(stage: Stage, scenario: Scenario) -> None:
    seconds = SHORT_SECONDS if stage.report.short else FULL_SECONDS
    plan = Plan(scenario.rate, scenario.burst, scenario.size, seconds, warm=0.2)
    outcomes: dict[str, list[Outcome]] = {server.name: [] for server in stage.servers}

    def measure(server: Server) -> float:
        outcome = stage.run(server, scenario.pairs, plan)
        outcomes[server.name].append(outcome)
        return cpu_per_packet(outcome)

    cpu = stage.in_turns(measure)
    loss = {name: [100 * one.loss for one in all_] for name, all_ in outcomes.items()}
    p50 = {name: [one.p50 for one in all_] for name, all_ in outcomes.items()}
    p99 = {name: [one.p99 for one in all_] for name, all_ in outcomes.items()}
    budgeted = scenario.cpu is not None
    stage.compare(f"CPU a packet, {scenario}", "µs", cpu, _ratio(scenario.cpu))
    stage.compare(f"loss, {scenario}", PERCENT, loss, LOSS if budgeted else None)
    stage.compare(f"latency p50, {scenario}", "µs", p50)
    stage.compare(f"latency p99, {scenario}", "µs", p99, _ratio(scenario.p99))


def cpu_per_packet(outcome: Outcome) -> float:
    """Return microseconds of the server's CPU for each packet that was delivered."""
    return outcome.usage / 1000 / max(1, outcome.passed)


def _ratio(limit: float | None) -> Budget | None:
    return None if limit is None else Budget.ratio(limit)
