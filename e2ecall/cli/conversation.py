"""One call at the terminal, from either end: tells what happens, asks about the spoken code.

How the call begins is `call` and `listen`; what is sent is `media`.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from e2ecall.cli.happenings import ENDS, describe, named
from e2ecall.cli.output import Output
from e2ecall.cli.terminal import Terminal
from e2ecall.client import Call, CallEvent, Client, Connected, Ended
from e2ecall.errors import E2ECallError, LocalProtocolError, MediaError
from e2ecall.protocol.call_events import EndReason

if TYPE_CHECKING:
    from e2ecall.media.sources import VideoSource

_HINTS: Final = {
    EndReason.NOT_AUTHENTIC: "somebody on the way may be interfering: tell nothing secret until "
    "a later call shows the same code at both ends",
    EndReason.TIMEOUT: "the network must let media through to the relay",
    EndReason.CONNECTION_LOST: "the network was gone for too long; call again when it is back",
    EndReason.SUPERSEDED: "take their call with `e2ecall listen`, or call again",
}

_QUIET: Final = {EndReason.HANGUP}
"""The ends of a call that went well."""


class CallFailedError(E2ECallError):
    """A call that came to nothing, or to a bad end."""


async def converse(
    me: Client,
    call: Call,
    *,
    screen: "VideoSource | None" = None,
    seconds: float | None,
    terminal: Terminal,
    output: Output,
) -> Ended:
    """Accompany a call to its end; hang up ``seconds`` after it connected, or when cancelled.

    ``screen`` is shared from the moment on at which it is connected.

    Raises:
        CallFailedError: the user said that the other end shows another code.
    """
    verdict = _Verdict()
    try:
        async with anyio.create_task_group() as tasks:
            async for event in call.events():
                if not isinstance(event, Ended):  # it is told when all is released
                    tell(event, call.peer, output)
                if isinstance(event, Connected):
                    if screen is not None:
                        tasks.start_soon(_share, call, screen)
                    if seconds is not None:
                        tasks.start_soon(_hang_up_after, call, seconds)
                    if not is_verified(me, call.peer):
                        tasks.start_soon(_compare, call, verdict, terminal, output)
            tasks.cancel_scope.cancel()
        # Now its recording is complete.
        await call.closed.wait()
    finally:
        call.leave()
        if call.ended is not None:
            tell(call.ended, call.peer, output)
    check_code(differs=verdict.differs, peer=call.peer)
    assert call.ended is not None
    return call.ended


def check(ended: Ended, peer: str) -> None:
    """Raise where a call did not end as calls should.

    Raises:
        CallFailedError: with the reason for the user.
    """
    if ended.reason not in _QUIET:
        raise CallFailedError(f"{peer}: {ENDS[ended.reason]}", hint=_HINTS.get(ended.reason))


def check_code(*, differs: bool, peer: str) -> None:
    """Raise where the user said that the other end shows another code.

    Raises:
        CallFailedError: they did.
    """
    if differs:
        raise CallFailedError(
            f"{peer} sees another code, so the call was ended",
            hint="somebody between you may be listening: tell nothing secret until a later call "
            "shows the same code at both ends",
        )


def tell(event: CallEvent, peer: str, output: Output) -> None:
    """Say what happened in a call with ``peer``; to people no more than they can read."""
    text, (name, fields) = describe(event, peer), named(event)
    if text is None:
        output.tell_programs(name, **fields)
    else:
        output.tell(text, name, **fields)


async def _share(call: Call, screen: "VideoSource") -> None:
    with suppress(LocalProtocolError, MediaError):  # the call is over already
        await call.share_screen(screen)


async def _hang_up_after(call: Call, seconds: float) -> None:
    await anyio.sleep(seconds)
    call.leave()


@dataclass(slots=True)
class _Verdict:
    """What the user says of the code."""

    differs: bool = False


async def _compare(call: Call, verdict: _Verdict, terminal: Terminal, output: Output) -> None:
    """Let the user say whether both ends show one code: only then is the other end verified."""
    question = f"Does {call.peer} see the same code? Type yes, or no to hang up."
    match await terminal.choose(question, "yes", "no"):
        case "yes":
            await call.confirm_sas()
            output.tell(f"{call.peer} is verified.", "verified", peer=call.peer)
        case "no":
            verdict.differs = True
            call.leave()


def is_verified(me: Client, peer: str) -> bool:
    """Return whether this person's identity was compared."""
    return any(contact.address == peer and contact.verified for contact in me.contacts())
