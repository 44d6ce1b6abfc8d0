"""Jitter buffers: RTP packets in, whole encoded frames out, in order (spec/media.md, "Receiving").

What both kinds have in common, and the one for sound; `video_jitter` has the other. They add no
delay where nothing is missing, wait a bounded time for what is, and give up cleanly. Sans-I/O:
the time comes in as ``now`` in seconds. They neither decrypt nor decode, and trust nothing: a
frame that was put together here is still only a claim.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

AUDIO_HOLD: Final = 2
"""Packets kept while one is missing that no copy brought: reordering of up to 40 ms is repaired, a
loss costs as much once and nothing afterwards."""

AUDIO_MAX_GAP: Final = 100
"""A jump of more packets (2 s) is a new beginning, not a loss to wait for."""


class Fragment(NamedTuple):
    """What matters of an RTP packet; ``data`` is the payload without its codec's descriptor."""

    sequence_number: int
    timestamp: int
    marker: bool
    starts_frame: bool
    data: bytes


class EncodedFrame(NamedTuple):
    """A whole encoded frame, still encrypted, with its RTP timestamp."""

    timestamp: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Feedback:
    """What to tell the sender: sequence numbers to send again, and whether to begin anew."""

    nack: tuple[int, ...] = ()
    key_frame: bool = False


NOTHING: Final = Feedback()


class JitterBuffer(Protocol):
    """What both kinds have in common."""

    lost: int
    """Frames that were given up: exact for audio, gaps for video."""

    def add(self, fragment: Fragment, now: float) -> None:
        """Take a packet; late ones and duplicates are ignored."""
        ...

    def next_frame(self) -> EncodedFrame | None:
        """Return the next whole frame, or None when there is none now."""
        ...

    def refused(self) -> None:
        """The frame last returned was not authentic; what depends on it is of no use."""
        ...

    def feedback(self, now: float) -> Feedback:
        """Return what to tell the sender now; to be asked again soon while `waiting`."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether feedback may be due without a further packet."""
        ...


def sequence_delta(a: int, b: int) -> int:
    """Return the signed distance from sequence number ``b`` to ``a``, modulo 2^16."""
    return (a - b + 0x8000 & 0xFFFF) - 0x8000


class AudioJitterBuffer:
    """One packet is one frame; a missing one holds back at most `AUDIO_HOLD` others."""

    def __init__(self) -> None:
        self.lost = 0
        self._next: int | None = None
        self._held: dict[int, Fragment] = {}

    def add(self, fragment: Fragment, now: float) -> None:  # noqa: ARG002 - no timers in audio
        """Take a packet; late ones and duplicates are ignored."""
        sequence = fragment.sequence_number
        if self._next is None:
            if not fragment.starts_frame:
                return  # a copy of what was sent before anything came
            self._next = sequence
        ahead = sequence_delta(sequence, self._next)
        if ahead < 0:
            return
        if ahead > AUDIO_MAX_GAP:
            self._held.clear()
            self._next = sequence
        self._held.setdefault(sequence, fragment)
        if len(self._held) > AUDIO_HOLD and self._next not in self._held:
            self._skip(self._next)

    def next_frame(self) -> EncodedFrame | None:
        """Return the frame whose turn it is, or None while it is missing."""
        if self._next is None:
            return None
        fragment = self._held.pop(self._next, None)
        if fragment is None:
            return None
        self._next = self._next + 1 & 0xFFFF
        return EncodedFrame(fragment.timestamp, fragment.data)

    def refused(self) -> None:
        """Nothing depends on an audio frame."""

    def feedback(self, now: float) -> Feedback:  # noqa: ARG002 - audio is never sent again
        """Return nothing: by the time a retransmission came, its moment would have passed."""
        return NOTHING

    @property
    def waiting(self) -> bool:
        """False: nothing happens without a packet."""
        return False

    def _skip(self, start: int) -> None:
        missing = min((sequence - start & 0xFFFF) for sequence in self._held)
        self.lost += missing
        self._next = start + missing & 0xFFFF
