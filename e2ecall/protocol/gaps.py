"""Messages of a peer that should have come and did not (spec/ratchet.md, "Gaps").

Reads what the ratchet knows: numbers that a later message skipped. It decides no policy, and knows
nothing of messages after which none has come.
"""

from typing import Final

from e2ecall.protocol.chains import SKIPPED_KEY_LIFETIME
from e2ecall.protocol.peer import PeerState

GAP_SECONDS: Final = 120
"""RATCHET-12: for a message to come after one that was sent later."""


def count_missing(peer: PeerState, *, since: int, now: float) -> tuple[int, int]:
    """Return how many numbers were skipped after ``since`` and are overdue at ``now``.

    With them comes the Unix time of the last of these skips, or ``since`` if there is none: what to
    count since the next time; at first 0. RATCHET-13: a time that is still to come counts as 0, as
    what a clock was ahead by must hide nothing.
    """
    since = 0 if since > now else since
    overdue = [
        skipped
        for session in peer.sessions
        for chain in session.ratchet.receiving
        for key in chain.skipped.values()
        if since < (skipped := key.expires - SKIPPED_KEY_LIFETIME) <= int(now) - GAP_SECONDS
    ]
    return len(overdue), max(overdue, default=since)
