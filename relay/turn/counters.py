"""What the TURN server counts (spec/turn.md TURN-60): numbers only, nothing that names anybody.

Whoever exports them reads the attributes; a gauge and totals since the start.
"""

from dataclasses import dataclass, field
from enum import StrEnum, unique


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
    SEND_FAILED = "send_failed"
    """The socket did not take it: its buffer is full, or the destination is unreachable."""
    INTERNAL = "internal"
    """An error of this program; the log has it."""


@dataclass(slots=True)
class Counters:
    """Counted by the core, except packets, bytes and failed sends, which the socket loop counts."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    forwarded: int = 0
    """Datagrams passed from one allocation to another."""
    allocations: int = 0
    """Live now."""
    allocations_created: int = 0
    unauthenticated: int = 0
    """401 responses."""
    stale_nonces: int = 0
    """438 responses."""
    refused: int = 0
    """All other error responses."""
    drops: dict[Drop, int] = field(default_factory=lambda: dict.fromkeys(Drop, 0))
