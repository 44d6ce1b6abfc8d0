"""One call at the terminal, from either end: tells what happens, asks about the spoken code.

How the call begins is `call` and `listen`; what is sent is `media`.
"""

from dataclasses import asdict, dataclass
from typing import Final

import anyio

from e2ecall.cli.output import Output, harmless
from e2ecall.cli.terminal import Terminal
from e2ecall.client import (
    Call,
    CallEvent,
    Client,
    Connected,
    Ended,
    FirstVideo,
    FramesRefused,
    MediaState,
    Quality,
    Reconnected,
    Reconnecting,
    Ringing,
    Sas,
    Text,
    VideoAsked,
)
from e2ecall.errors import E2ECallError
from e2ecall.protocol.call_events import EndReason

_ENDS: Final = {
    EndReason.HANGUP: "the call has ended",
    EndReason.DECLINED: "the call was declined",
    EndReason.BUSY: "they are in another call",
    EndReason.CANCELLED: "the call was given up before it was answered",
    EndReason.NO_ANSWER: "nobody answered",
    EndReason.TIMEOUT: "the call was answered, but nothing could be heard or seen",
    EndReason.NOT_AUTHENTIC: "what came in was not authentic, so the call was ended",
    EndReason.PROTOCOL_ERROR: "the other end did what no call allows",
    EndReason.KEYS_EXPIRED: "the keys of the call could not be replaced in time",
    EndReason.MEDIA_FAILED: "sound and picture could not be sent or received",
    EndReason.CONNECTION_LOST: "the connection was lost",
    EndReason.PEER_FAILED: "something failed at the other end",
    EndReason.CALL_BACK: "they will call back",
    EndReason.SUPERSEDED: "they were calling at the same moment",
}

_HINTS: Final = {
    EndReason.NOT_AUTHENTIC: "somebody on the way may be interfering: tell nothing secret until "
    "a later call shows the same code at both ends",
    EndReason.TIMEOUT: "the network must let media through to the relay",
    EndReason.CONNECTION_LOST: "the network was gone for too long; call again when it is back",
    EndReason.SUPERSEDED: "take their call with `e2ecall listen`, or call again",
}

_QUIET: Final = {EndReason.HANGUP}
"""The ends of a call that went well."""


_PLAIN: Final[dict[type[CallEvent], tuple[str, str]]] = {
    Ringing: ("It rings.", "ringing"),
    Reconnecting: ("The connection is lost; another way is tried.", "reconnecting"),
    Reconnected: ("The connection is back.", "reconnected"),
    FirstVideo: ("Their picture is here.", "video"),
}
"""What is told of events that say nothing more."""


class CallFailedError(E2ECallError):
    """A call that came to nothing, or to a bad end."""


async def converse(
    me: Client, call: Call, *, seconds: float | None, terminal: Terminal, output: Output
) -> Ended:
    """Accompany a call to its end; hang up ``seconds`` after it connected, or when cancelled.

    Raises:
        CallFailedError: the user said that the other end shows another code.
    """
    verdict = _Verdict()
    try:
        async with anyio.create_task_group() as tasks:
            async for event in call.events():
                _tell(event, call, output)
                if isinstance(event, Connected):
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
            tell_end(call.ended, output)
    check_code(differs=verdict.differs, peer=call.peer)
    assert call.ended is not None
    return call.ended


def check(ended: Ended, peer: str) -> None:
    """Raise where a call did not end as calls should.

    Raises:
        CallFailedError: with the reason for the user.
    """
    if ended.reason not in _QUIET:
        raise CallFailedError(f"{peer}: {_ENDS[ended.reason]}", hint=_HINTS.get(ended.reason))


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


def describe_end(ended: Ended) -> str:
    """Say in a sentence why a call is over."""
    text = _ENDS[ended.reason]
    return f"{text[0].upper()}{text[1:]}."


def tell_end(ended: Ended, output: Output) -> None:
    """Say that a call is over, and why."""
    output.tell(describe_end(ended), "ended", reason=ended.reason, by_peer=ended.by_peer)


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


def describe_state(state: MediaState) -> str:
    """Say what the other end does, in a sentence or two."""
    if state.held:
        text = "They have put the call on hold."
    else:
        sound, picture = "off" if state.muted else "on", "on" if state.camera else "off"
        text = f"Their microphone is {sound}, their camera {picture}."
        if state.screen:
            text += " They share their screen."
    return f"{text} They record this call." if state.recording else text


def _tell(event: CallEvent, call: Call, output: Output) -> None:
    """Say what happened, but for the end: that is told when all is released."""
    match event:
        case Ringing() | Reconnecting() | Reconnected() | FirstVideo():
            output.tell(*_PLAIN[type(event)])
        case Sas():
            output.tell(
                f"Code of this call:  {event}  ({event.digits})",
                "code",
                emoji=[symbol for symbol, _ in event.emoji],
                names=[name for _, name in event.emoji],
                digits=event.digits,
            )
        case Connected():
            output.tell(f"Connected with {call.peer}.", "connected")
        case MediaState():
            output.tell(describe_state(event), "media_state", **asdict(event))
        case Text(text):
            output.tell(f"{call.peer} writes: {harmless(text)}", "text", text=text)
        case VideoAsked(video):
            wish = "to see you" if video else "to go on without your picture"
            output.tell(f"They would like {wish}.", "video_asked", video=video)
        case FramesRefused(count):
            output.tell(
                f"{count} frames were not authentic and were dropped.",
                "frames_refused",
                count=count,
            )
        case Quality():
            output.tell_programs("quality", **asdict(event))
