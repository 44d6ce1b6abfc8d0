"""How long a call is interrupted when its network fails: another address, the relay killed.

Caller, relay and callee are the real programs on three hosts (`tests.network`); every run is a call
of its own. A path counts as noticed when the program is told, and the call goes on when both ends
are told so and sound that was sent since has been decoded at both.
"""

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio

from tests.bench.harness import Budget, Report
from tests.bench.media.usage import Others, preferred
from tests.network.bed import Network, Relay, network, peers_at, relay_on
from tests.network.link import Conditions
from tests.network.test_call import decoded, talk

RUNS: Final = 5
PATIENCE: Final = 60.0
OTHER_ADDRESS: Final = "198.51.100.77"

NOTICED: Final = Budget(3.0, "s")
GOES_ON: Final = Budget(10.0, "s")

Fail = Callable[[Network, Relay], Awaitable[None]]


def run(report: Report) -> None:
    """Measure each way of failing that was asked for."""
    missing = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
    if os.name != "posix" or os.geteuid() != 0 or missing:
        report.skipped.append(f"network namespaces need Linux, root and iproute2 {missing or ''}")
        return
    others = Others()
    for name, fail in FAILURES.items():
        if report.only in name:
            with preferred():
                noticed, going = anyio.run(_measure, RUNS, fail)
            _tell(report, f"{name}: noticed", noticed, NOTICED)
            _tell(report, f"{name}: goes on", going, GOES_ON)
    busy, _ = others.share()
    report.notes.append(f"meanwhile other programs took {busy:.0%} of the machine's time")


def _tell(report: Report, task: str, values: list[float], budget: Budget) -> None:
    if values:
        report.compare(task, "s", {"e2ecall": values}, "e2ecall", budget)
        report.notes.append(f"{task} after {min(values):.2f} to {max(values):.2f} s")


async def _nothing_for_good(hosts: Network, relay: Relay) -> None:
    nothing = Conditions(outage=True)
    await hosts.shape("callee", up=nothing, down=nothing)


async def _another_address(hosts: Network, relay: Relay) -> None:
    await hosts.move("callee", OTHER_ADDRESS)


async def _relay_killed(hosts: Network, relay: Relay) -> None:
    await relay.kill()
    await relay.start()


FAILURES: Final[dict[str, Fail]] = {
    "nothing gets through": _nothing_for_good,
    "another address": _another_address,
    "relay killed and started again": _relay_killed,
}


async def _measure(runs: int, fail: Fail) -> tuple[list[float], list[float]]:
    """Return the seconds until each end noticed, and until the call went on."""
    noticed: list[float] = []
    going: list[float] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            async with (
                network("bench") as hosts,
                relay_on(hosts, Path(folder)) as relay,
                peers_at(relay, hosts, Path(folder), "trio") as peers,
            ):
                await talk(*peers)
                for peer in peers:
                    await decoded(peer, 50, 20)
                began = anyio.current_time()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(fail, hosts, relay)
                    for peer in peers:
                        tasks.start_soon(_notice, peer, began, noticed)
                if fail is not _nothing_for_good:
                    async with anyio.create_task_group() as tasks:
                        for peer in peers:
                            tasks.start_soon(_go_on, peer)
                    going.append(anyio.current_time() - began)
    return noticed, going


async def _notice(peer: Any, began: float, noticed: list[float]) -> None:
    await peer.event("Reconnecting", within=PATIENCE)
    noticed.append(anyio.current_time() - began)


async def _go_on(peer: Any) -> None:
    await peer.event("Reconnected", within=PATIENCE)
    before, _ = (await peer.do("stats"))["frames"]
    with anyio.fail_after(PATIENCE):
        while (await peer.do("stats"))["frames"][0] == before:  # noqa: ASYNC110 - it is asked
            await anyio.sleep(0.02)
