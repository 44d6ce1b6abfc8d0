"""The highest rate without loss: of each server on one core, and of the generator alone.

Here bursts go out as trains (UDP_SEGMENT), or the generator would be at its end before a fast
server is. A server that asks its kernel for UDP_GRO could gain by that; a network card that puts
trains together gives the same.
"""

from dataclasses import dataclass

from tests.bench.harness import Budget, Report
from tests.bench.media.generator import Generator, generator
from tests.bench.media.servers import Server, echo
from tests.bench.media.stage import Stage
from tests.bench.media.traffic import Plan

LOSS_FREE = 0.0001
ACHIEVED = 0.97
"""The part of a rate that the generator has to reach for the trial to count."""

CEILING, STEP = 400_000, 1.4
PAIRS, BURST, SIZE = 100, 4, 1_000


@dataclass(frozen=True)
class Search:
    """From which rate it goes up, how long each trial takes, how often the step is halved."""

    first: int
    seconds: float
    halvings: int
    rounds: int


FULL = Search(20_000, 1.0, 3, 3)
SHORT = Search(40_000, 0.3, 2, 2)
FULL_ECHO = Search(80_000, 1.0, 3, 3)
SHORT_ECHO = Search(80_000, 0.3, 1, 1)


def loss_free(stage: Stage) -> None:
    """Search for each server."""
    task = f"highest rate without loss, {PAIRS} pairs, bursts of {BURST}, {SIZE} B"
    if not stage.wants(task):
        return
    search = SHORT if stage.report.short else FULL
    limits: dict[str, set[bool]] = {server.name: set() for server in stage.servers}

    def measure(server: Server) -> float:
        rate, limited = _highest(stage.generator(server, PAIRS), search, trains=True)
        limits[server.name].add(limited)
        return rate

    values = stage.in_turns(measure, search.rounds)
    stage.compare(task, "/s", values, Budget.ratio(1.5, at_least=True))
    for name, limited in limits.items():
        if True in limited:
            stage.report.notes.append(
                f"{task}: {name} lost nothing at the most that the generator can send; "
                "its own limit is higher"
            )


def generator_alone(report: Report, cores: list[int]) -> None:
    """Search with a server that sends everything back at once."""
    task = "highest rate of the generator without loss, against an echo"
    if report.only not in task:
        return
    search = SHORT_ECHO if report.short else FULL_ECHO
    with echo(cores[-1]) as server, generator(server, cores[0]) as load:
        load.echoed(2 * PAIRS)
        values: dict[str, list[float]] = {"single packets": [], "trains": []}
        for _ in range(search.rounds):
            for name, found in values.items():
                found.append(_highest(load, search, trains=name == "trains")[0])
    report.compare(task, "/s", values, "single packets")


def _highest(load: Generator, search: Search, *, trains: bool) -> tuple[float, bool]:
    """Return the highest rate at which nothing was lost, and whether the generator set it."""
    good, bad, limited = 0.0, float(CEILING), False
    rate = float(search.first)
    while search.first / 10 < rate < CEILING:
        achieved, lossless, reached = _trial(load, int(rate), search.seconds, trains=trains)
        if lossless and reached:
            good = achieved
        else:
            bad, limited = rate, lossless
        if bad < CEILING and bad / max(good, 1) < 1 + (STEP - 1) / 2**search.halvings:
            break
        rate = rate * STEP if bad == CEILING else (good + bad) / 2
    return good, limited


def _trial(load: Generator, rate: int, seconds: float, *, trains: bool) -> tuple[float, bool, bool]:
    """Try a rate, twice if need be: one disturbance by something else shall not end a search."""
    for _ in range(2):
        outcome = load.run(Plan(rate, BURST, SIZE, seconds, warm=0.1, trains=trains))
        lossless = outcome.loss <= LOSS_FREE
        reached = outcome.achieved >= ACHIEVED * rate
        if lossless and reached:
            break
    return outcome.achieved, lossless, reached
