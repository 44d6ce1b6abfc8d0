"""What the parent of the demonstration gives each client to do, as a file.

JSON, between processes of one version on one machine; it does nothing by itself.
"""

from pathlib import Path
from typing import Literal, Self

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one client has to do."""

    folder: str
    """Where its store, its recording and its evidence go."""
    relay: str
    username: str
    peer: str
    seconds: float
    """Length of the call, from the moment when media flows."""
    text: str
    seed: int
    caption: str
    audio: str | None = None
    video: str | None = None
    backend: Literal["trio", "asyncio"]

    @property
    def home(self) -> Path:
        """The client's folder."""
        return Path(self.folder)

    @property
    def evidence_path(self) -> Path:
        """Where the evidence is found afterwards."""
        return self.home / "evidence.json"

    def save(self, path: Path) -> None:
        """Write the job for a client to read."""
        path.write_bytes(msgspec.json.encode(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def path_of(text: str | None) -> Path | None:
    """Return an optional file of a job as a path."""
    return None if text is None else Path(text)
