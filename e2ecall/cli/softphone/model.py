"""What the screen of a call shows, as it follows from the call's events and the user's choices.

No terminal and no I/O: `widgets` draws it, `conversation` changes it.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum, unique
from typing import Final

from e2ecall.cli.happenings import describe
from e2ecall.cli.output import harmless
from e2ecall.client import (
    CallEvent,
    Connected,
    Ended,
    FirstVideo,
    MediaState,
    Quality,
    Ringing,
    Sas,
    Text,
    VideoAsked,
)
from e2ecall.protocol.controls import Controls

MAX_LINES: Final = 200
"""Lines of a call that are kept to be shown; a peer can write as many as it likes."""


_SHOWN: Final = (Ringing, Sas, Connected, Text, Quality)
"""What has a place of its own on the screen, and so no line."""


@unique
class Verdict(StrEnum):
    """What the user says about the spoken code."""

    OPEN = "open"
    SAME = "same"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of what was written and what happened; who is empty for the program itself."""

    who: str
    text: str


@dataclass(slots=True)
class CallModel:
    """One call, as it stands."""

    peer: str
    verified: bool
    """Whether this identity was compared, in an earlier call or in this one."""
    status: str
    connected_at: float | None = None
    code: Sas | None = None
    verdict: Verdict = Verdict.OPEN
    own: Controls = field(default_factory=Controls)
    theirs: MediaState | None = None
    quality: Quality | None = None
    ended: Ended | None = None
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=MAX_LINES))

    @property
    def asks_to_compare(self) -> bool:
        """Whether the user should compare the code now: they can talk, and have not done it."""
        open_ = self.verdict is Verdict.OPEN and not self.verified
        return open_ and self.code is not None and self.connected_at is not None and not self.ended

    def say(self, text: str, who: str = "") -> None:
        """Add a line."""
        self.lines.append(Line(who, harmless(text)))

    def take(self, event: CallEvent, now: float) -> None:
        """Follow an event of the call."""
        if (said := self._said(event)) is not None:
            self.say(said)
        match event:
            case Ringing():
                self.status = "It rings"
            case Sas():
                self.code = event
            case Connected():
                self.status, self.connected_at = "Connected", now
            case MediaState():
                self.theirs = event
            case Text(text):
                self.say(text, self.peer)
            case Quality():
                self.quality = event
            case Ended():
                self.ended, self.status = event, describe(event, self.peer) or ""
            case FirstVideo():
                self.theirs = replace(self.known_state, camera=True)

    @property
    def known_state(self) -> MediaState:
        """What the peer sends: what it said last, or what every call begins with."""
        return self.theirs or MediaState(muted=False, camera=False)

    def _said(self, event: CallEvent) -> str | None:
        """Return the line for an event, where it gets one."""
        if isinstance(event, _SHOWN) or event == self.known_state:
            return None
        said = describe(event, self.peer)
        return f"{said} v turns your camera on." if event == VideoAsked(video=True) else said


def quality_line(quality: Quality | None) -> str:
    """Say in one line how good the call is."""
    if quality is None:
        return "Quality: not known yet"
    round_trip = "" if quality.round_trip is None else f"{quality.round_trip * 1_000:.0f} ms, "
    freezes = f", {quality.freezes} freezes" if quality.freezes else ""
    return (
        f"Quality: {_grade(quality)} ({round_trip}"
        f"loss {quality.loss_sent:.1%} out, {quality.loss_received:.1%} in, "
        f"{quality.bit_rate_sent // 1_000} kbit/s out, "
        f"{quality.bit_rate_received // 1_000} in{freezes})"
    )


def _grade(quality: Quality) -> str:
    loss = max(quality.loss_sent, quality.loss_received)
    delay = quality.round_trip or 0.0
    if loss > 0.05 or delay > 0.6:
        return "poor"
    return "fair" if loss > 0.01 or delay > 0.3 else "good"
