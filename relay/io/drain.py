"""How a relay stops (relay/README.md, Operation): nobody new, everybody told, calls to their end.

Signalling goes first and quickly. Media goes on for as long as a call runs, within a bound.
"""

from typing import Final

import structlog
import trio

from relay.io.node import Node
from relay.io.operation import Orders
from relay.io.signalling import Signalling

log = structlog.get_logger()

STOP_SECONDS: Final = 8.0
"""How long connections may take to close."""
RECONNECT_DELAY_MS: Final = 5_000
"""Clients wait up to that long, at random, before they come back; longer where they are many."""
MS_PER_CLIENT: Final = 5
"""Spreads log-ins to 200 a second."""
MAX_DELAY_MS: Final = 600_000
QUIET_SECONDS: Final = 4.0
"""A call sends sound 50 times a second: where nothing passed for so long there is none."""
LOOK_SECONDS: Final = 0.25


async def drain(node: Node, signalling: Signalling, orders: Orders, seconds: float) -> None:
    """Return when everybody left, or after ``seconds`` for the calls, or when told to hurry."""
    node.is_ready = False
    clients = len(signalling.sessions)
    log.info("draining", connections=clients, allocations=node.media().allocations)
    async with trio.open_nursery() as nursery:

        async def hurry() -> None:
            await orders.at_once.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(hurry)
        delay = min(MAX_DELAY_MS, max(RECONNECT_DELAY_MS, clients * MS_PER_CLIENT))
        with trio.move_on_after(STOP_SECONDS):
            await signalling.leave(delay)
        with trio.move_on_after(seconds) as bound:
            await _calls_end(node)
        if bound.cancelled_caught:
            log.warning("calls were still running", allocations=node.media().allocations)
        nursery.cancel_scope.cancel()
    log.info("stopped")


async def _calls_end(node: Node) -> None:
    before, since = node.media().forwarded, trio.current_time()
    while (media := node.media()).allocations:
        if media.forwarded != before:
            before, since = media.forwarded, trio.current_time()
        elif trio.current_time() - since >= QUIET_SECONDS:
            return
        await trio.sleep(LOOK_SECONDS)
