"""What a relay does besides mail: registrations, bundles, and the signalling of calls a second."""

from tests.bench.harness import Report
from tests.bench.signalling.asking import BATCH, Done
from tests.bench.signalling.throughput import Contestant

AT_ONCE = 32
ACCOUNTS = 20
FETCHES = 800
TASKS = ("registrations a second", "publications of prekeys", "bundles a second", "calls set up")
"""What these measurements are called; all of them belong together."""


def measure(report: Report, contestants: list[Contestant]) -> None:
    """Measure our relays; each task uses what the one before has made."""
    if not any(report.only in task for task in TASKS):
        return
    rounds, share = (2, 4) if report.short else (5, 1)
    # So many one-time keys that no bundle lacks one.
    each = BATCH + BATCH * -(-FETCHES * rounds // share // ACCOUNTS // BATCH)
    tasks = (
        (f"{TASKS[0]}, each on a new connection", "register", {"count": 500, "at_once": AT_ONCE}),
        (f"{TASKS[2]}, one-time keys of both kinds", "fetch", {
            "accounts": ACCOUNTS, "count": FETCHES, "at_once": AT_ONCE,
        }),
        (f"{TASKS[3]} a second: 5 envelopes, 2 boxes, 2 new connections", "calls", {
            "count": 200, "at_once": AT_ONCE,
        }),
    )  # fmt: skip
    for number, (task, what, arguments) in enumerate(tasks):
        if number == 1:
            _publish(report, contestants, each)
        done: dict[str, list[Done]] = {one.name: [] for one in contestants}
        for _ in range(rounds):
            for one in contestants:
                chosen = {**arguments, "count": arguments["count"] // share}
                done[one.name].append(one.generator.ask(what, **chosen))
        report.compare(task, "/s", _rates(done), contestants[0].name)


def _publish(report: Report, contestants: list[Contestant], each: int) -> None:
    done = {
        one.name: [one.generator.ask("publish", accounts=ACCOUNTS, each=each)]
        for one in contestants
    }
    task = f"{TASKS[1]} a second, {2 * BATCH} one-time keys in each"
    report.compare(task, "/s", _rates(done), contestants[0].name)


def _rates(done: dict[str, list[Done]]) -> dict[str, list[float]]:
    return {name: [one.rate for one in several] for name, several in done.items()}
