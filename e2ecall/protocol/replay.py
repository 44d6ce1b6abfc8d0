"""A sliding window over counters (spec/sframe.md, "Replay"), in the manner of RFC 6479.

It decides about counters only. Whoever uses it advances it after, and only after, the message
with that counter was authenticated.
"""

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError


class ReplayWindow:
    """Which counters were seen: each at most once, none ``size`` or more behind the highest.

    Each counter has one slot, ``counter % size``, which holds the last counter seen there. So
    memory is fixed and no step depends on how far a counter jumps.
    """

    __slots__ = ("_highest", "_mask", "_size", "_slots")

    def __init__(self, size: int) -> None:
        if size < 1 or size & size - 1:
            raise LocalProtocolError("a replay window has a power of two of slots")
        self._size = size
        self._mask = size - 1
        self._highest = -1
        self._slots = [-1] * size

    def check(self, counter: int) -> None:
        """Accept a counter (0 or more) that is new, without remembering it.

        Raises:
            RemoteProtocolError: REPLAYED, where it was seen or is too old to tell.
        """
        if self._slots[counter & self._mask] >= counter or counter + self._size <= self._highest:
            raise RemoteProtocolError(Reason.REPLAYED)

    def advance(self, counter: int) -> None:
        """Remember an authenticated counter that `check` accepted."""
        self._slots[counter & self._mask] = counter
        if counter > self._highest:  # noqa: PLR1730 - a call of max costs twice as much
            self._highest = counter
