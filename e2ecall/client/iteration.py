"""Asynchronous iteration that may be left at any point (no spec: an API convenience).

An async generator that a program leaves early has to be closed by hand, or it warns when it is
collected. What is iterated here holds nothing that would have to be closed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Following(AsyncIterator[T], Generic[T]):
    """Yields what ``following`` returns; it raises StopAsyncIteration at the end."""

    def __init__(self, following: Callable[[], Awaitable[T]]) -> None:
        self._following = following

    def __aiter__(self) -> Self:
        """Return itself: there is one reader at a time."""
        return self

    async def __anext__(self) -> T:
        """Return the next; cancelled, nothing is lost."""
        return await self._following()
