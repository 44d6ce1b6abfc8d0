"""The core's routes, kept in step with the forwarding table (spec/turn.md TURN-35).

Only routes between UDP clients are in the table; others are for the control process to follow. It
starts no worker.
"""

import os
import secrets
import time
from types import TracebackType
from typing import Self

from relay.io.datagram import Clock
from relay.io.media.memory import open_shared
from relay.io.media.names import encode_name
from relay.io.media.routetable import RouteWriter, route_key, table_size
from relay.turn.routes import Route, RouteKey


class SharedRoutes:
    """A `RouteObserver` over a table in memory without a name. Use it as a context manager.

    Routes beyond ``records`` are not in it, so that their packets take the slow path.
    """

    def __init__(self, *, listeners: int, records: int, bandwidth: int, clock: Clock) -> None:
        """Make an empty table for so many UDP listeners; ``clock`` is the core's.

        ``bandwidth`` is in bytes a second, as in `relay.turn.limits`.
        """
        self.records = records
        self._listeners = listeners
        # The table's times are those of the monotonic clock, which all processes have in common.
        # Read first, so that a pause in between makes routes end too early and not too late.
        began = time.monotonic()
        self._offset = clock() - began
        size = table_size(records)
        self.descriptor, self._memory = open_shared("e2ecall-routes", size, read_only=True)
        self._writer = RouteWriter(self._memory, records, secrets.token_bytes(32))
        self._writer.set_rate(bandwidth)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        self._memory.close()
        os.close(self.descriptor)

    def __len__(self) -> int:
        return len(self._writer)

    def set_bandwidth(self, bandwidth: int) -> None:
        """Change the bytes a second that an allocation may send, from now on."""
        self._writer.set_rate(bandwidth)

    def publish(self, key: RouteKey, route: Route) -> None:
        """Take a route into the table, if both its ends are on UDP and there is room."""
        (listener, sender), number = key
        receiving, receiver = route.receiver
        if max(listener, receiving) < self._listeners:
            name = encode_name(receiver)
            until = route.until - self._offset
            table_key = route_key(listener, encode_name(sender), number)
            self._writer.publish(table_key, until, receiving, name, route.number)

    def withdraw(self, key: RouteKey) -> None:
        """Take a route out of the table; no datagram that arrives from now on follows it."""
        (listener, sender), number = key
        if listener < self._listeners:
            self._writer.withdraw(route_key(listener, encode_name(sender), number))
