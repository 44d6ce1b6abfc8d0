"""How a call looks in a terminal: texts of one call's model, and nothing else.

What a peer wrote never becomes markup: everything is a plain `Text` with styles of our own. No
meaning is in a colour alone.
"""

import time
from collections.abc import Iterable
from typing import Final

from rich.text import Text

from e2ecall.cli.happenings import describe_guesses
from e2ecall.cli.softphone.model import CallModel, Line, Verdict, quality_line
from e2ecall.cli.softphone.phone import clock
from e2ecall.client import IncomingCall
from e2ecall.protocol.controls import Controls

_FLOOR: Final = -60.0
_BARS: Final = 24
_EMOJI_STYLE: Final = "\ufe0f"
"""Asks for the coloured form of a symbol. Terminals do not agree on how wide that is, and what
stands behind it would be in the wrong place."""


def peer_line(model: CallModel) -> Text:
    """Name the other person, and whether they were ever verified."""
    mark = ("  ✔ verified", "bold green") if model.verified else ("  not verified", "bold yellow")
    return Text.assemble((model.peer, "bold"), mark)


def status_line(model: CallModel) -> Text:
    """Say where the call stands, and for how long it has been connected."""
    text = Text(model.status, "bold" if model.ended is None else "bold red")
    if model.connected_at is not None and model.ended is None:
        text.append(f" {clock(time.monotonic() - model.connected_at)}")
    if model.own.held:
        text.append("   on hold", "bold yellow")
    if model.own.recording:
        text.append("   you record this call", "bold red")
    return text


def code_text(model: CallModel) -> Text:
    """Show the code to compare, and ask for it while it is open."""
    if model.code is None:
        return Text("The code to compare comes when it rings.", "dim")
    text = Text("\n")
    shown = "   ".join(f"{symbol} {name}" for symbol, name in model.code.emoji)
    text.append(shown.replace(_EMOJI_STYLE, ""), "bold")
    text.append(f"\nor as digits: {model.code.digits}\n", "dim")
    if model.asks_to_compare:
        text.append("Read this to each other. Is it the same at both ends?  ")
        text.append("y", "bold reverse")
        text.append(" the same   ")
        text.append("n", "bold reverse")
        text.append(" another one: hang up")
    elif model.verdict is Verdict.SAME:
        text.append("You compared it: nobody is in between.", "green")
    elif model.verified:
        text.append("This person was verified before.", "green")
    return text


def meters(model: CallModel, own: float, theirs: float) -> Text:
    """Show how loud both ends are, and what they let out."""
    text = _meter("You ", own, _own_controls(model.own))
    text.append("\n")
    text.append_text(_meter("They", theirs, _their_controls(model)))
    return text


def quality(model: CallModel) -> Text:
    """Say how good the call is."""
    return Text(quality_line(model.quality), "dim")


def lines(of: Iterable[Line]) -> Text:
    """Show what was written and what happened, the latest last."""
    text = Text()
    for line in of:
        if line.who:
            text.append(f"{line.who}: ", "bold")
        text.append(line.text + "\n", "" if line.who else "dim")
    return text


def ringing_text(incoming: IncomingCall) -> Text:
    """Announce a call that rings."""
    kind = "a video call" if incoming.wants_video else "a call"
    text = Text(f"{incoming.caller}\n", "bold", justify="center")
    text.append(f"{kind}\n\n")
    if incoming.verified:
        text.append("✔ verified: this identity was compared before", "green")
    else:
        text.append("not verified: compare the code when you talk", "yellow")
    if warning := describe_guesses(incoming):
        text.append(f"\n\n{warning}", "bold yellow")
    if incoming.other is not None:
        text.append(f"\n\nYou are talking to {incoming.other.peer}.")
    return text


def _meter(name: str, decibels: float, what: str) -> Text:
    share = max(0.0, min(1.0, 1 - decibels / _FLOOR))
    full = round(share * _BARS)
    text = Text(f"{name} ")
    text.append("█" * full, "green" if share < 0.9 else "red")
    text.append("░" * (_BARS - full), "dim")
    text.append(f"  {what}")
    return text


def _own_controls(own: Controls) -> str:
    if own.held:
        return "on hold: nothing is sent or played"
    return _controls(own.muted, own.camera, own.screen)


def _their_controls(model: CallModel) -> str:
    if model.connected_at is None:
        return ""
    theirs = model.known_state
    if theirs.held:
        return "have put the call on hold"
    record = ", RECORDING" if theirs.recording else ""
    return _controls(theirs.muted, theirs.camera, theirs.screen) + record


def _controls(muted: bool, camera: bool, screen: bool) -> str:
    shared = ", screen shared" if screen else ""
    return f"microphone {'off' if muted else 'on'}, camera {'on' if camera else 'off'}{shared}"
