"""Measures contestants in turns and keeps quartiles; knows nothing of what they do.

In each round every contestant runs once, in an order that rotates, so that whatever else the
machine does falls on all of them. Ratios are taken within a round, against the reference.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Thunk = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """``prepare``, untimed, gives what is timed: a call that does ``operations`` operations."""

    name: str
    prepare: Callable[[], Thunk]
    operations: int = 1


@dataclass(frozen=True)
class Budget:
    """What a median must not exceed, or must reach: in a unit, or a multiple of the reference."""

    limit: float
    unit: str
    at_least: bool = False

    @classmethod
    def ratio(cls, limit: float, *, at_least: bool = False) -> "Budget":
        return cls(limit, "ratio", at_least)

    @classmethod
    def microseconds(cls, limit: float) -> "Budget":
        return cls(limit, "microseconds")

    def is_met(self, value: "Spread", ratio: "Spread | None") -> bool:
        """Say whether a row with these figures keeps to it."""
        reached = ratio if self.unit == "ratio" else value
        if reached is None:
            return False
        return reached.median >= self.limit if self.at_least else reached.median <= self.limit

    def __str__(self) -> str:
        unit = {"ratio": "×", "microseconds": " µs"}.get(self.unit, f" {self.unit}")
        return f"{'≥ ' if self.at_least else ''}{self.limit:g}{unit}"


@dataclass(frozen=True)
class Case:
    """Contestants for one task, ours first; ratios are to the one named ``reference``."""

    task: str
    contestants: Sequence[Contestant]
    reference: str
    rounds: int
    budget: Budget | None = None


@dataclass(frozen=True)
class Spread:
    """First quartile, median and third quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) == 1:  # in haste
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        digits = 2 if self.median < 100 else 0
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


@dataclass(frozen=True)
class Row:
    """One contestant's result; ``met`` is None where there is no budget.

    ``ratio`` is None where the reference was zero in a round.
    """

    task: str
    contestant: str
    value: Spread
    ratio: Spread | None
    reference: str
    rounds: int
    operations: int
    unit: str = "µs"
    budget: Budget | None = None
    met: bool | None = None


@dataclass
class Report:
    """What the parts found: rows, and why a contestant was left out. ``short`` asks for haste.

    ``notes`` are what a reader of the figures has to know. ``only`` is part of the names of the
    tasks that are wanted, for parts that can leave others out.
    """

    short: bool
    only: str = ""
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def rounds(self, full: int) -> int:
        """Return how many rounds to measure where a full run has ``full``."""
        return max(5, full // 5) if self.short else full

    def measure(self, case: Case) -> None:
        """Run a case and add its rows."""
        self.rows.extend(measure(case))

    def compare(
        self,
        task: str,
        unit: str,
        samples: dict[str, list[float]],
        reference: str,
        budget: Budget | None = None,
    ) -> None:
        """Add rows for what was measured elsewhere in turns: a value for each round, ours first."""
        for number, (name, values) in enumerate(samples.items()):
            own = budget if number == 0 else None
            self.rows.append(_row(task, name, values, samples[reference], reference, unit, own))

    @property
    def missed(self) -> list[Row]:
        """The rows over their budget."""
        return [row for row in self.rows if row.met is False]


def measure(case: Case) -> list[Row]:
    """Run all rounds of a case, after one that does not count."""
    times: dict[str, list[float]] = {one.name: [] for one in case.contestants}
    for number in range(case.rounds + 1):
        turn = number % len(case.contestants)
        for one in (*case.contestants[turn:], *case.contestants[:turn]):
            taken = _timed(one)
            if number:
                times[one.name].append(taken)
    return [
        _row(
            case.task,
            one.name,
            times[one.name],
            times[case.reference],
            case.reference,
            "µs",
            case.budget if one is case.contestants[0] else None,
            operations=one.operations,
        )
        for one in case.contestants
    ]


def _timed(one: Contestant) -> float:
    """Return microseconds per operation, without the pauses of the garbage collector."""
    thunk = one.prepare()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter_ns()
        thunk()
        taken = time.perf_counter_ns() - start
    finally:
        if was_enabled:
            gc.enable()
    return taken / 1000 / one.operations


def _row(
    task: str,
    name: str,
    values: list[float],
    others: list[float],
    reference: str,
    unit: str,
    budget: Budget | None,
    *,
    operations: int = 1,
) -> Row:
    value = Spread.of(values)
    ratio = None
    if all(others):
        ratio = Spread.of([mine / other for mine, other in zip(values, others, strict=True)])
    return Row(
        task,
        name,
        value,
        ratio,
        reference,
        len(values),
        operations,
        unit,
        budget,
        None if budget is None else budget.is_met(value, ratio),
    )
