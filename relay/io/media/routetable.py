"""The forwarding table in shared memory: one writer, readers that never wait (spec/turn.md).

Native byte order, as it never leaves the machine. ``header | index | records``::

    header   rate:u64 (bytes a second of one allocation) | multiplier: 32 bytes | zero: 24 bytes
    index    u32 for each bucket: 0, or fingerprint:12 (high) | record number + 1:20
    record   generation:u64 | until:f64 (CLOCK_MONOTONIC) | checksum:u32 | key: 31 bytes |
             listener:u8 | name length:u8 | name: 28 bytes (sockaddr) | number: 2 bytes | zero: 13

A key is ``listener:u8 name: 28 bytes number: 2 bytes``: at which socket, from whom, on which
channel; ``name`` is the kernel's socket address, filled up with zeros. It is in the index within
`PROBES` buckets of its hash. The hash multiplies by a secret number, so that nobody can choose
addresses that meet in one bucket.

A record's generation is odd while it holds a route and grows with every change, so a reader that
remembers a record needs to compare one number to know that it still holds. The checksum covers
generation and content: a record that is read while it is written is refused on any machine, however
it orders its memory accesses. Where a reader finds nothing, the rules decide.
"""

import mmap
import struct
import zlib
from typing import Final, NamedTuple

HEADER: Final = 64
RECORD: Final = 96
PROBES: Final = 16
NAME: Final = 28
NUMBER: Final = 2
KEY: Final = 1 + NAME + NUMBER
MAX_RECORDS: Final = 1 << 19

_HASH_BITS: Final = 256
_HASH_MASK: Final = (1 << _HASH_BITS) - 1
_FINGERPRINT: Final = 0xFFF << 20
_NUMBER_MASK: Final = (1 << 20) - 1
_CONTENT = struct.Struct(f"={KEY}sBB{NAME}s{NUMBER}s")
_RECORD = struct.Struct(f"=QdI{_CONTENT.size}s")
_COVERED = struct.Struct("=Qd")


class Target(NamedTuple):
    """Where the packets of one key go; ``word`` and ``generation`` say whether they still do."""

    word: int
    """Where the record's generation is, in u64 words from the beginning of the table."""
    generation: int
    until: float
    listener: int
    name: bytes
    """The receiver's socket address."""
    number: bytes


class _Layout:
    """Where things are in a table for so many records."""

    def __init__(self, records: int) -> None:
        if not 0 < records <= MAX_RECORDS:
            raise ValueError(f"a table has 1 to {MAX_RECORDS} records")
        self.records = records
        self.bucket_bits = max(6, (2 * records - 1).bit_length())
        self.buckets = 1 << self.bucket_bits
        self.first_record = HEADER + 4 * self.buckets
        self.size = self.first_record + RECORD * records

    def probes(self, key: bytes, multiplier: int) -> tuple[int, range]:
        """Return the fingerprint of a key, in place, and from where its buckets begin."""
        product = int.from_bytes(key, "little") * multiplier & _HASH_MASK
        drawn = product >> (_HASH_BITS - self.bucket_bits - 12)
        begin = drawn >> 12
        return (drawn & 0xFFF) << 20, range(begin, begin + PROBES)


