"""Does a client that calls for long, or often, stay as it is?

"calls": 200 calls in a row (``BENCH=short``: 20); "minutes": one of 30 minutes (short: two), with
its changes of keys. Both ends send sound and picture. What they hold is compared between the second
and the last quarter; the first is for what is loaded and pooled once.
"""

import sys
from typing import Final

import anyio

from tests.bench.calls.lasting import Held, calls_in_a_row, growth, one_call
from tests.bench.harness import Budget, Report

CALLS: Final = 200
MINUTES: Final = 30
MEGABYTE: Final = 1_000_000
SLACK: Final = Held(memory=8.0, descriptors=2.0, threads=2.0)
"""What may be different between two moments: megabytes of arenas, a socket that is closing."""


def run(report: Report) -> None:
    """Run both, or the one that was asked for."""
    if not sys.platform.startswith("linux"):
        report.skipped.append("what a process holds is read as on Linux")
        return
    calls = CALLS // 10 if report.short else CALLS
    seconds = 60 * (2 if report.short else MINUTES)
    if report.only in "calls":
        _tell(report, f"{calls} calls", anyio.run(calls_in_a_row, calls))
    if report.only in "minutes":
        _tell(report, f"{seconds // 60} minutes", anyio.run(one_call, float(seconds)))


def _tell(report: Report, task: str, held: tuple[list[Held], list[Held]]) -> None:
    for name, values in zip(("caller", "callee"), held, strict=True):
        grown, last = growth(values), values[-1]
        for what, unit, grows, limit in (
            ("memory", "MB", grown.memory / MEGABYTE, SLACK.memory),
            ("descriptors", "more", grown.descriptors, SLACK.descriptors),
            ("threads", "more", grown.threads, SLACK.threads),
        ):
            report.compare(
                f"{task}, {name}: growth of {what}",
                unit,
                {name: [grows]},
                name,
                Budget(limit, unit),
            )
        report.notes.append(
            f"{task}, {name}: at the end {last.memory / MEGABYTE:.0f} MB, "
            f"{last.descriptors:.0f} descriptors, {last.threads:.0f} threads"
        )
