"""Starts the demonstration's processes and ends them, whatever happens.

A child says what it does in lines of JSON on its stdout, each with an ``event``; its stderr goes to
a log file. It knows nothing of calls.
"""

import json
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Final

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from e2ecall.errors import E2ECallError

Event = dict[str, Any]

_MAX_LINE: Final = 65_536
_GRACE: Final = 15.0
"""Seconds that a child may take to end after SIGTERM."""


class ChildError(E2ECallError):
    """A process of the demonstration failed or fell silent."""


class Child:
    """A running process; made by `child`."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._events: deque[Event] = deque()
        self._changed = anyio.Event()
        self._has_ended = False

    async def wait_for(self, event: str, *, within: float) -> Event:
        """Return the next event of this kind; others before it are skipped.

        Raises:
            ChildError: the child reports an error, ends, or takes more than ``within`` seconds.
        """
        try:
            with anyio.fail_after(within):
                while True:
                    found = await self._next(event)
                    if found["event"] == "error":
                        raise ChildError(f"{self.name}: {found['text']}", hint=found["hint"])
                    if found["event"] == event:
                        return found
        except TimeoutError as error:
            raise self._failure(f"did not come to {event!r} within {within:.0f} s") from error

    async def stop(self) -> int:
        """Ask the process to end, wait for it, and return its exit code."""
        if self._process.returncode is None:
            self._process.terminate()
        with anyio.move_on_after(_GRACE):
            return await self._process.wait()
        self._process.kill()
        return await self._process.wait()

    async def finished(self, *, within: float) -> None:
        """Wait until the process ended by itself, with success.

        Raises:
            ChildError: it did not, or not in time.
        """
        with anyio.move_on_after(within):
            code = await self._process.wait()
            if code == 0:
                return
            raise self._failure(f"ended with exit code {code}")
        raise self._failure("does not end")

    async def read(self, on_event: Callable[[str, Event], None]) -> None:
        """Take in what the process says until it ends."""
        assert self._process.stdout is not None
        lines = BufferedByteReceiveStream(self._process.stdout)
        try:
            while True:
                event: Event = json.loads(await lines.receive_until(b"\n", _MAX_LINE))
                self._events.append(event)
                on_event(self.name, event)
                self._wake()
        except (anyio.EndOfStream, anyio.IncompleteRead, ValueError, anyio.DelimiterNotFound):
            self._has_ended = True  # or it talks nonsense, which is as good as an end
            self._wake()

    async def _next(self, awaited: str) -> Event:
        while not self._events:
            if self._has_ended:
                raise self._failure(f"ended before {awaited!r}")
            await self._changed.wait()
        return self._events.popleft()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _failure(self, what: str) -> ChildError:
        lines = self._log.read_text("utf-8", "replace").splitlines()
        said = [line for line in (line.strip(" |+-") for line in lines) if line]
        return ChildError(
            f"{self.name} {what}", hint=f"its last words: {said[-1]}" if said else None
        )


@asynccontextmanager
async def child(
    name: str,
    arguments: Sequence[str],
    *,
    log: Path,
    on_event: Callable[[str, Event], None] = lambda _name, _event: None,
) -> AsyncIterator[Child]:
    """Run this Python with ``arguments``; the process never outlives the block.

    ``on_event`` gets the child's name and everything that it says, as it says it.
    """
    failure: Exception | None = None
    with log.open("wb") as stderr:
        process = await anyio.open_process(
            [sys.executable, *arguments], stdin=DEVNULL, stdout=PIPE, stderr=stderr
        )
        running = Child(name, process, log)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(running.read, on_event)
            try:
                yield running
            except Exception as error:  # noqa: BLE001 - raised below, not wrapped in a group
                failure = error
            finally:
                with anyio.CancelScope(shield=True):
                    await running.stop()
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await process.aclose()
    if failure is not None:
        raise failure
