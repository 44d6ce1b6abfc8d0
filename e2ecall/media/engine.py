"""The media engine: one thread that all calls of a client share (spec/media.md, "Threads").

Importing this module imports aiortc and PyAV, which takes about half a second: a client does so
when it opens media, not before. It knows nothing of calls.
"""

import asyncio
import logging
from types import TracebackType
from typing import Self

import anyio

from e2ecall.errors import MediaError
from e2ecall.media import hooks
from e2ecall.media.identity import MediaIdentity
from e2ecall.media.peer import MediaPeer
from e2ecall.media.settings import Settings
from e2ecall.media.thread import MediaThread

__all__ = ["MediaEngine", "MediaIdentity", "MediaPeer", "Settings"]

for _name in ("aiortc", "aioice"):
    # Below this they write addresses and whole packets.
    logging.getLogger(_name).setLevel(logging.WARNING)


class MediaEngine:
    """An async context manager; leaving it closes its peers and its thread in milliseconds.

    Enter and leave may happen in different tasks.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._thread: MediaThread | None = None
        self._peers: list[MediaPeer] = []

    async def __aenter__(self) -> Self:
        """Start the thread and check aiortc's hook points.

        Raises:
            MediaError: the installed aiortc or aioice is not one this engine can secure.
        """
        thread = MediaThread()
        await thread.start()
        try:
            await thread.run(_check)
        except BaseException:
            await thread.stop()
            raise
        self._thread = thread
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every peer, then the thread; completes also when cancelled."""
        with anyio.CancelScope(shield=True):
            for peer in self._peers:
                await peer.close()
                peer.events.close()
            if self._thread is not None:
                await self._thread.stop()
                self._thread = None

    async def create_peer(self, *, local: MediaIdentity) -> MediaPeer:
        """Return a peer with this identity. It is closed with the engine, or before.

        The events of peers that were closed can no longer be read after this.

        Raises:
            MediaError: the engine is not open.
        """
        if self._thread is None:
            raise MediaError("the media engine is not open")
        for over in [known for known in self._peers if known.closed]:
            over.events.close()
            self._peers.remove(over)
        peer = MediaPeer(self._thread, local, self._settings)
        self._peers.append(peer)
        return peer


async def _check() -> None:
    hooks.check()
    await asyncio.sleep(0)  # lets the objects of the check be collected on this loop
