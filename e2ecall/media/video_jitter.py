"""The jitter buffer for pictures (spec/media.md, "Receiving"); see `jitter` for what it shares."""

from typing import Final

from e2ecall.media.jitter import EncodedFrame, Feedback, Fragment, sequence_delta

VIDEO_CAPACITY: Final = 512
"""Packets kept while a frame is incomplete: half a megabyte, half a second at 10 Mbit/s."""

NACK_INTERVAL: Final = 0.02
"""Seconds between repeated requests for a missing packet: they get lost too, and it is for the
sender, who knows the round trip, not to answer one of them twice."""

MAX_NACK: Final = 64
"""Packets asked for at once."""

GIVE_UP: Final = 0.3
"""Seconds a frame waits for a missing packet before a key frame is asked for instead."""

KEY_FRAME_INTERVAL: Final = 0.3
"""Seconds between requests for a key frame."""

FIRST_KEY_FRAME_WAIT: Final = 0.15
"""Seconds that the sender's own first key frame may take before one is asked for."""

LOOK_BACK: Final = 2
"""Packets asked for before the first that is there of a picture that may be the key frame."""

MAX_KEY_STARTS: Final = 8
"""Beginnings of key frames that are kept while none of them is whole: a sender that works has one
or two, and each is looked at again with every packet."""


