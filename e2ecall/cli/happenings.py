"""What happens in a call, in words: a sentence for people, a name with fields for programs.

The one place for both, whether they are shown line by line (`conversation`) or on a screen
(`softphone.model`). It follows no call.
"""

from dataclasses import asdict
from typing import Any, Final

from e2ecall.cli.output import harmless
from e2ecall.client import (
    CallEvent,
    Connected,
    Ended,
    FirstVideo,
    FramesRefused,
    IncomingCall,
    MediaState,
    MessagesMissing,
    MessagesSetAside,
    Quality,
    Reconnected,
    Reconnecting,
    Ringing,
    Sas,
    Text,
    VideoAsked,
)
from e2ecall.protocol.call_events import EndReason

ENDS: Final = {
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

_PLAIN: Final[dict[type[CallEvent], str]] = {
    Ringing: "It rings.",
    Reconnecting: "The connection is lost; another way is tried.",
    Reconnected: "The connection is back.",
    FirstVideo: "Their picture is here.",
}
"""What is said of events that say nothing more."""

_NAMES: Final[dict[type[CallEvent], str]] = {
    Ringing: "ringing",
    Connected: "connected",
    Reconnecting: "reconnecting",
    Reconnected: "reconnected",
    FirstVideo: "video",
    MediaState: "media_state",
    Text: "text",
    VideoAsked: "video_asked",
    FramesRefused: "frames_refused",
    Quality: "quality",
    Ended: "ended",
}


def describe(event: CallEvent, peer: str) -> str | None:
    """Say what happened in a call with ``peer``; None of what comes too often to be read."""
    match event:
        case Sas():
            return f"Code of this call:  {event}  ({event.digits})"
        case Connected():
            return f"Connected with {peer}."
        case MediaState():
            return _describe_state(event)
        case Text(text):
            return f"{peer} writes: {harmless(text)}"
        case VideoAsked(video):
            return f"They would like {'to see you' if video else 'to go on without your picture'}."
        case FramesRefused(count):
            return f"{count} frames were not authentic and were dropped."
        case Ended(reason):
            text = ENDS[reason]
            return f"{text[0].upper()}{text[1:]}."
        case _:
            return _PLAIN.get(type(event))


def named(event: CallEvent) -> tuple[str, dict[str, Any]]:
    """Return the name and the fields under which programs are told of it."""
    if isinstance(event, Sas):
        return "code", {
            "emoji": [symbol for symbol, _ in event.emoji],
            "names": [name for _, name in event.emoji],
            "digits": event.digits,
        }
    return _NAMES[type(event)], asdict(event)


def describe_ringing(incoming: IncomingCall) -> str:
    """Say what kind of call rings, and what its caller did before, without naming them."""
    kind = "a video call" if incoming.wants_video else "a call"
    return f"{kind}. {warning}" if (warning := describe_guesses(incoming)) else f"{kind}."


def describe_guesses(incoming: IncomingCall) -> str:
    """Warn of somebody whose calls broke off while the code was agreed on; nothing of others."""
    if not incoming.broken_off:
        return ""
    calls = "1 call" if incoming.broken_off == 1 else f"{incoming.broken_off} calls"
    return (
        f"{calls} of theirs broke off just before, while the code was agreed on: compare it with "
        "care."
    )


def describe_loss(loss: MessagesMissing | MessagesSetAside) -> str:
    """Say which messages are lost or held back."""
    what = "1 message" if loss.count == 1 else f"{loss.count} messages"
    if isinstance(loss, MessagesSetAside):
        return f"The relay holds {what} back that this device could not take."
    return f"{what} of {loss.peer} never came: lost or withheld on the way."


def _describe_state(state: MediaState) -> str:
    if state.held:
        text = "They have put the call on hold."
    else:
        sound, picture = "off" if state.muted else "on", "on" if state.camera else "off"
        text = f"Their microphone is {sound}, their camera {picture}."
        if state.screen:
            text += " They share their screen."
    return f"{text} They record this call." if state.recording else text
