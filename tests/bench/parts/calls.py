"""Calls on this machine's loopback: delay, what encryption adds, how soon a call is there.

"quick" is about how soon a picture is there, with plain aiortc through coturn to compare with;
"delay" about mouth and ear; "encryption" about what SFrame adds, counted in its calls, and compared
with our own pipeline without it, which exists in a process of this benchmark alone.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import anyio

from tests.bench.calls import material
from tests.bench.calls.rows import Network
from tests.bench.calls.stage import CallError, Outcome, place_call
from tests.bench.harness import Budget, Report
from tests.bench.media.servers import Server, StartError, coturn, our_relay
from tests.bench.media.usage import Others, preferred
from tests.network.link import Conditions

ROUNDS: Final = 5
SHORT: Final = Network("loopback", Conditions(), seconds=1.5)
"""For what is over when the first picture is there."""
LONG: Final = Network("loopback", Conditions(), seconds=8.0)


def run(report: Report) -> None:
    """Measure all of it that was asked for."""
    if not sys.platform.startswith("linux"):
        report.skipped.append("the CPU time of a child is read as on Linux")
        return
    others = Others()
    with preferred(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        material.make(folder)
        relay = stack.enter_context(our_relay(None))
        if report.only in "quick":
            try:
                other = stack.enter_context(coturn(None))
            except StartError as error:
                report.skipped.append(f"how soon a picture is there: {error}")
            else:
                _quick(report, relay, other, folder)
        if report.only in "delay":
            _delay(report, relay, folder)
        if report.only in "encryption":
            _encryption(report, relay, folder)
    busy, stolen = others.share()
    report.notes.append(
        f"meanwhile other programs took {busy:.0%} of the machine's time and other machines "
        f"{stolen:.0%}"
    )


def _rounds(report: Report) -> int:
    return 2 if report.short else ROUNDS


def _in_turns(
    rounds: int, contestants: dict[str, Callable[[], Outcome]]
) -> dict[str, list[Outcome]]:
    """Run each contestant once in each round, in an order that rotates."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            outcomes[name].append(contestants[name]())
    return outcomes


def _call(name: str, server: Server, about: Network, folder: Path) -> Outcome:
    (pair,) = server.tickets(1)
    host, port = server.address
    uri = f"turn:{host}:{port}?transport=udp"
    try:
        return anyio.run(place_call, name, about, folder, uri, pair)
    except CallError as error:
        # Rounds are compared as pairs: figures with one missing are none.
        sys.exit(f"e2ecall: error: {name}, {about.name}: {error}")


def _quick(report: Report, relay: Server, other: Server, folder: Path) -> None:
    outcomes = _in_turns(
        2 * _rounds(report),
        {
            "e2ecall": lambda: _call("e2ecall", relay, SHORT, folder),
            "aiortc, coturn": lambda: _call("aiortc", other, SHORT, folder),
        },
    )
    samples = {name: [one.setup for one in values] for name, values in outcomes.items()}
    task = "quick: accepted to first picture"
    report.compare(task, "ms", samples, "aiortc, coturn", Budget.ratio(1.3))


def _delay(report: Report, relay: Server, folder: Path) -> None:
    outcomes = _in_turns(
        _rounds(report),
        {
            name: lambda name=name: _call(name, relay, LONG, folder)  # type: ignore[misc]
            for name in ("e2ecall", "aiortc")
        },
    )
    for task, field, budget in (
        ("delay: mouth to ear", "mouth_to_ear", Budget(120.0, "ms")),
        ("delay: lens to eye", "lens_to_eye", None),
    ):
        samples = {
            name: [float(getattr(one.figures, field)) for one in values]
            for name, values in outcomes.items()
        }
        report.compare(task, "ms", samples, "aiortc", budget)


def _encryption(report: Report, relay: Server, folder: Path) -> None:
    counted = [_call("SFrame", relay, LONG, folder).sframe for _ in range(_rounds(report))]
    for task, unit, limit, place in (
        ("encryption: CPU of SFrame at an end", "points", 1.5, 0),
        ("encryption: CPU of SFrame for a frame", "ms", 1.0, 1),
    ):
        values = [one[place] / (2 if place == 0 else 1) for one in counted]
        report.compare(task, unit, {"e2ecall": values}, "e2ecall", Budget(limit, unit))
    outcomes = _in_turns(
        2 * _rounds(report),
        {
            name: lambda name=name: _call(name, relay, LONG, folder)  # type: ignore[misc]
            for name in ("e2ecall", "without SFrame")
        },
    )
    for task, unit, values in (
        ("encryption: CPU of an end", "points", lambda one: one.cpu / 2),
        ("encryption: lens to eye", "ms", lambda one: one.figures.lens_to_eye),
    ):
        samples = {name: [values(one) for one in those] for name, those in outcomes.items()}
        report.compare(task, unit, samples, "without SFrame")
        added = [a - b for a, b in zip(*samples.values(), strict=True)]
        # Without a budget: its quartiles are further apart than that, unless a machine is alone.
        report.compare(f"{task}, added", unit, {"e2ecall": added}, "e2ecall")
