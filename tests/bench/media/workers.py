"""Two workers against one: what a packet costs when processes share the forwarding.

One worker has a core of its own, two have both cores, of which the generator uses one as well; it
sleeps while nothing is due, so that they need not fight for it.
"""

import os
from contextlib import ExitStack

from tests.bench.harness import Budget, Report
from tests.bench.media.forwarding import FULL_SECONDS, SHORT_SECONDS, Scenario, cpu_per_packet
from tests.bench.media.servers import Server, StartError, our_relay
from tests.bench.media.stage import Stage
from tests.bench.media.traffic import Plan

SCENARIOS = (Scenario(60_000), Scenario(60_000, burst=1))
LIMIT = 1.1


def two(report: Report, cores: list[int]) -> None:
    """Measure one worker and two in turns."""
    tasks = {f"CPU a packet, two workers against one, {one}": one for one in SCENARIOS}
    wanted = {task: one for task, one in tasks.items() if report.only in task}
    if report.short:
        wanted = dict(list(wanted.items())[:1])
    if not wanted:
        return
    with ExitStack() as stack:
        try:
            pair = stack.enter_context(our_relay(None, workers=2))
        except StartError as error:
            report.skipped.append(f"two workers: {error}")
            return
        for number, pid in enumerate(pair.pids[1:]):
            os.sched_setaffinity(pid, {cores[number % len(cores)]})
        servers = [pair, stack.enter_context(our_relay(cores[-1]))]
        stage = stack.enter_context(Stage(report, servers, cores[0]))
        seconds = SHORT_SECONDS if report.short else FULL_SECONDS
        for task, one in wanted.items():
            plan = Plan(one.rate, one.burst, one.size, seconds, naps=True)

            def measure(server: Server, plan: Plan = plan, pairs: int = one.pairs) -> float:
                return cpu_per_packet(stage.run(server, pairs, plan))

            stage.compare(task, "µs", stage.in_turns(measure), Budget.ratio(LIMIT))
