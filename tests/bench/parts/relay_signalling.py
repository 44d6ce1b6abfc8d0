"""The signalling relay, alone and beside Prosody: envelopes, requests, calls, idle connections.

Servers and generators are processes of their own. The generator has a core to itself where there
are two; one server has traffic at a time, in turns. What the figures mean: spec/decisions/0028.
"""

import os
import sys
from contextlib import ExitStack

from tests.bench.harness import Report
from tests.bench.media.servers import StartError
from tests.bench.media.usage import Others, preferred
from tests.bench.signalling import requests, throughput
from tests.bench.signalling.generator import generator
from tests.bench.signalling.idling import idling
from tests.bench.signalling.servers import Target, postgres, prosody, relay
from tests.bench.signalling.throughput import PAIRS, Contestant


def run(report: Report) -> None:
    """Measure all of it."""
    if not sys.platform.startswith("linux"):
        report.skipped.append("the figures of processes come from /proc, which is Linux's")
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        report.notes.append("one core: server and generator share it, which distorts all figures")
    others = Others()
    with preferred() as is_preferred:
        if any(report.only in task for task in (*throughput.TASKS.values(), *requests.TASKS)):
            _measure(report, cores[-1], cores[0])
        idling(report, cores[-1], cores[0])
    busy, stolen = others.share()
    report.notes.append(
        f"meanwhile other programs took {busy:.0%} of the machine's time and other machines "
        f"{stolen:.0%}" + ("" if is_preferred else "; root could have kept them off")
    )


def _measure(report: Report, core: int, own: int) -> None:
    with ExitStack() as stack:
        targets = [stack.enter_context(relay("e2ecall, SQLite", core))]
        try:
            cluster = stack.enter_context(postgres())
        except StartError as error:
            report.skipped.append(str(error))
        else:
            targets += [
                stack.enter_context(
                    relay(f"e2ecall, PostgreSQL, {text}", core, dsn=cluster.database(), nodes=nodes)
                )
                for nodes, text in ((1, "one node"), (2, "two nodes"))
            ]
        ours = [_contestant(stack, target, own) for target in targets]
        theirs = []
        try:
            for name, archives in (("passes on", False), ("archives in SQLite", True)):
                server = prosody(f"Prosody, {name}", core, users=PAIRS, archives=archives)
                theirs.append(_contestant(stack, stack.enter_context(server), own))
        except StartError as error:
            report.skipped.append(f"the comparison: {error}")
        throughput.measure(report, [*ours, *theirs])
        requests.measure(report, ours)
        busiest = max(one.generator.busiest for one in (*ours, *theirs))
        report.notes.append(f"the generator used at most {busiest:.0%} of its core")


def _contestant(stack: ExitStack, target: Target, core: int) -> Contestant:
    return Contestant(target.name, stack.enter_context(generator(target, core)))
