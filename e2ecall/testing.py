"""For the tests of programs that embed e2ecall (README, "Testing"): a relay, and media on loopback.

The relay is the real one, as a child process. Nothing here weakens a client: there are no fakes.
The media names (`CollectingSink`, `moving_picture`, `speech_like_sound`) are those of
`e2ecall.media` and load the codecs when they are first asked for.
"""

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

if TYPE_CHECKING:
    from e2ecall.media.generated import moving_picture, speech_like_sound
    from e2ecall.media.sinks import CollectingSink

__all__ = [
    "CollectingSink",
    "RelayProcess",
    "moving_picture",
    "running_relay",
    "speech_like_sound",
]

START_TIMEOUT: Final = 20.0
STOP_TIMEOUT: Final = 15.0
"""Seconds that a relay may take to begin and to end."""

_MEDIA: Final = {
    "CollectingSink": "e2ecall.media.sinks",
    "moving_picture": "e2ecall.media.generated",
    "speech_like_sound": "e2ecall.media.generated",
}


@dataclass(frozen=True, slots=True)
class RelayProcess:
    """A running relay: ``url`` is what `Client.open` takes as its relay."""

    url: str
    turn: str
    pid: int
    process: Process

    async def kill(self) -> None:
        """End it without warning, as a crash would."""
        self.process.kill()
        await self.process.wait()


def __getattr__(name: str) -> Any:
    """Load a media name from where it is defined; see PEP 562."""
    if name not in _MEDIA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MEDIA[name]), name)


@asynccontextmanager
async def running_relay(*arguments: str) -> AsyncIterator[RelayProcess]:
    """Run ``e2ecall-relay serve --dev`` on free loopback ports for the length of the block.

    ``arguments`` are further options of that command. The relay is stopped in any case.

    Raises:
        RuntimeError: it did not start; its own message is on stderr.
    """
    command = [sys.executable, "-m", "relay.cli", "serve", "--dev", *arguments]
    process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stderr=None)
    try:
        yield await _ready(process)
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


async def _ready(process: Process) -> RelayProcess:
    assert process.stdout is not None
    output = TextReceiveStream(process.stdout)
    line = ""
    try:
        with anyio.fail_after(START_TIMEOUT):
            while "\n" not in line:
                line += await output.receive()
    except (TimeoutError, anyio.EndOfStream) as error:
        raise RuntimeError("the relay did not start") from error
    ready = json.loads(line)
    url = ready["signalling"].removesuffix("/v1")
    return RelayProcess(url, ready["turn"], ready["pid"], process)


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(STOP_TIMEOUT):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
    await process.aclose()
