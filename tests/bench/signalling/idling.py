"""What connections cost that do nothing but be there: memory, and CPU for the pings."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.harness import Budget, Report
from tests.bench.media import usage
from tests.bench.media.holding import KILOBYTES
from tests.bench.signalling.generator import generator
from tests.bench.signalling.servers import Target, relay

FIRST = 100
"""Connections before the count begins: what a relay takes once, it takes for these."""
MEMORY_BUDGET = 30.0
PING_SECONDS = 20
"""In which each connection is pinged once."""
NAMES = {False: "without TLS", True: "with TLS"}


def idling(report: Report, core: int, own: int) -> None:
    """Hold many logged-in connections, without TLS and with it."""
    task = "memory of an idle connection"
    if report.only not in task:
        return
    count = 1_000 if report.short else 5_000
    memory: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    for tls, name in NAMES.items():
        memory[name], cpu[name] = [], []
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            # The accounts are made by another process than the one that is measured.
            with relay(name, core, tls=tls, folder=folder) as made:
                load = stack.enter_context(generator(made, own))
                load.ask("register", count=count + FIRST, at_once=32)
                ports = [node.port for node in made.nodes]
            target = stack.enter_context(relay(name, core, tls=tls, folder=folder, ports=ports))
            load.hold(FIRST)
            before = _memory(target)
            load.hold(count)
            memory[name].append((_memory(target) - before) / count)
            cpu[name].append(_idle_cpu(target, PING_SECONDS))
    first = NAMES[False]
    budget = Budget(MEMORY_BUDGET, KILOBYTES)
    title = f"{task}, {count} of them"
    report.compare(title, KILOBYTES, memory, first, budget)
    report.compare(f"part of a core for {count} of them", "%", cpu, first)


def _memory(target: Target) -> float:
    return usage.memory(target.pids) / 1024


def _idle_cpu(target: Target, seconds: float) -> float:
    used = usage.cpu_time(target.pids)
    time.sleep(seconds)
    return (usage.cpu_time(target.pids) - used) / 1e9 / seconds * 100
