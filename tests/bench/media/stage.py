"""Servers side by side, their generators, and who is measured when.

A generator belongs to one server and one number of pairs and stays for the whole run. In each round
every server is measured once, in an order that rotates.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from tests.bench.harness import Budget, Report
from tests.bench.media.generator import Generator, generator
from tests.bench.media.servers import Server
from tests.bench.media.traffic import Outcome, Plan

FULL_ROUNDS, SHORT_ROUNDS = 5, 3
LATE = 1_000
"""Microseconds at the 99th percentile by which the generator may miss its times."""


class Stage:
    """What the measurements run on; a context manager that ends the generators."""

    def __init__(self, report: Report, servers: list[Server], core: int) -> None:
        self.report, self.servers, self.core = report, servers, core
        self.rounds = SHORT_ROUNDS if report.short else FULL_ROUNDS
        self._stack = ExitStack()
        self._generators: dict[tuple[str, int], Generator] = {}
        self._lateness: list[tuple[float, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def reference(self) -> str:
        """The server that others are compared with."""
        return self.servers[-1].name

    def wants(self, task: str) -> bool:
        """Say whether a task was asked for."""
        return self.report.only in task

    def generator(self, server: Server, pairs: int) -> Generator:
        """Return the generator with so many pairs on this server; 0 has no clients yet."""
        key = (server.name, pairs)
        if key not in self._generators:
            new = self._stack.enter_context(generator(server, self.core))
            self._generators[key] = new
            if pairs:
                new.add(server.tickets(pairs))
        return self._generators[key]

    def in_turns(
        self, measure: Callable[[Server], float], rounds: int | None = None
    ) -> dict[str, list[float]]:
        """Measure each server in each round; return the values by its name."""
        values: dict[str, list[float]] = {server.name: [] for server in self.servers}
        for number in range(rounds or self.rounds):
            turn = number % len(self.servers)
            for server in (*self.servers[turn:], *self.servers[:turn]):
                values[server.name].append(measure(server))
        return values

    def run(self, server: Server, pairs: int, plan: Plan) -> Outcome:
        """Measure one server once and keep how well the generator did."""
        outcome = self.generator(server, pairs).run(plan)
        if outcome.wrong:
            raise AssertionError(f"{server.name}: {outcome.wrong} packets came wrong or twice")
        where = f"{plan.rate}/s in bursts of {plan.burst}, {plan.size} B, {server.name}"
        self._lateness.append((outcome.late, where))
        return outcome

    def compare(
        self,
        task: str,
        unit: str,
        values: dict[str, list[float]],
        budget: Budget | None = None,
    ) -> None:
        """Add rows; a ratio to coturn is no budget where there is no coturn."""
        alone = len(self.servers) == 1
        if budget is not None and budget.unit == "ratio" and alone:
            budget = None
        self.report.compare(task, unit, values, self.reference, budget)

    def note_generator(self) -> None:
        """Say how exactly the packets of all measurements were sent."""
        if not self._lateness:
            return
        worst, where = max(self._lateness)
        slow = sum(late > LATE for late, _ in self._lateness)
        self.report.notes.append(
            f"generator, on a core of its own: of {len(self._lateness)} measurements at fixed "
            f"rates {slow} had packets sent more than {LATE} µs late (99th percentile); "
            f"the worst was {worst:.0f} µs at {where}"
        )
