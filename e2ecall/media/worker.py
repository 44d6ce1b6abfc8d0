"""A thread of its own for work that blocks, called from an asyncio loop.

Unlike an executor's, its thread is a daemon: a source that never returns cannot keep the process
alive. One call runs at a time, in the order in which they were asked for.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from e2ecall.errors import MediaError

T = TypeVar("T")

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a call in progress may take to return when the worker is closed."""

_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Worker:
    """One daemon thread, from the first call on; made, used and closed on one asyncio loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ended = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._started = False

    async def run(self, function: Callable[[], T]) -> T:
        """Return what ``function`` returns in the thread, or raise what it raises.

        A cancelled caller leaves at once; the call itself runs to its end and is forgotten.

        Raises:
            MediaError: the worker is closed.
        """
        if self._closed:
            raise MediaError("this stream is closed")
        if not self._started:
            self._started = True
            self._thread.start()
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((function, future))
        return await future

    async def close(self) -> None:
        """End the thread. One whose call does not return in time is left to end by itself."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        if not self._started:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._ended.wait()
            self._thread.join()

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, future = job
            if future.cancelled():
                continue
            try:
                result, error = function(), None
            except Exception as raised:  # noqa: BLE001 - handed to the caller
                result, error = None, raised
            self._post(_settle, future, result, error)
            del job, future, result, error
        self._post(self._ended.set)

    def _post(self, callback: Callable[..., object], *args: object) -> None:
        # The loop may be closed already if this call outlived CLOSE_TIMEOUT.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)


def _settle(future: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
