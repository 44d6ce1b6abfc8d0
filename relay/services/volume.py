"""How much a store holds, and what that leaves room for (spec/wire.md STORAGE-15).

Counting costs a look at the store, so the number may be some seconds old; what came since is added.
It looks at nothing itself.
"""

from dataclasses import dataclass
from typing import Final

from relay.errors import RefusedError
from relay.services.mailbox import ALL_PARTS, RECOUNT_SECONDS, STRANGERS_PARTS
from relay.wire.messages import ErrorCode

SELDOM_SECONDS: Final = 60.0
"""Between two looks while there is much room."""
DISK_RESERVE: Final = 32 * 1024 * 1024
"""Bytes of the disk that are never used for what is new: who acknowledges has to write, too."""
RETRY_AFTER: Final = 60


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store holds, in bytes, and how many more the disk has room for, if that is known."""

    held: int
    disk_left: float = float("inf")


class Volume:
    """What a store may take up."""

    __slots__ = ("_bound", "_bound_of_strangers", "_looked_at", "_most", "_usage", "held")

    def __init__(self, most: int) -> None:
        self._most = most
        self._usage = Usage(0)
        self.held = 0
        """As the usage says, and what came since."""
        self._looked_at = float("-inf")
        self._set_bounds()

    def set_bound(self, most: int) -> None:
        """Let it hold ``most`` bytes from now on."""
        self._most = most
        self._set_bounds()

    def is_due(self, now: float) -> bool:
        """Tell whether the store is to be looked at; who asks does it, and others need not."""
        is_much = self.held > self._bound_of_strangers / 2
        patience = RECOUNT_SECONDS if is_much else SELDOM_SECONDS
        if now - self._looked_at < patience:
            return False
        self._looked_at = now
        return True

    def counted(self, usage: Usage) -> None:
        """Note what the store holds."""
        self._usage, self.held = usage, usage.held
        self._set_bounds()

    @property
    def takes_strangers(self) -> bool:
        """Whether there is room for what anybody could send."""
        return self.held <= self._bound_of_strangers

    def add(self, size: int, *, is_strangers: bool) -> None:
        """Note that ``size`` bytes are about to be stored.

        Raises:
            RefusedError: RETRY, there is no room for them.
        """
        if self.held + size > (self._bound_of_strangers if is_strangers else self._bound):
            raise RefusedError(
                ErrorCode.RETRY, "the relay has no room for more now", retry_after=RETRY_AFTER
            )
        self.held += size

    def left_out(self, size: int) -> None:
        """Note that what `add` was told of was not stored: others shall have its room."""
        self.held = max(self._usage.held, self.held - size)

    def _set_bounds(self) -> None:
        usage = self._usage
        self._bound = min(self._most, usage.held + usage.disk_left - DISK_RESERVE)
        self._bound_of_strangers = self._bound * STRANGERS_PARTS / ALL_PARTS
