"""One call of the demonstration: relay, callee and caller as three processes, start to end.

Starts them in order, waits for what they say, ends the relay and collects what all three left. It
judges nothing: that is `command`.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from e2ecall.cli.demo.capture import Capture
from e2ecall.cli.demo.evidence import Evidence
from e2ecall.cli.demo.job import Job
from e2ecall.cli.demo.process import Child, ChildError, Event, child

CALLER = "alice_demo"
CALLEE = "bob_demo"
CALLER_SEED = 1815
CALLEE_SEED = 1906
CALLER_CAPTION = f"{CALLER} calling"
TEXT = "The Analytical Engine weaves algebraic patterns. May I call you?"

_START = 20.0
"""Seconds for a process to be ready; importing the media library on a busy machine takes some."""
_SETUP = 20.0
_END = 15.0

Progress = Callable[[str, Event], None]
"""Gets the name of a process and what it says."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What one call left behind."""

    caller: Evidence
    callee: Evidence
    capture: Capture
    callee_folder: Path
    """With the recording of what the callee decoded."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the call is to be like."""

    seconds: float
    audio: Path | None = None
    video: Path | None = None
    without_sframe: bool = False
    """Start the clients through `control`."""


async def play(folder: Path, wish: Wish, progress: Progress) -> CallRecord:
    """Play one call in ``folder``, which must be empty.

    Raises:
        ChildError: a process failed; the message says which and why.
    """
    relay_arguments = [
        "-m", "relay.cli", "serve", "--dev",
        "--data-dir", str(folder / "data"), "--capture", str(folder / "capture"),
    ]  # fmt: skip
    async with child("relay", relay_arguments, log=folder / "relay.log") as relay:
        ready = await relay.wait_for("ready", within=_START)
        progress("relay", ready)
        callee, caller = _jobs(folder, wish, str(ready["signalling"]))
        async with _client("callee", callee, wish, progress) as callee_process:
            await callee_process.wait_for("listening", within=_START)
            async with _client("caller", caller, wish, progress) as caller_process:
                await caller_process.wait_for("connected", within=_START + _SETUP)
                await caller_process.wait_for("done", within=wish.seconds + _END)
                await callee_process.wait_for("done", within=_END)
                await caller_process.finished(within=_END)
                await callee_process.finished(within=_END)
        if (code := await relay.stop()) != 0:
            raise ChildError(f"the relay ended with exit code {code}")
    return CallRecord(
        caller=Evidence.load(caller.evidence_path),
        callee=Evidence.load(callee.evidence_path),
        capture=Capture.load(folder / "capture", folder / "data"),
        callee_folder=callee.home,
    )


def _jobs(folder: Path, wish: Wish, relay: str) -> tuple[Job, Job]:
    """Write down what the callee and the caller have to do."""
    for name in ("callee", "caller"):
        (folder / name).mkdir()
    callee = Job(
        folder=str(folder / "callee"),
        relay=relay,
        username=CALLEE,
        peer=CALLER,
        seconds=wish.seconds,
        text=TEXT,
        seed=CALLEE_SEED,
        caption=f"{CALLEE} here",
        backend="asyncio",
    )
    caller = Job(
        folder=str(folder / "caller"),
        relay=relay,
        username=CALLER,
        peer=CALLEE,
        seconds=wish.seconds,
        text=TEXT,
        seed=CALLER_SEED,
        caption=CALLER_CAPTION,
        audio=str(wish.audio) if wish.audio else None,
        video=str(wish.video) if wish.video else None,
        backend="trio",
    )
    return callee, caller


def _client(
    role: str, job: Job, wish: Wish, progress: Progress
) -> AbstractAsyncContextManager[Child]:
    path = job.home / "job.json"
    job.save(path)
    module = f"e2ecall.cli.demo.{role}"
    start = ["e2ecall.cli.demo.control", role] if wish.without_sframe else [module]
    return child(role, ["-m", *start, str(path)], log=job.home / f"{role}.log", on_event=progress)
