"""The media relay against coturn: packets, allocations, memory (spec/turn.md, design of the load
in `tests.bench.media.traffic`).

A forwarded packet is one that was delivered to the other client, whatever the server did with it
in between. Both servers run all the time on one core, the generator on another; only one of them
has traffic at a time, in turns.
"""

import os
import sys
from contextlib import ExitStack

from tests.bench.harness import Report
from tests.bench.media import holding, searching, workers
from tests.bench.media.forwarding import forwarding
from tests.bench.media.servers import StartError, coturn, our_relay
from tests.bench.media.stage import Stage
from tests.bench.media.usage import Others, preferred


def run(report: Report) -> None:
    """Measure all of it."""
    if not sys.platform.startswith("linux"):
        report.skipped.append("the load generator needs Linux (sendmmsg, recvmmsg, IP_PKTINFO)")
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        report.notes.append("one core: server and generator share it, which distorts all figures")
    others = Others()
    with preferred() as is_preferred:
        _measure(report, cores)
    busy, stolen = others.share()
    report.notes.append(
        f"meanwhile other programs took {busy:.0%} of the machine's time and other machines "
        f"{stolen:.0%}" + ("" if is_preferred else "; root could have kept them off")
    )


def _measure(report: Report, cores: list[int]) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(our_relay(cores[-1]))]
        try:
            servers.append(stack.enter_context(coturn(cores[-1])))
        except StartError as error:
            report.skipped.append(f"the comparison, and every budget that needs it: {error}")
        stage = stack.enter_context(Stage(report, servers, cores[0]))
        holding.memory(stage)  # first, while nothing was freed that could be used again
        forwarding(stage)
        searching.loss_free(stage)
        holding.allocations(stage)
        stage.note_generator()
    searching.generator_alone(report, cores)
    workers.two(report, cores)