class RouteWriter:
    """The one writer. Its routes are withdrawn when the memory is gone, and not before."""

    def __init__(self, memory: mmap.mmap, records: int, secret: bytes) -> None:
        """Make an empty table in zeroed ``memory`` with 32 random bytes."""
        self._layout = _Layout(records)
        self._memory = memory
        self._multiplier = int.from_bytes(secret, "little") | 1
        memory[8:40] = self._multiplier.to_bytes(32, "little")
        self._words = memoryview(memory).cast("Q")
        first = HEADER // 4
        self._index = memoryview(memory).cast("I")[first : first + self._layout.buckets]
        self._used = 0
        self._free: list[int] = []
        self._places: dict[bytes, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def set_rate(self, rate: int) -> None:
        """Say how many bytes a second an allocation may send."""
        self._words[0] = rate

    def publish(self, key: bytes, until: float, listener: int, name: bytes, number: bytes) -> bool:
        """Put in a route, or replace it; return False if there is no room for it."""
        place = self._places.get(key)
        if place is None:
            place = self._take_place(key)
            if place is None:
                return False
        bucket, record = place
        offset = self._layout.first_record + RECORD * record
        word = offset // 8
        generation = self._words[word] + 1 | 1
        self._words[word] = generation - 1
        content = _CONTENT.pack(key, listener, len(name), name, number)
        checksum = zlib.crc32(content, zlib.crc32(_COVERED.pack(generation, until)))
        _RECORD.pack_into(self._memory, offset, generation - 1, until, checksum, content)
        self._words[word] = generation
        self._index[bucket] = self._layout.probes(key, self._multiplier)[0] | (record + 1)
        return True

    def withdraw(self, key: bytes) -> None:
        """Take a route out, if it is in."""
        place = self._places.pop(key, None)
        if place is None:
            return
        bucket, record = place
        word = (self._layout.first_record + RECORD * record) // 8
        self._words[word] += 1
        self._index[bucket] = 0
        self._free.append(record)

    def close(self) -> None:
        """Let go of the memory, which belongs to the caller."""
        self._index.release()
        self._words.release()

    def _take_place(self, key: bytes) -> tuple[int, int] | None:
        _, buckets = self._layout.probes(key, self._multiplier)
        for probe in buckets:
            bucket = probe % self._layout.buckets
            if not self._index[bucket]:
                record = self._take_record()
                if record is None:
                    return None
                place = self._places[key] = (bucket, record)
                return place
        return None

    def _take_record(self) -> int | None:
        if self._free:
            return self._free.pop()
        if self._used == self._layout.records:
            return None
        self._used += 1
        return self._used - 1


class RouteReader:
    """A reader, in any process. It only ever reads."""

    def __init__(self, memory: mmap.mmap, records: int) -> None:
        self.records = records
        self._layout = _Layout(records)
        self._memory = memory
        self._multiplier = int.from_bytes(memory[8:40], "little")
        self.words = memoryview(memory).cast("Q")
        """All of it: ``words[0]`` is the rate, ``words[target.word]`` a generation."""
        first = HEADER // 4
        self._index = memoryview(memory).cast("I")[first : first + self._layout.buckets]

    def find(self, key: bytes) -> Target | None:
        """Return the route of a key; None also where it is being changed at this moment."""
        fingerprint, buckets = self._layout.probes(key, self._multiplier)
        for probe in buckets:
            entry = self._index[probe % self._layout.buckets]
            if entry and entry & _FINGERPRINT == fingerprint:
                target = self._read((entry & _NUMBER_MASK) - 1, key)
                if target is not None:
                    return target
        return None

    def close(self) -> None:
        """Let go of the memory, which belongs to the caller."""
        self._index.release()
        self.words.release()

    def _read(self, record: int, key: bytes) -> Target | None:
        if record >= self._layout.records:
            return None
        offset = self._layout.first_record + RECORD * record
        generation, until, checksum, content = _RECORD.unpack_from(self._memory, offset)
        found, listener, length, name, number = _CONTENT.unpack(content)
        if found != key or not generation & 1:
            return None
        if zlib.crc32(content, zlib.crc32(_COVERED.pack(generation, until))) != checksum:
            return None
        return Target(offset // 8, generation, until, listener, name[:length], number)


def route_key(listener: int, name: bytes, number: bytes) -> bytes:
    """Return the key of a sender's channel."""
    return bytes((listener,)) + name.ljust(NAME, b"\0") + number


def table_size(records: int) -> int:
    """Return the bytes of a table with so many records."""
    return _Layout(records).size
