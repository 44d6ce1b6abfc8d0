"""The media thread: an asyncio loop of its own under an AnyIO program (spec/media.md, "Threads").

aiortc needs asyncio, and a program that stalls must not make sound stutter. Calls cross over with
about 30 us each way. It knows nothing of media.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from e2ecall.errors import MediaError

T = TypeVar("T")
P = ParamSpec("P")


class _Soon(Protocol):
    """Runs a function soon in another thread's event loop."""

    def __call__(self, callback: Callable[..., object], /, *args: object) -> object: ...


class Outcome:
    """What became of a coroutine; readable once ``done`` is set."""

    __slots__ = ("done", "error", "task", "value")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.task: asyncio.Task[Any] | None = None
        self.value: Any = None
        self.error: BaseException | None = None


class MediaThread:
    """Runs coroutines on the media loop for a program on trio or asyncio."""

    def __init__(self) -> None:
        self._post = _poster()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._ready = anyio.Event()
        self._ended = anyio.Event()
        self._outcomes: set[Outcome] = set()
        # A daemon, so that a program that forgets to close the engine can still exit.
        self._thread = threading.Thread(target=self._main, name="e2ecall-media", daemon=True)

    async def start(self) -> None:
        """Start the thread; return when its loop runs. Not to be cancelled half-way."""
        self._thread.start()
        with anyio.CancelScope(shield=True):
            await self._ready.wait()

    async def stop(self) -> None:
        """End the loop, cancelling what still runs on it, and the thread."""
        if self._loop is None or self._stopping is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._stopping.set)
        with anyio.CancelScope(shield=True):
            await self._ended.wait()
        self._thread.join()

    async def run(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function`` on the media loop and return its result.

        Cancellation is passed on: it returns when the coroutine has ended over there.

        Raises:
            MediaError: the media thread has ended, or ends while this runs.
        """
        outcome = Outcome()

        def finished(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                outcome.error = MediaError("media was closed")
            elif (error := task.exception()) is not None:
                outcome.error = error
            else:
                outcome.value = task.result()
            self.post(outcome.done.set)

        def begin() -> None:
            outcome.task = asyncio.get_running_loop().create_task(function(*args, **kwargs))
            outcome.task.add_done_callback(finished)

        self._call(begin)
        self._outcomes.add(outcome)
        try:
            await outcome.done.wait()
        except BaseException:
            with contextlib.suppress(MediaError):  # the thread has ended, and with it this
                self._call(lambda: outcome.task.cancel() if outcome.task is not None else None)
            with anyio.CancelScope(shield=True):
                await outcome.done.wait()
            raise
        finally:
            self._outcomes.discard(outcome)
        if outcome.error is not None:
            # Who was cancelled meanwhile shall end as cancelled, not as failed.
            await checkpoint_if_cancelled()
            raise outcome.error
        result: T = outcome.value
        return result

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Run ``callback`` on the media loop, before anything that reaches it later; do not wait.

        Raises:
            MediaError: the media thread has ended.
        """
        self._call(lambda: callback(*args))

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Run ``callback`` in the program's event loop, from any thread; dropped after its end."""
        # trio raises RunFinishedError, a RuntimeError, as asyncio does.
        with contextlib.suppress(RuntimeError):
            self._post(callback, *args)

    def _call(self, callback: Callable[[], object]) -> None:
        loop = self._loop
        try:
            if loop is None:
                raise RuntimeError("not started")
            loop.call_soon_threadsafe(callback)
        except RuntimeError as error:
            raise MediaError("the media engine is closed") from error

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self.post(self._ready.set)
            self.post(self._end)

    def _end(self) -> None:
        """Say that the thread has ended, also to whom its loop did not come to any more."""
        for outcome in self._outcomes:
            if not outcome.done.is_set():
                outcome.error = outcome.error or MediaError("media was closed")
                outcome.done.set()
        self._ended.set()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.post(self._ready.set)
        await self._stopping.wait()


def _poster() -> _Soon:
    native = current_token().native_token
    if isinstance(native, asyncio.AbstractEventLoop):
        return native.call_soon_threadsafe
    soon: _Soon = native.run_sync_soon  # type: ignore[attr-defined]  # a trio token
    return soon
