"""Runs the softphone's screen beside the phone, and gives the terminal back in any case.

Textual needs asyncio; the client is AnyIO and runs on the same loop.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Final

import anyio
import anyio.to_thread

from e2ecall.cli.media import MediaOptions
from e2ecall.cli.output import Output
from e2ecall.cli.softphone.phone import Phone
from e2ecall.cli.softphone.tty import patient_terminal
from e2ecall.client import Client

MAX_RECORDS: Final = 100
"""Log records kept until the terminal is free again."""


def is_usable(*, plain: bool, as_json: bool) -> bool:
    """Return whether there is a terminal to show a screen on, and the library to do it."""
    if plain or as_json or os.environ.get("TERM", "dumb") == "dumb":
        return False
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(stream.isatty() for stream in streams) and find_spec("textual") is not None


async def use_phone(
    me: Client,
    options: MediaOptions,
    output: Output,
    *,
    first: str | None = None,
    once: bool = False,
    welcome: frozenset[str] = frozenset(),
) -> None:
    """Call ``first``, or wait for calls if it is None, on a screen, until the user has enough.

    With ``once``, or with ``first``, the phone ends after its last call. Cancelled, it gives the
    terminal back and hangs up.

    Raises:
        E2ECallError: the call was not possible or came to a bad end, or the account's connection
            ended for good.
    """
    await anyio.to_thread.run_sync(_load)
    async with anyio.create_task_group() as tasks:
        phone = Phone(me, options, tasks, welcome, stays=first is None and not once)
        for take in (phone.take_calls, phone.take_messages, phone.take_missed, phone.take_losses):
            tasks.start_soon(take)
        if first is not None:
            tasks.start_soon(phone.place, first)
        await _show(phone)
        tasks.cancel_scope.cancel()
    for line in phone.lines:
        output.tell(f"{line.who}: {line.text}" if line.who else line.text, "line")
    phone.check()


def _load() -> None:
    """Load what calls need, before there is a screen that would stand still for it."""
    from e2ecall.cli import opened  # noqa: F401 - it loads the codecs
    from e2ecall.media import sound

    sound.preload()


async def _show(phone: Phone) -> None:
    """Show the screen until the phone is done; its own end, by an error, ends the phone."""
    from e2ecall.cli.softphone.app import PhoneApp

    app, over = PhoneApp(phone), anyio.Event()
    loop = asyncio.get_running_loop()

    def gone() -> None:
        with suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(phone.quit)

    def late() -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(app.draw_again)

    async def run() -> None:
        # Cancelled in its midst it would leave the terminal as it is.
        with anyio.CancelScope(shield=True):
            try:
                await app.run_async()
            finally:
                over.set()

    with _logs_kept(), patient_terminal(gone, late):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            try:
                await over.wait()
            finally:
                phone.quit()  # at which the screen ends itself


@contextmanager
def _logs_kept() -> Iterator[None]:
    """Keep log records until the screen is gone: they would be written across it."""
    root = logging.getLogger()
    handlers, kept = root.handlers[:], _Kept()
    root.handlers[:] = [kept]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for record in kept.records:
            root.handle(record)


class _Kept(logging.Handler):
    """Keeps the first records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        if len(self.records) < MAX_RECORDS:
            self.records.append(record)
