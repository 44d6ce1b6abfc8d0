"""Runs what a command does with a client until it is done or a signal ends it.

A signal cancels the command's work and not the client, so that a call is hung up and the store
closed in peace before the process ends.
"""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, TypeVar

import anyio

from e2ecall.cli.progress import PROGRESS
from e2ecall.errors import E2ECallError

T = TypeVar("T")
Opening = Callable[[], AbstractAsyncContextManager[T]]
Work = Callable[[T], Awaitable[None]]


def run(
    opening: Opening[T],
    work: Work[T],
    *,
    doing: str | None = None,
    backend: Literal["trio", "asyncio"] = "trio",
) -> None:
    """Open a client, or what else the work needs, do the work with it, and close it.

    ``doing`` says at a terminal what is waited for, where the work itself says nothing.

    Exits with 128 and the signal's number when a signal came first; a second one ends the process
    at once.

    Raises:
        E2ECallError: as the client or the work raised it.
    """
    received = anyio.run(_run_until_signal, opening, work, doing, backend=backend)
    if received is not None:
        sys.exit(128 + received)


def _ending_signals() -> list[signal.Signals]:
    """Return what asks a program to end: Ctrl-C, a service manager, a terminal that is closed."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    # nohup has it ignored, and means it; Windows does not have it.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


class _Watch:
    """What a signal cancels: opening the client at first, and then the work only."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.received: signal.Signals | None = None

    async def follow(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for number in signals:
            self.received = number
            for each in _ending_signals():
                signal.signal(each, signal.SIG_DFL)
            self.scope.cancel()


async def _run_until_signal(
    opening: Opening[T], work: Work[T], doing: str | None
) -> signal.Signals | None:
    watch = _Watch()
    failure: BaseException | None = None
    with anyio.open_signal_receiver(*_ending_signals()) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.follow, signals)
            tasks.start_soon(PROGRESS.run)
            try:
                PROGRESS.say("Opening your account")
                with watch.scope:
                    async with opening() as me:
                        PROGRESS.say(doing)
                        with anyio.CancelScope() as watch.scope:
                            await work(me)
                        PROGRESS.say("Closing")
            except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                failure = _plain(error)
            tasks.cancel_scope.cancel()
    if failure is not None and watch.received is None:
        raise failure
    return watch.received


def _plain(error: BaseException) -> BaseException:
    """Return what went wrong first, out of the groups that task groups wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        ours, others = error.split(E2ECallError)
        if ours is None or others is not None:
            return error  # a mistake of the program among them is not to be hidden
        error = ours.exceptions[0]
    return error
