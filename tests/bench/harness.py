"""Measures contestants in turns and keeps quartiles; knows nothing of what they do.

In each round every contestant runs once, in an order that rotates, so that whatever else the
machine does falls on all of them. Ratios are taken within a round, against the reference.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Thunk = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """``prepare``, untimed, gives what is timed: a call that does ``operations`` operations."""

    name: str
    prepare: Callable[[], Thunk]
    operations: int = 1


@dataclass(frozen=True)
class Budget:
    """What a median must not exceed: microseconds, or a multiple of the reference."""

    limit: float
    unit: str

    @classmethod
    def ratio(cls, limit: float) -> "Budget":
        return cls(limit, "ratio")

    @classmethod
    def microseconds(cls, limit: float) -> "Budget":
        return cls(limit, "microseconds")

    def __str__(self) -> str:
        return f"{self.limit:g}×" if self.unit == "ratio" else f"{self.limit:g} µs"


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
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        digits = 2 if self.median < 100 else 0
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


@dataclass(frozen=True)
class Row:
    """One contestant's result; ``met`` is None where there is no budget."""

    task: str
    contestant: str
    microseconds: Spread
    ratio: Spread
    reference: str
    rounds: int
    operations: int
    budget: Budget | None = None
    met: bool | None = None


@dataclass
class Report:
    """What the parts found: rows, and why a contestant was left out. ``short`` asks for haste."""

    short: bool
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def rounds(self, full: int) -> int:
        """Return how many rounds to measure where a full run has ``full``."""
        return max(5, full // 5) if self.short else full

    def measure(self, case: Case) -> None:
        """Run a case and add its rows."""
        self.rows.extend(measure(case))

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
    reference = times[case.reference]
    return [_row(case, one, times[one.name], reference) for one in case.contestants]


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


def _row(case: Case, one: Contestant, taken: list[float], reference: list[float]) -> Row:
    microseconds = Spread.of(taken)
    ratio = Spread.of([mine / other for mine, other in zip(taken, reference, strict=True)])
    budget, met = None, None
    if case.budget is not None and one is case.contestants[0]:
        budget = case.budget
        reached = ratio if budget.unit == "ratio" else microseconds
        met = reached.median <= budget.limit
    shared: dict[str, Any] = {"reference": case.reference, "rounds": case.rounds}
    return Row(
        case.task,
        one.name,
        microseconds,
        ratio,
        operations=one.operations,
        budget=budget,
        met=met,
        **shared,
    )
