"""What a callee sees and hears over bad networks, with e2ecall and with plain aiortc.

Both call through the same relay, between the same three hosts (`tests.network`), in turns; see
`tests.bench.calls.rows` for the networks and `tests.bench.calls.judge` for the figures. The full
form takes half an hour: ``ONLY=`` takes the lines whose names have a text.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

from tests.bench.calls import material
from tests.bench.calls.judge import Figures
from tests.bench.calls.rows import NETWORKS, SHORT, Network
from tests.bench.calls.stage import CallError, place_call, tickets, turn_relay
from tests.bench.calls.versus import LIPS, METRICS, compare
from tests.bench.harness import Report
from tests.bench.media.usage import Others, preferred
from tests.network.bed import network

RUNS: Final = 3
_ATTEMPTS: Final = 2
"""A call that does not come about over a lossy network is tried once more, and told."""


def run(report: Report) -> None:
    """Measure every network that was asked for."""
    missing = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
    if os.name != "posix" or os.geteuid() != 0 or missing:
        report.skipped.append(f"network namespaces need Linux, root and iproute2 {missing or ''}")
        return
    wanted = [one for one in NETWORKS if report.only in one.name]
    if report.short and not report.only:
        wanted = [one for one in NETWORKS if one.name in SHORT]
    others = Others()
    with preferred(), tempfile.TemporaryDirectory() as folder:
        material.make(Path(folder))
        anyio.run(_measure, report, wanted, Path(folder))
    busy, stolen = others.share()
    report.notes.append(
        f"meanwhile other programs took {busy:.0%} of the machine's time and other machines "
        f"{stolen:.0%}"
    )


async def _measure(report: Report, wanted: Sequence[Network], folder: Path) -> None:
    names = ["e2ecall", "aiortc"]
    for about in wanted:
        figures: dict[str, list[Figures]] = {name: [] for name in names}
        # A namespace of its own for each line: no queue of one is left for the next.
        async with network("bench") as hosts, turn_relay(hosts) as relay:
            for number in range(1 if report.short else RUNS):
                turn = number % len(names)
                for name in (*names[turn:], *names[:turn]):
                    for attempt in range(_ATTEMPTS):
                        try:
                            pair = await tickets(relay[1])
                            one = await place_call(name, about, folder, relay[0], pair, hosts)
                        except (CallError, ValueError, TimeoutError) as error:
                            report.notes.append(f"{about.name}, {name}, try {attempt + 1}: {error}")
                        else:
                            figures[name].append(one.figures)
                            break
        for metric in (*METRICS, LIPS):
            samples = {
                name: [float(getattr(one, metric.field)) for one in values]
                for name, values in figures.items()
            }
            compare(report, about, metric, samples)
