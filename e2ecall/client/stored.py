"""Records as values (spec/store.md): read through the store, decoded once each time they change.

What the rest of the client sees is what the store holds, so the two cannot differ, whatever a
cancellation interrupts. It writes nothing.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from e2ecall.io.store import RecordKind, Store

T = TypeVar("T")


class Stored(Generic[T]):
    """The records of one kind, as ``decode`` reads them."""

    def __init__(self, store: Store, kind: RecordKind, decode: Callable[[bytes], T]) -> None:
        self._store = store
        self._kind = kind
        self._decode = decode
        self._decoded: dict[bytes, tuple[bytes, T]] = {}

    def get(self, key: bytes = b"") -> T | None:
        """Return the value of one record.

        Raises:
            StoreError: it was written in another format.
        """
        record = self._store.get(self._kind, key)
        if record is None:
            self._decoded.pop(key, None)
            return None
        found = self._decoded.get(key)
        if found is None or found[0] is not record:
            found = record, self._decode(record)
            self._decoded[key] = found
        return found[1]

    def all(self) -> dict[bytes, T]:
        """Return the values of all records by their keys; raises as `get` does."""
        records = self._store.all(self._kind)
        for gone in self._decoded.keys() - records.keys():
            del self._decoded[gone]
        values = {key: self.get(key) for key in sorted(records)}
        return {key: value for key, value in values.items() if value is not None}
