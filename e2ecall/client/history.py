"""The calls that were (spec/store.md, "History"): who, when, how long, and how they ended.

Nothing of what was said or shown, no key and no code is in it. The user can have none kept.
"""

from collections import deque
from dataclasses import dataclass
from typing import Annotated, Final

import anyio
from msgspec import Meta, Struct

from e2ecall.client.contacts import Contacts
from e2ecall.client.stored import Stored
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.encoding import decode_stored, encode_stored
from relay.wire.names import Address
from relay.wire.records import AddressText

MAX_CALLS: Final = 500
"""Calls that are kept; the oldest make room."""

MAX_UNTOLD: Final = 100
"""Missed calls that a program was not told of yet; the oldest make room."""

MAX_OF_STRANGERS: Final = 100
"""Of those, calls of people whom the user never called or wrote to."""

_FORMAT: Final = 1
_NUMBER_BYTES: Final = 8
_OFF: Final = b"no history"

Milliseconds = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF_FFFF)]


@dataclass(frozen=True, slots=True)
class PastCall:
    """A call that is over; ``began`` is in Unix seconds, ``seconds`` how long both were connected.

    A call that came while this device was off line began when its caller says so.
    """

    peer: str
    outgoing: bool
    began: float
    seconds: float
    reason: EndReason
    video: bool

    @property
    def missed(self) -> bool:
        """Whether somebody called, and the user neither took nor declined the call."""
        return not (self.outgoing or self.seconds or self.reason is EndReason.DECLINED)


class _Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[1, peer, outgoing, began in ms, length in ms, reason, video]``."""

    format: Annotated[int, Meta(ge=1, le=1)]
    peer: AddressText
    outgoing: bool
    began_ms: Milliseconds
    length_ms: Milliseconds
    reason: EndReason
    video: bool


class History:
    """The past calls in a store."""

    def __init__(self, store: Store, contacts: Contacts) -> None:
        self._store = store
        self._contacts = contacts
        self._records = Stored(store, RecordKind.HISTORY, _decode)
        self._lock = anyio.Lock()
        self._missed: deque[PastCall] = deque(maxlen=MAX_UNTOLD)
        self._changed = anyio.Event()

    @property
    def is_kept(self) -> bool:
        """Whether calls are noted."""
        return self._store.get(RecordKind.ACCOUNT, _OFF) is None

    def all(self) -> tuple[PastCall, ...]:
        """Return all past calls, the latest to end first."""
        return tuple(_shown(record) for record in reversed(self._records.all().values()))

    async def next_missed(self, closed: anyio.Event) -> PastCall | None:
        """Return the next missed call, noted or not; None when no more can come."""
        while not self._missed:
            if closed.is_set():
                return None
            await self._changed.wait()
        return self._missed.popleft()

    def wake(self) -> None:
        """Have `next_missed` look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def note(self, call: PastCall) -> None:
        """Tell of a call that is over, and store it if calls are noted (HISTORY-01, HISTORY-02)."""
        try:
            await self._store_call(call)
        finally:
            if call.missed:
                self._missed.append(call)
                self.wake()

    async def _store_call(self, call: PastCall) -> None:
        async with self._lock:
            if not self.is_kept:
                return
            records = self._records.all()
            number = 1 + max((int.from_bytes(key) for key in records), default=0)
            record = _Record(
                _FORMAT,
                call.peer,
                call.outgoing,
                _milliseconds(call.began),
                _milliseconds(call.seconds),
                call.reason,
                call.video,
            )
            changes = [_change(number.to_bytes(_NUMBER_BYTES), encode_stored(record))]
            await self._store.write(changes + self._room(records, call.peer))

    async def keep(self, kept: bool) -> None:
        """Note calls from now on; or no longer, and forget those that were (HISTORY-02)."""
        async with self._lock:
            off = Change(RecordKind.ACCOUNT, _OFF, None if kept else encode_stored(_FORMAT))
            gone = [] if kept else [_change(key, None) for key in self._records.all()]
            await self._store.write([off, *gone])

    async def clear(self) -> None:
        """Forget all past calls."""
        async with self._lock:
            await self._store.write([_change(key, None) for key in self._records.all()])

    def _room(self, records: dict[bytes, _Record], peer: str) -> list[Change]:
        """Return what has to go for one more call with ``peer`` (HISTORY-04)."""
        gone = sorted(records)[: len(records) + 1 - MAX_CALLS] if len(records) >= MAX_CALLS else []
        if self._is_stranger(peer):
            strangers = [key for key, record in records.items() if self._is_stranger(record.peer)]
            if len(strangers) >= MAX_OF_STRANGERS:
                gone = [min(strangers)]
        return [_change(key, None) for key in gone]

    def _is_stranger(self, peer: str) -> bool:
        return self._contacts.get(Address.parse(peer)).is_stranger


def forgetting(store: Store, peer: Address) -> list[Change]:
    """Return the changes that forget all calls with somebody."""
    records = Stored(store, RecordKind.HISTORY, _decode).all()
    return [_change(key, None) for key, record in records.items() if record.peer == str(peer)]


def _change(key: bytes, value: bytes | None) -> Change:
    return Change(RecordKind.HISTORY, key, value)


def _decode(value: bytes) -> _Record:
    return decode_stored(value, _Record)


def _milliseconds(seconds: float) -> int:
    return max(0, int(seconds * 1000))


def _shown(record: _Record) -> PastCall:
    return PastCall(
        record.peer,
        record.outgoing,
        record.began_ms / 1000,
        record.length_ms / 1000,
        record.reason,
        record.video,
    )
