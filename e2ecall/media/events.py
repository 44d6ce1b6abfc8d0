"""What a media peer reports, and what it counts (spec/media.md, "Events and failures").

Values only.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from enum import StrEnum, unique
from typing import TypeAlias

from e2ecall.protocol.messages import Stream


@unique
class FailureReason(StrEnum):
    """Why media ended against the wish of both sides."""

    NOT_CONNECTED = "not_connected"
    """No path was found through the relay, or the DTLS handshake did not finish, in time."""
    WRONG_FINGERPRINT = "wrong_fingerprint"
    """Who answered has not the certificate that the call agreed on: somebody is in between."""
    SILENT = "silent"
    """Nothing authentic came from the peer for too long."""
    UNDECRYPTABLE = "undecryptable"
    """The peer's frames come but none can be decrypted."""
    INTERNAL = "internal"
    """An unexpected error of the engine; its text is in the log."""


@dataclass(frozen=True, slots=True)
class MediaConnected:
    """ICE and DTLS are done, the peer's certificate is the agreed one; sending has begun."""

    at: float
    """Seconds of `time.monotonic`, as everywhere here."""


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """The first frame of a stream was decrypted and decoded."""

    stream: Stream
    at: float


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """Frames of a stream were not decrypted and not decoded; at most one event a second."""

    stream: Stream
    count: int
    """All refused frames of this stream so far."""


@dataclass(frozen=True, slots=True)
class EpochEntered:
    """A frame of the peer in a new epoch was authenticated; from here on this end sends in it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class KeyWorn:
    """A frame key of this end, of this epoch, is nearly used up: a new epoch is due."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How good the transport was in the last two seconds.

    Times in seconds, shares from 0 to 1, rates in bits a second of encrypted frames.
    """

    round_trip: float | None
    """To the peer and back, as RTCP measures it; None until a report came back."""
    loss_sent: float
    """The share of one's own packets that the peer missed at first, by its last report."""
    loss_received: float
    """The share of the peer's packets that did not come, before any was sent again."""
    jitter: float
    """How much the times on the way of received sound vary (RFC 3550)."""
    bit_rate_sent: int
    bit_rate_received: int
    freezes: int
    """How often the peer's picture stood still although it was sent."""
    frozen: float
    """For how long, in all."""


@dataclass(frozen=True, slots=True)
class PathLost:
    """Nothing authentic came from the peer for as many seconds, or the local transport is gone.

    The path is to be replaced.
    """

    silent: float


@dataclass(frozen=True, slots=True)
class PathAlive:
    """The path of this epoch is heard: again, or in the place of the one before."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PathFailed:
    """The new path of this epoch did not come about; the present one stays."""

    epoch: int
    reason: FailureReason


@dataclass(frozen=True, slots=True)
class MediaFailed:
    """Media is over; nothing is sent or rendered any more. The last event."""

    reason: FailureReason


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer ended media in an authenticated way (DTLS close_notify). The last event."""


MediaEvent: TypeAlias = (
    MediaConnected
    | FirstFrame
    | FrameRefused
    | EpochEntered
    | KeyWorn
    | Quality
    | PathLost
    | PathAlive
    | PathFailed
    | MediaFailed
    | PeerClosed
)


@dataclass(frozen=True, slots=True)
class SentStats:
    """What was sent of one stream: encoded frames and their encrypted bytes."""

    frames: int = 0
    bytes: int = 0
    key_frames: int = 0


@dataclass(frozen=True, slots=True)
class ReceivedStats:
    """What came of one stream.

    ``frames`` were decrypted and given to the decoder, ``decoded`` came out of it, ``refused``
    were not authentic, ``lost`` never became whole, ``dropped`` were not taken in time.
    """

    frames: int = 0
    bytes: int = 0
    decoded: int = 0
    refused: int = 0
    lost: int = 0
    dropped: int = 0

    def __add__(self, other: "ReceivedStats") -> "ReceivedStats":
        """Return what came in both."""
        return ReceivedStats(
            *(one + two for one, two in zip(astuple(self), astuple(other), strict=True))
        )


@dataclass(frozen=True, slots=True)
class MediaStats:
    """Counters since the peer was made; datagrams are those of the relayed path."""

    datagrams_sent: int = 0
    datagrams_received: int = 0
    datagrams_ignored: int = 0
    """Not of an expected SSRC, or malformed although authentic."""
    sent: Mapping[Stream, SentStats] = field(default_factory=dict)
    received: Mapping[Stream, ReceivedStats] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Frames of all streams that were not authentic."""
        return sum(stats.refused for stats in self.received.values())
