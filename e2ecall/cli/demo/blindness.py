"""What of the known plaintext stands in what the relay received and stored: it must be nothing.

Two searches: exact strings (descriptions, texts, names, keys) in everything that the relay saw,
and any run of `WINDOW` bytes of the sent encoded frames in the media, opened with the clients'
SRTP keys. A count of 0 means something only beside a control that finds hits: see `control`.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from e2ecall.cli.demo.capture import Capture
from e2ecall.cli.demo.evidence import Evidence
from e2ecall.cli.demo.wiretap import open_media
from e2ecall.errors import E2ECallError
from e2ecall.protocol.messages import MediaDescription

WINDOW: Final = 12
"""Bytes: a run this long appears in unrelated ciphertext once in 2^96."""

_MIN_VARIETY: Final = 4
"""Windows of fewer different bytes (padding) are no evidence of anything."""

_MIN_OPENED: Final = 0.99
"""Share of SRTP packets that must open, or the search did not see what it claims to."""

_SDP: Final = (
    b"a=fingerprint:",
    b"a=ice-ufrag:",
    b"a=ice-pwd:",
    b"a=candidate:",
    b"a=rtpmap:",
    b"m=audio ",
    b"m=video ",
    b"sha-256 ",
)

_BATCH: Final = 1 << 22
_CHUNK: Final = 1 << 16

Text = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.intp]


class CheckError(E2ECallError):
    """The blindness check could not see what it has to search; its count would mean nothing."""


@dataclass(slots=True)
class BlindnessReport:
    """What was searched and what was found, by kind."""

    packets: int
    bytes: int
    """Datagrams that the relay's TURN socket received, and their bytes."""
    opened: int
    """SRTP packets that were decrypted for the search."""
    hits: Counter[str] = field(default_factory=Counter)

    @property
    def plaintext_hits(self) -> int:
        """All hits together."""
        return self.hits.total()


def check(capture: Capture, sides: Iterable[Evidence]) -> BlindnessReport:
    """Search a relay's capture for what the two ``sides`` of the captured call know.

    Raises:
        CheckError: the capture holds no media, or the keys do not open it.
    """
    sides = tuple(sides)
    media = [description for side in sides for description in side.media]
    keys = [key for side in sides for key in side.sending_keys]
    for side in sides:
        if not (side.media and side.texts and side.frames and side.address):
            raise CheckError(f"it is not known what {side.username} sent")
    opened = open_media(capture.datagrams, keys, media)
    if not opened.packets or opened.refused > (1 - _MIN_OPENED) * opened.packets:
        raise CheckError(
            f"{opened.refused} of {opened.packets} captured media packets could not be opened"
        )
    report = BlindnessReport(
        packets=len(capture.datagrams),
        bytes=sum(map(len, capture.datagrams)),
        opened=opened.packets - opened.refused,
    )
    everything = [*capture.signalling, *capture.stored, *capture.datagrams]
    behind_srtp = [*opened.frames, *opened.reports]
    names = [name for side in sides for name in (side.username, side.address)]
    report.hits["names"] = count_strings(
        map(str.encode, names), [*capture.envelopes, *capture.datagrams, *behind_srtp]
    )
    secrets = [*_texts(sides), *(key.key for key in keys), *_SDP]
    report.hits["strings"] = count_strings(secrets, [*everything, *behind_srtp])
    for description in media:
        report.hits["descriptions"] += count_strings(
            _spellings(description), [*capture.signalling, *capture.stored]
        )
        # The checks of ICE show the user fragment on the path (RFC 8445 section 7.2.2), never
        # the password.
        report.hits["descriptions"] += count_strings(
            [description.ice_pwd.encode()], [*capture.datagrams, *behind_srtp]
        )
    frames = [frame for side in sides for frame in side.frames]
    report.hits["frames"] = count_windows(frames, [*behind_srtp, *everything])
    return report


def count_strings(needles: Iterable[bytes], haystacks: Iterable[bytes]) -> int:
    """Return how often the needles occur; the boundary of two haystacks is never bridged."""
    haystacks = tuple(haystacks)
    return sum(haystack.count(needle) for needle in set(needles) for haystack in haystacks)


def count_windows(known: Iterable[bytes], haystacks: Iterable[bytes]) -> int:
    """Return at how many places of the haystacks a run of `WINDOW` bytes of ``known`` begins.

    Runs that hold fewer than four different bytes do not count.
    """
    text, starts = _windows(known)
    starts = starts[_varied(text, starts)]
    if not len(starts):
        return 0
    prints = _fingerprints(text)[starts]
    order = np.argsort(prints, kind="stable")
    prints, starts = prints[order], starts[order]
    return sum(_count_in(batch, text, prints, starts) for batch in _batches(haystacks))


def _texts(sides: Iterable[Evidence]) -> list[bytes]:
    return [text.encode() for side in sides for text in side.texts]


def _spellings(description: MediaDescription) -> list[bytes]:
    """Return an ICE user fragment and password, and a fingerprint in its usual spellings."""
    digest = description.fingerprint
    colons = digest.hex(":")
    return [
        description.ice_ufrag.encode(),
        description.ice_pwd.encode(),
        digest,
        digest.hex().encode(),
        digest.hex().upper().encode(),
        colons.encode(),
        colons.upper().encode(),
        base64.b64encode(digest),
        base64.urlsafe_b64encode(digest),
    ]


def _batches(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Group pieces so that one batch's fingerprints stay small in memory."""
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    yield batch


def _windows(pieces: Iterable[bytes]) -> tuple[Text, Places]:
    """Return the pieces as one array, and where in it a whole window of one piece begins."""
    pieces = [piece for piece in pieces if len(piece) >= WINDOW]
    text = np.frombuffer(b"".join(pieces), np.uint8)
    whole = np.ones(len(text), np.bool_)
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.intp)
    for back in range(1, WINDOW):
        whole[ends - back] = False
    return text, np.flatnonzero(whole)


def _varied(text: Text, starts: Places) -> npt.NDArray[np.bool_]:
    """Return which of the windows hold at least `_MIN_VARIETY` different bytes."""
    varied = np.zeros(len(starts), np.bool_)
    for at in range(0, len(starts), _CHUNK):
        rows = np.sort(text[starts[at : at + _CHUNK, None] + np.arange(WINDOW)], axis=1)
        varied[at : at + _CHUNK] = (rows[:, 1:] != rows[:, :-1]).sum(axis=1) + 1 >= _MIN_VARIETY
    return varied


def _count_in(batch: list[bytes], text: Text, prints: Words, starts: Places) -> int:
    hay, places = _windows(batch)
    if not len(places):
        return 0
    sought = _fingerprints(hay)[places]
    found = np.searchsorted(prints, sought)
    found[found == len(prints)] = 0
    likely = np.flatnonzero(prints[found] == sought)
    # A fingerprint is 64 bits: what it proposes is compared byte by byte.
    span = np.arange(WINDOW)
    same = hay[places[likely, None] + span] == text[starts[found[likely], None] + span]
    return int(same.all(axis=1).sum())


def _fingerprints(text: Text) -> Words:
    """Return a 64-bit fingerprint of the window at each place."""
    count = len(text) - WINDOW + 1
    prints = np.zeros(count, np.uint64)
    for offset in range(WINDOW):
        prints *= np.uint64(0x9E37_79B9_7F4A_7C15)
        prints += text[offset : offset + count] + np.uint64(1)
    return prints
