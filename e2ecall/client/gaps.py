"""Telling the user what a relay has dropped (spec/ratchet.md, "Gaps"; R7).

A loss is noted once, and told until the program has taken it. It cannot tell what was lost.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

import anyio
from msgspec import Meta, Struct
from msgspec.structs import replace

from e2ecall.client.peers import Peers
from e2ecall.client.stored import Stored
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.encoding import decode_stored, encode_stored
from e2ecall.protocol.gaps import count_missing

FORMAT: Final = 1

Count = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class MessagesMissing:
    """Messages of somebody that were sent, and never came: texts, or parts of calls.

    Something on the way lost or withheld them, they were for a call that had ended here, or the
    sender's device gave up sending them.
    """

    peer: str
    count: int


@dataclass(frozen=True, slots=True)
class MessagesSetAside:
    """Messages, of whomever, that this device did not acknowledge in five tries.

    The own relay keeps them for the rest of their 14 days and does not deliver them.
    """

    count: int


Loss = MessagesMissing | MessagesSetAside


class _Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: int
    until: Count
    """Numbers that were skipped until then are in the count, or were told."""
    untold: Count

    def change(self, address: str) -> Change:
        return Change(RecordKind.GAP, address.encode(), encode_stored(self))


class Gaps:
    """What is missing from whom, in a store."""

    def __init__(self, store: Store, peers: Peers, lock: anyio.Lock) -> None:
        self._store = store
        self._peers = peers
        self._lock = lock
        self._records = Stored(store, RecordKind.GAP, lambda data: decode_stored(data, _Record))
        self._noted = anyio.Event()
        self._aside = self._aside_told = 0

    def set_aside(self, count: int) -> None:
        """Take the relay's word for how many messages it does not deliver any more (WIRE-38)."""
        self._aside = count
        self.notify()

    async def look(self, now: float) -> None:
        """Note what is overdue and was not noted before."""
        async with self._lock:
            changes = []
            for peer in self._peers.pinned():
                address = str(peer.address)
                record = self._record(address)
                missing, until = count_missing(peer, since=record.until, now=now)
                if missing:
                    noted = replace(record, until=until, untold=record.untold + missing)
                    changes.append(noted.change(address))
            if changes:
                await self._store.write(changes)
                self.notify()

    def notify(self) -> None:
        """Let a reader look again: something was noted, or nothing more will be."""
        self._noted.set()
        self._noted = anyio.Event()

    def events(self) -> Callable[[anyio.Event], Awaitable[Loss | None]]:
        """Return a reader: each call counts what it returned before as told, and returns the next.

        It is given an event that says that no more can come, and then returns None at the end.
        """
        taken: Loss | None = None

        async def following(closed: anyio.Event) -> Loss | None:
            nonlocal taken
            if taken is not None:
                async with self._lock:
                    # Before the write, which may be done when it is cancelled: told once more
                    # it would hide as many messages that are lost later.
                    told, taken = taken, None
                    await self._told(told)
            while (taken := self._next()) is None:
                if closed.is_set():
                    return None
                await self._noted.wait()
            return taken

        return following

    def _next(self) -> Loss | None:
        if self._aside > self._aside_told:
            return MessagesSetAside(self._aside)
        for key, record in self._records.all().items():
            if record.untold:
                return MessagesMissing(key.decode(), record.untold)
        return None

    async def _told(self, event: Loss) -> None:
        if isinstance(event, MessagesSetAside):
            self._aside_told = event.count
            return
        record = self._records.get(event.peer.encode())
        if record is None:  # forgotten meanwhile, so no trace of them is left
            return
        rest = max(0, record.untold - event.count)
        await self._store.write([replace(record, untold=rest).change(event.peer)])

    def _record(self, address: str) -> _Record:
        found = self._records.get(address.encode())
        return _Record(FORMAT, 0, 0) if found is None else found
