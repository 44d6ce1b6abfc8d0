"""What the parts of one client share: its store, its account, its sessions, its tasks.

Values only, and how lines to relays are opened with them.
"""

import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio.abc import TaskGroup

from e2ecall.client.account import Account
from e2ecall.client.calllink import AnonymousLine, CallLink
from e2ecall.client.sessions import Sessions
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.store import Store
from relay.wire.names import Address


@dataclass(frozen=True, slots=True)
class Services:
    """Shared by the parts of one client for as long as it is open."""

    store: Store
    endpoint: RelayEndpoint
    """The own relay."""
    tls: ssl.SSLContext
    clock: Callable[[], float]
    """The time of day in Unix seconds; it can be set, forward and back."""
    steady: Callable[[], float]
    """Seconds since some moment, which nobody can set: what deadlines of calls are counted by."""
    tasks: TaskGroup
    account: Account
    sessions: Sessions

    def endpoint_of(self, address: Address) -> RelayEndpoint:
        """Return where the relay of an address is."""
        if address.relay == self.endpoint.name:
            return self.endpoint
        return RelayEndpoint.of_name(address.relay)

    async def open_link(self, peer: Address, *, at: RelayEndpoint) -> CallLink:
        """Open a call's line with ``peer`` at the callee's relay; `CallLink.close` ends it.

        Raises:
            ConnectionFailedError: the relay cannot be reached.
        """
        link = CallLink(self.sessions, at, self.tls, peer)
        await self.tasks.start(link.run)
        return link

    @asynccontextmanager
    async def anonymous_line(self, address: Address) -> AsyncIterator[AnonymousLine]:
        """Hold an anonymous line to the relay of ``address``; raises as `open_link`."""
        line = AnonymousLine(self.sessions, self.endpoint_of(address), self.tls)
        await self.tasks.start(line.run)
        try:
            yield line
        finally:
            line.close()


def steady_seconds() -> float:
    """Return seconds that nobody sets; they go on while the machine sleeps, where it can tell."""
    if sys.platform == "win32":
        return time.monotonic()
    # On macOS the plain one does not stop; on Linux that is another one.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
