"""Jitter buffers: RTP packets in, whole encoded frames out, in order (spec/media.md, "Receiving").

What both kinds have in common, and the one for sound; `video_jitter` has the other. They add no
delay where nothing is missing, wait a bounded time for what is, and give up cleanly. Sans-I/O:
the time comes in as ``now`` in seconds. They neither decrypt nor decode, and trust nothing: a
frame that was put together here is still only a claim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

AUDIO_HOLD: Final = 2
"""Packets kept while one is missing that no copy brought: reordering of up to 40 ms is repaired, a
loss costs as much once and nothing afterwards. For more see `AudioJitterBuffer`."""

REORDERING: Final = 500
"""Packets, 10 s, for which a network in which one came too late for this is one that reorders."""

MAX_HELD: Final = 24
"""Packets kept while one is missing in such a network: those that overtook it, and their copies."""

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


def ascending(numbers: Sequence[int]) -> list[list[int]]:
    """Return sequence numbers, in their order, in lists of which none goes on beyond 65535.

    aiortc packs one such list into a request, and raises at any other.
    """
    over = next((at for at, (one, other) in enumerate(pairwise(numbers), 1) if other < one), None)
    parts = [numbers[:over], () if over is None else numbers[over:]]
    return [list(part) for part in parts if part]


class AudioJitterBuffer:
    """One packet is one frame; a missing one holds back the others for a short time.

    That is until `AUDIO_HOLD` others are there. Where a packet came after it was given up, it then
    tells those that overtake others from those that the missing one should have come before.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._next: int | None = None
        self._held: dict[int, Fragment] = {}
        self._newest = 0  # the highest number that came, copies aside
        self._row = 0  # how many came in a row, each with the number after the highest
        self._given_up = (0, 0)  # the first of those that were given up last, and how many
        self._wary = 0  # for how many packets more nothing is given up too soon

    def add(self, fragment: Fragment, now: float) -> None:  # noqa: ARG002 - no timers in audio
        """Take a packet; late ones and duplicates are ignored."""
        sequence = fragment.sequence_number
        if self._next is None:
            if not fragment.starts_frame:
                return  # a copy of what was sent before anything came
            self._next, self._newest = sequence, sequence - 1
        overtaken = fragment.starts_frame and self._is_overtaken(sequence)
        ahead = sequence_delta(sequence, self._next)
        if ahead < 0:
            start, count = self._given_up
            if overtaken and (sequence - start & 0xFFFF) < count:
                self._wary = REORDERING
            return
        if ahead > AUDIO_MAX_GAP:
            self._held.clear()
            self._next = sequence
        self._held.setdefault(sequence, fragment)
        if self._next not in self._held and self._is_lost(self._next, overtaken=overtaken):
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

    def _is_overtaken(self, sequence: int) -> bool:
        """Note that a packet of its own came; return whether a later one came before it."""
        step = sequence_delta(sequence, self._newest)
        if step <= 0:
            return True
        self._newest = sequence
        self._row = self._row + 1 if step == 1 else 1
        self._wary = max(self._wary - 1, 0)
        return False

    def _is_lost(self, missing: int, *, overtaken: bool) -> bool:
        """Return whether a missing packet is given up, now that one behind it came."""
        if not self._wary or len(self._held) > MAX_HELD:
            return len(self._held) > AUDIO_HOLD
        # What was overtaken itself overtakes nothing: it would have come after the missing one. So
        # would one of several in a row.
        behind = sequence_delta(self._newest, missing)
        return overtaken or min(self._row, behind) > AUDIO_HOLD

    def _skip(self, start: int) -> None:
        missing = min((sequence - start & 0xFFFF) for sequence in self._held)
        self.lost += missing
        self._given_up = (start, missing)
        self._next = start + missing & 0xFFFF