class VideoJitterBuffer:
    """Frames of several packets, released at the RTP marker of their last one.

    It starts, and after every loss starts again, with a key frame. Until one comes nothing is
    released, because what refers to a lost frame would decode to a broken picture.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._fragments: dict[int, Fragment] = {}  # by sequence number counted without wrapping
        self._key_starts: set[int] = set()
        # While a key frame is needed and none has begun: where a picture goes on whose packet
        # before is missing, and since when. It may have been the key frame's first.
        self._headless: dict[int, float] = {}
        # How far a frame was found to reach without end, by its start, and how far there was no
        # gap, from where: no packet is looked at again for every one that follows it.
        self._reaches: dict[int, int] = {}
        self._unbroken = (0, 0)
        self._next: int | None = None
        self._highest: int | None = None
        self._started = False  # whether any frame was released
        self._needs_key_frame = True
        self._asked_at = 0.0  # when a key frame was, or is next allowed to be, asked for
        self._gap: int | None = None
        self._gap_since = 0.0
        self._nack_at = 0.0

    def add(self, fragment: Fragment, now: float) -> None:
        """Take a packet; late ones and duplicates are ignored."""
        sequence = fragment.sequence_number
        if self._highest is None:
            self._highest = self._next = sequence
            self._asked_at = now + FIRST_KEY_FRAME_WAIT - KEY_FRAME_INTERVAL
        sequence = self._highest + sequence_delta(sequence, self._highest)
        if self._next is not None and sequence < self._next and not self._before_start(sequence):
            return
        if sequence in self._fragments or sequence <= self._highest - VIDEO_CAPACITY:
            return
        self._fragments[sequence] = fragment
        if fragment.starts_frame and is_key_frame(fragment.data):
            self._key_starts.add(sequence)
            if len(self._key_starts) > MAX_KEY_STARTS:
                self._key_starts.remove(min(self._key_starts))
        self._note_headless(sequence, fragment, now)
        if sequence > self._highest:
            self._highest = sequence
            self._make_room()
        self._find_gap(now)

    def next_frame(self) -> EncodedFrame | None:
        """Return the next whole frame, or None when there is none now."""
        if self._needs_key_frame or self._gap is not None:
            self._jump_to_key_frame()
        while not self._needs_key_frame and self._next is not None:
            fragment = self._fragments.get(self._next)
            if fragment is None:
                return None
            if fragment.data:
                return self._take(self._next)
            del self._fragments[self._next]  # padding between frames carries nothing
            self._next += 1
        return None

    def refused(self) -> None:
        """Begin anew with a key frame: the next frames refer to the one that was refused."""
        self._needs_key_frame = True

    def feedback(self, now: float) -> Feedback:
        """Return what to ask of the sender now."""
        self._find_gap(now)
        if self._gap is not None and now - self._gap_since >= GIVE_UP:
            self._give_up()
        nack: tuple[int, ...] = ()
        if self._gap is not None and now - self._nack_at >= NACK_INTERVAL:
            self._nack_at = now
            nack = self._missing(self._gap)
        elif self._needs_key_frame and not self._key_starts:
            nack = self._heads(now)
        key_frame = self._needs_key_frame and now - self._asked_at >= KEY_FRAME_INTERVAL
        if key_frame:
            self._asked_at = now
        return Feedback(nack, key_frame)

    @property
    def waiting(self) -> bool:
        """Whether a packet is missing or a key frame is awaited."""
        return self._highest is not None and (self._needs_key_frame or self._gap is not None)

    def _note_headless(self, sequence: int, fragment: Fragment, now: float) -> None:
        self._headless.pop(sequence + 1, None)
        if not self._needs_key_frame or sequence - 1 in self._fragments:
            return
        # Of the very first picture it is known that it is a key frame; of others, if they begin,
        # that they are none.
        if not fragment.starts_frame or (not self._started and not is_key_frame(fragment.data)):
            self._headless[sequence] = now
            if len(self._headless) > MAX_KEY_STARTS:
                del self._headless[min(self._headless)]

    def _heads(self, now: float) -> tuple[int, ...]:
        """Return the packets before pictures whose beginning is missing, as far as they wait."""
        self._headless = {
            at: since for at, since in self._headless.items() if now - since < GIVE_UP
        }
        if not self._headless or now - self._nack_at < NACK_INTERVAL:
            return ()
        self._nack_at = now
        wanted = {at - back for at in self._headless for back in range(1, LOOK_BACK + 1)}
        return tuple(seq & 0xFFFF for seq in sorted(wanted - self._fragments.keys()))

    def _before_start(self, sequence: int) -> bool:
        # The very first packets may come out of order: until a frame was released, a start
        # slightly before the first arrival is welcome.
        return not self._started and self._next is not None and sequence > self._next - 64

    def _make_room(self) -> None:
        assert self._highest is not None
        assert self._next is not None
        oldest = self._highest - VIDEO_CAPACITY + 1
        if self._next < oldest:
            self._drop_before(oldest)
            if not self._needs_key_frame:
                self.lost += 1
                self._needs_key_frame = True

    def _drop_before(self, sequence: int) -> None:
        for known in [known for known in self._fragments if known < sequence]:
            del self._fragments[known]
        self._key_starts = {start for start in self._key_starts if start >= sequence}
        self._reaches = {start: end for start, end in self._reaches.items() if start >= sequence}
        self._next = sequence

    def _whole(self, start: int) -> int | None:
        """Return the last sequence number of the frame at ``start``, or None if incomplete.

        Raises:
            ValueError: what is there is not a frame.
        """
        first = self._fragments[start]
        if not first.starts_frame:
            raise ValueError("a frame begins with another fragment than its first")
        sequence = self._reaches.get(start, start)
        while (fragment := self._fragments.get(sequence)) is not None:
            if fragment.timestamp != first.timestamp:
                raise ValueError("a frame ends without a marker")
            if fragment.marker:
                return sequence
            sequence += 1
        self._reaches[start] = sequence
        return None

    def _take(self, start: int) -> EncodedFrame | None:
        try:
            end = self._whole(start)
        except ValueError:
            self._give_up()
            return None
        if end is None:
            return None
        self._started = True
        fragments = [self._fragments[sequence] for sequence in range(start, end + 1)]
        self._drop_before(end + 1)
        return EncodedFrame(fragments[0].timestamp, b"".join(part.data for part in fragments))

    def _jump_to_key_frame(self) -> None:
        for start in sorted(self._key_starts):
            try:
                whole = self._whole(start) is not None
            except ValueError:
                self._key_starts.discard(start)
                continue
            if whole:
                if not self._needs_key_frame and start != self._next:
                    self.lost += 1
                self._drop_before(start)
                self._headless.clear()
                self._needs_key_frame = False
                self._gap = None
                return

    def _give_up(self) -> None:
        self.lost += 1
        self._needs_key_frame = True
        gap, self._gap = self._gap, None
        if gap is not None:
            self._key_starts = {start for start in self._key_starts if start > gap}

    def _find_gap(self, now: float) -> None:
        """Note the first missing packet in front of one that came, and since when."""
        assert self._highest is not None or not self._fragments
        if self._highest is None or self._next is None:
            return
        position = min(self._key_starts, default=None) if self._needs_key_frame else self._next
        if position is None:
            self._gap = None
            return
        base, end = self._unbroken
        if base <= position <= end:
            position = end
        else:
            base = position
        while position in self._fragments:
            position += 1
        self._unbroken = (base, position)
        if position > self._highest:
            self._gap = None
        elif position != self._gap:
            self._gap, self._gap_since, self._nack_at = position, now, float("-inf")

    def _missing(self, start: int) -> tuple[int, ...]:
        assert self._highest is not None
        missing = (seq for seq in range(start, self._highest) if seq not in self._fragments)
        return tuple(seq & 0xFFFF for _, seq in zip(range(MAX_NACK), missing, strict=False))


def is_key_frame(data: bytes) -> bool:
    """Return whether a VP8 frame, or its first fragment, claims to be a key frame (RFC 6386)."""
    return bool(data) and not data[0] & 1
