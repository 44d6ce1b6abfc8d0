"""TURN servers over both data planes, in the test's own process, with workers of their own."""

import contextlib
import os
from functools import partial
from pathlib import Path

import pytest
import trio

from relay.errors import TicketError
from relay.io.datagram import open_socket, serve_turn, steady_clock
from relay.io.media.plane import IS_AVAILABLE, open_group, serve_plane
from relay.io.media.sharedroutes import SharedRoutes
from relay.services import tickets
from relay.turn.limits import Limits
from relay.turn.server import TURNServer
from tests.relay.turnclients import SECRET

PLANES = ["portable", "one worker", "two workers"]
WORKERS = {"portable": 0, "one worker": 1, "two workers": 2}


def identify(username, now):
    try:
        return tickets.open_id(SECRET, username, now)
    except TicketError:
        return None


def children(pid):
    """Return the live children of a process; a dead one that was not waited for counts."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


class Server:
    """A running server: ``addresses`` of its listeners, ``pids`` of its workers."""

    def __init__(self, core, routes, groups, clock):
        self.core, self.routes, self.groups, self.clock = core, routes, groups, clock
        self.addresses = [group[0].getsockname() for group in groups]
        self.address = self.addresses[0]

    @property
    def counters(self):
        return self.core.counters.current()

    @property
    def pids(self):
        return sorted(pid for pid in children(os.getpid()) if b"media.worker" in command_line(pid))

    async def until(self, condition):
        """Wait for something that the server or the kernel will do."""
        with trio.fail_after(20):
            while not condition():  # noqa: ASYNC110 - nothing here tells
                await trio.sleep(0.01)


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


@contextlib.asynccontextmanager
async def serving(plane="one worker", hosts=("127.0.0.1",), records=1000, **limits):
    """Serve on loopback over a data plane; nothing is left when the block ends."""
    workers, clock, bounds = WORKERS[plane], steady_clock(), Limits(**limits)
    options = {
        "identify": identify,
        "password": partial(tickets.password, SECRET),
        "nonce_key": bytes(32),
        "limits": bounds,
    }
    if workers and not IS_AVAILABLE:
        pytest.skip("this machine has the portable loop only")
    with contextlib.ExitStack() as stack:
        if workers:
            groups = [open_group(host, 0, workers) for host in hosts]
            shared = SharedRoutes(
                listeners=len(hosts), records=records, bandwidth=bounds.bandwidth, clock=clock
            )
            routes = stack.enter_context(shared)
            core = TURNServer(**options)
            core.observe(routes)
            serve = partial(serve_plane, groups, core, routes, clock=clock)
        else:
            routes, groups = None, [[open_socket(host, 0)] for host in hosts]
            core = TURNServer(**options)
            serve = partial(serve_turn, [group[0] for group in groups], core, clock=clock)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield Server(core, routes, groups, clock)
            nursery.cancel_scope.cancel()
