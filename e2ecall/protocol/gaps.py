"""Messages of a peer that should have come and did not (spec/ratchet.md, "Gaps").

Reads what the ratchet knows: numbers that a later message skipped. It decides no policy, and knows
nothing of messages after which none has come.
"""

from typing import Final

from e2ecall.protocol.chains import SKIPPED_KEY_LIFETIME
from e2ecall.protocol.peer import PeerState

GAP_SECONDS: Final = 120
"""RATCHET-12: for a message to come after one that was sent later."""


def count_missing(peer: PeerState, *, since: int, now: float) -> int:
    """Return how many numbers were skipped after ``since`` and are overdue at ``now``.

    ``since`` is what `overdue` returned when these were counted the last time; 0 before that.
    """
    return sum(
        since < key.expires - SKIPPED_KEY_LIFETIME <= overdue(now)
        for session in peer.sessions
        for chain in session.ratchet.receiving
        for key in chain.skipped.values()
    )


def overdue(now: float) -> int:
    """Return the Unix time at which, or before which, a number was skipped that is overdue."""
    return int(now) - GAP_SECONDS
