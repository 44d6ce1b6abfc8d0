"""Bounds of the TURN server: what one ticket, and all together, may hold (spec/turn.md TURN-40 ff).

Limits of RFC 8656 stand beside limits of this implementation; it enforces nothing.
"""

from dataclasses import dataclass
from typing import Final

DEFAULT_LIFETIME: Final = 600
"""Seconds of an allocation (RFC 8656 section 3.2)."""

PERMISSION_LIFETIME: Final = 300
"""Seconds, fixed (RFC 8656 section 9)."""

CHANNEL_LIFETIME: Final = 600
"""Seconds, fixed (RFC 8656 section 12)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an operator may set."""

    allocations_per_side: int = 2
    """Of a ticket: one in use, and one more while a client changes its network."""

    allocations_per_address: int = 200
    """Of one source, an IPv4 address or a /64 of IPv6: the people behind one NAT."""

    allocations: int = 20_000
    """In all; at about 2 KB each they fit in 40 MB."""

    max_lifetime: int = 3600
    """Seconds of one Allocate or Refresh; a client that vanished is forgotten after it."""

    bandwidth: int = 2_500_000
    """Bytes of data that one allocation may send in a second: 20 Mbit/s, several times what a call
    with camera and screen takes."""

    peers_per_allocation: int = 32
    """Permissions, and channels, of one allocation. A ticket has four live peers at a time; the
    rest is for those that were replaced and have not expired."""
