"""What a client process of the demonstration writes down for the parent to check.

A file format between the demo's own processes, JSON with bytes in Base64. It holds keys and
plaintext on purpose: the checker must know what to look for.
"""

from pathlib import Path
from typing import Self

import msgspec

from e2ecall.protocol.messages import MediaDescription


class SRTPKey(msgspec.Struct, frozen=True):
    """Master key and salt of one direction, with libsrtp's number of the protection profile."""

    profile: int
    key: bytes


class Evidence(msgspec.Struct, kw_only=True):
    """One client's knowledge of a call. Times are seconds of the machine's monotonic clock."""

    username: str
    address: str
    sas: str = ""
    sas_digits: str = ""
    texts: list[str] = []
    media: list[MediaDescription] = []
    sending_keys: list[SRTPKey] = []
    """What this side sends under; the peer's evidence has the other direction."""
    frames: list[bytes] = []
    """Encoded frames before SFrame, in the order in which they were sent."""
    called_at: float | None = None
    ringing_at: float | None = None
    accepted_at: float | None = None
    sent_pictures: list[float] = []
    """When the engine took picture 0, 1, 2 ..."""
    received_pictures: list[float] = []
    """When each decoded picture arrived, in the order of the recording."""
    received_sound_at: float | None = None
    end_reason: str = ""

    def save(self, path: Path) -> None:
        """Write the file in one step, so that a reader never sees half of it."""
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(self))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)
