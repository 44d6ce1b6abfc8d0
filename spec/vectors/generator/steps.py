"""The steps of which traces are made: what an end does, what comes in, what it then sends."""

from typing import Any

from spec.vectors.generator.calls import (
    CALL,
    CANDIDATE,
    OTHER_CANDIDATE,
    CallValues,
    Rekeying,
    media,
    state,
)
from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.primitives import flipped

Event = dict[str, Any]

Refused = tuple[str, str, str, list[Event], list[Value], str]
"""Name, requirement, role, what was before, the message, and why it is refused."""


def caller_secrets(values: CallValues) -> dict[str, bytes]:
    """Return what the caller draws."""
    return {
        "call_id": values.call_id,
        "x25519_private": values.drawn("caller dh"),
        "mlkem_seed": values.drawn("kem", 64),
        "seed": values.drawn("seed"),
        "nonce": values.drawn("nonce"),
    }


def callee_secrets(values: CallValues) -> dict[str, bytes]:
    """Return what the callee draws, with the secret inside its encapsulation."""
    return {
        "x25519_private": values.drawn("callee dh"),
        "mlkem_secret": values.encapsulated[0],
        "mlkem_ciphertext": values.encapsulated[1],
    }


def end(role: str, events: list[Event], values: CallValues = CALL) -> dict[str, Any]:
    """Return an end with what it draws, and its life."""
    secrets = caller_secrets(values) if role == "caller" else callee_secrets(values)
    return {
        "role": role,
        "caller": values.caller.shown,
        "callee": values.callee.shown,
        "secrets": secrets,
        "media": enc(media(role)),
        "reply_box": values.drawn(f"{role} box"),
        "turn": values.ringing[6],
        "events": events,
    }


def does(action: str, *sends: list[Value], **options: Any) -> Event:
    """Return what the user does, or what befalls the end, and what it then sends."""
    return {"do": action, **options, "sends": [enc(message) for message in sends]}


def gets(message: list[Value], *sends: list[Value]) -> Event:
    """Return what comes in, and what is sent then."""
    return {"receive": enc(message), "sends": [enc(answer) for answer in sends]}


REVEAL = CALL.message("Reveal", "caller", 0, CALL.drawn("nonce"))
EARLY = CALL.message("Candidates", "caller", 1, [CANDIDATE])
ANSWER = CALL.message("Answer", "callee", 0, True, True, [OTHER_CANDIDATE])
MUTED = CALL.message("MediaState", "callee", 1, *state(True, True))
HELD = CALL.message("MediaState", "callee", 2, *state(True, True, held=True, recording=True))
WORDS = CALL.message("Text", "callee", 3, "Grüße, 世界")
ASKED = CALL.message("Renegotiate", "callee", 4, True)
HANGUP = CALL.message("Hangup", "caller", 2, 1)

PLACED = [does("place", CALL.offer, wants_video=True)]
RUNG = [*PLACED, gets(CALL.ringing, REVEAL)]
INVITED = [{"receive": enc(CALL.offer), "sends": []}]
AWAITING = [*INVITED, does("ring", CALL.ringing)]
ALERTED = [*AWAITING, gets(REVEAL)]


def waits(seconds: float, *sends: list[Value]) -> Event:
    """Return that time passes."""
    return does("wait", *sends, seconds=seconds)


def muted(sender: str, counter: int, change: Rekeying | None = None) -> list[Value]:
    """Return the MediaState of an end that mutes itself."""
    epoch = None if change is None else change.after
    return CALL.message("MediaState", sender, counter, *state(True, False), epoch=epoch)


def mutes(sender: str, counter: int, change: Rekeying | None = None) -> Event:
    """Return that an end does so."""
    sent = muted(sender, counter, change)
    return does("set_media_state", sent, muted=True, camera=False)


def altered(message: list[Value]) -> list[Value]:
    """Return a message with a bit of its MAC flipped."""
    mac = message[-1]
    if not isinstance(mac, bytes):
        raise TypeError("no MAC to alter")
    return [*message[:-1], flipped(mac, 63)]
