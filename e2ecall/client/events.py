"""What a program is told about a call (design of the API: README, "Embedding").

Values only; where they come from is `e2ecall.client.call`.
"""

from dataclasses import dataclass
from typing import TypeAlias

from e2ecall.protocol.call_events import EndReason


@dataclass(frozen=True, slots=True)
class Ringing:
    """The other phone is there and rings, or is about to."""


@dataclass(frozen=True, slots=True)
class Sas:
    """The code to compare by voice: four emoji with their names, or the same as eight digits."""

    emoji: tuple[tuple[str, str], ...]
    digits: str

    def __str__(self) -> str:
        return "  ".join(f"{symbol} {name}" for symbol, name in self.emoji)


@dataclass(frozen=True, slots=True)
class Connected:
    """Media flows: what is heard and seen from here on was decrypted and authenticated."""


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """Nothing comes through any more, from the peer or to it; another way is being made."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The peer is heard again, in the same call."""


@dataclass(frozen=True, slots=True)
class FirstVideo:
    """The first picture of the peer was decoded."""


@dataclass(frozen=True, slots=True)
class MediaState:
    """What the peer says that it sends and does."""

    muted: bool
    camera: bool
    screen: bool = False
    held: bool = False
    """It has put this call on hold: it sends nothing, and plays nothing."""
    recording: bool = False
    """It records what this end sends."""


@dataclass(frozen=True, slots=True)
class Text:
    """The peer wrote something, of any characters: not to be given to a terminal as they are."""

    text: str


@dataclass(frozen=True, slots=True)
class VideoAsked:
    """The peer asks for this end's camera, or with ``video`` false to go on without.

    Nothing has changed: `Call.camera` is the answer, or none is given.
    """

    video: bool


@dataclass(frozen=True, slots=True)
class FramesRefused:
    """Frames that were not authentic came in and were dropped; ``count`` so far in this call."""

    count: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How good the call was in the last two seconds; one that nobody read gives way to the next.

    Times in seconds, shares of packets from 0 to 1, rates in bits a second.
    """

    round_trip: float | None
    """To the peer and back; None until it is known."""
    loss_sent: float
    """What the peer misses of what this end sends."""
    loss_received: float
    """What this end misses of what the peer sends."""
    jitter: float
    """How much the time on the way varies."""
    bit_rate_sent: int
    bit_rate_received: int
    freezes: int
    """How often the peer's picture stood still although it was sent."""
    frozen: float
    """For how long, in all."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over; always the last event."""

    reason: EndReason
    by_peer: bool


CallEvent: TypeAlias = (
    Ringing
    | Sas
    | Connected
    | Reconnecting
    | Reconnected
    | FirstVideo
    | MediaState
    | Text
    | VideoAsked
    | FramesRefused
    | Quality
    | Ended
)
