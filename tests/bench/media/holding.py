"""What allocations cost: memory while they idle, and time to make and release them."""

import itertools

from tests.bench.harness import Budget
from tests.bench.media import usage
from tests.bench.media.servers import Pair, Server
from tests.bench.media.stage import Stage

PAIRS = 100
KILOBYTES = "KB"
MEMORY_BUDGET = 4.0


def allocations(stage: Stage) -> None:
    """Make and release allocations, 64 requests at a time: how many a second, for how much CPU."""
    task = "allocations made and released a second"
    if not stage.wants(task):
        return
    seconds = 0.5 if stage.report.short else 2.0
    tickets: dict[str, list[Pair]] = {
        server.name: server.tickets(PAIRS) for server in stage.servers
    }
    cpu: dict[str, list[float]] = {server.name: [] for server in stage.servers}

    def measure(server: Server) -> float:
        done = stage.generator(server, 0).cycles(tickets[server.name], seconds)
        cpu[server.name].append(done.usage / 1000 / done.allocations)
        return done.allocations / done.seconds

    values = stage.in_turns(measure)
    stage.compare(task, "/s", values)
    stage.compare("CPU to make and release an allocation", "µs", cpu)


def memory_of(server: Server) -> float:
    """Return kilobytes (1024 bytes) that a server occupies now."""
    return usage.memory(server.pids) / 1024


def memory(stage: Stage) -> None:
    """Add allocations with a channel each, again and again, and see what they add."""
    task = "memory of an idle allocation with its channel"
    if not stage.wants(task):
        return
    pairs = 250 if stage.report.short else 500

    rounds = stage.rounds
    tickets = {server.name: iter(server.tickets(pairs * (rounds + 1))) for server in stage.servers}

    def measure(server: Server) -> float:
        load = stage.generator(server, 0)
        before = memory_of(server)
        load.add(list(itertools.islice(tickets[server.name], pairs)))
        return (memory_of(server) - before) / (2 * pairs)

    stage.in_turns(measure, 1)  # what a server takes once, it takes now
    stage.compare(task, KILOBYTES, stage.in_turns(measure), Budget(MEMORY_BUDGET, KILOBYTES))
