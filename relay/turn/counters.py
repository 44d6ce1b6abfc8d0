"""What the TURN server counts (spec/turn.md TURN-60): numbers only, nothing that names anybody.

Whoever exports them calls `Counters.current` and reads the attributes; gauges and totals since
the start.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final, Self

BATCH_CLASSES: Final = 7
"""Batches of 1, 2, 3-4, 5-8, 9-16, 17-32, 33-64 datagrams: ``(n - 1).bit_length()``."""


@unique
class Drop(StrEnum):
    """Why a datagram was answered with nothing."""

    NOT_STUN = "not_stun"
    MALFORMED = "malformed"
    UNEXPECTED = "unexpected"
    """Responses, unknown methods, indications that only servers send."""
    UNKNOWN_ATTRIBUTE = "unknown_attribute"
    NO_ALLOCATION = "no_allocation"
    NO_CHANNEL = "no_channel"
    NO_PERMISSION = "no_permission"
    FOREIGN_PEER = "foreign_peer"
    """Data for an address that is no live allocation of the same ticket."""
    PEER_NOT_READY = "peer_not_ready"
    """Data for an allocation that has no permission for the sender."""
    BANDWIDTH = "bandwidth"
    """The allocation sends more than it may."""
    BUSY = "busy"
    """The process that decides took no more of them."""
    SEND_FAILED = "send_failed"
    """The socket did not take it: its buffer is full, or the destination is unreachable."""
    INTERNAL = "internal"
    """An error of this program; the log has it."""


@dataclass(slots=True)
class Counters:
    """Counted by the core; packets, bytes, batches and restarts by who has the sockets."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    forwarded: int = 0
    """Datagrams passed from one allocation to another."""
    connections: int = 0
    """Over TCP and TLS, open now."""
    connections_refused: int = 0
    """As there were too many, from one source or in all."""
    connections_timed_out: int = 0
    """Without an allocation, or with a frame or answer that took too long."""
    allocations: int = 0
    """Live now."""
    allocations_created: int = 0
    unauthenticated: int = 0
    """401 responses."""
    stale_nonces: int = 0
    """438 responses."""
    refused: int = 0
    """All other error responses."""
    worker_restarts: int = 0
    """Forwarding processes that ended by themselves and were started anew."""
    batches: list[int] = field(default_factory=lambda: [0] * BATCH_CLASSES)
    """How many wake-ups received so many datagrams, in classes of powers of two."""
    drops: dict[Drop, int] = field(default_factory=lambda: dict.fromkeys(Drop, 0))
    collectors: list[Callable[[], None]] = field(default_factory=list)
    """Each brings in what was counted elsewhere since it was called last."""

    def current(self) -> Self:
        """Return the counters, up to date with all processes."""
        for collect in self.collectors:
            collect()
        return self
