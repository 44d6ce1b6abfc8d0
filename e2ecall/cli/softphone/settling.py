"""Keys that count only once a person can have seen what they are about (spec/call.md, CALL-50).

What is shown may change by itself while somebody types: then the keys were meant for what was there
before, or for a text.
"""

import time
from typing import Final

SETTLING: Final = 1.0
"""Seconds without a key after which the next one is meant for what is shown. Longer than it takes
to see a change and to stop typing, and short beside the ringing of a phone."""


class Settling:
    """Says whether keys count yet. At the beginning they do."""

    def __init__(self) -> None:
        self._until = float("-inf")

    @property
    def is_over(self) -> bool:
        """Whether keys count."""
        return time.monotonic() >= self._until

    def begin(self) -> None:
        """Let none count for a while: something else is shown now."""
        self._until = time.monotonic() + SETTLING

    def take_key(self) -> None:
        """Wait longer where keys go on to come: somebody is typing."""
        if not self.is_over:
            self.begin()
