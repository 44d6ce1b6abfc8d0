"""The forwarding table in shared memory: what a reader may find, whatever the writer does."""

import mmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.io.media.names import decode_name, encode_name
from relay.io.media.routetable import (
    HEADER,
    MAX_RECORDS,
    RECORD,
    RouteReader,
    RouteWriter,
    route_key,
    table_size,
)

NUMBER = b"\x40\x01"
TO = encode_name(("192.0.2.1", 9))


def key(port, number=NUMBER, listener=0):
    return route_key(listener, encode_name(("127.0.0.1", port)), number)


class Table:
    """A writer, and a reader of its own mapping."""

    def __init__(self, records=8):
        self.memory = mmap.mmap(-1, table_size(records))
        self.writer = RouteWriter(self.memory, records, bytes(range(32)))
        self.reader = RouteReader(self.memory, records)

    def close(self):
        self.reader.close()
        self.writer.close()
        self.memory.close()


@pytest.fixture
def table():
    table = Table()
    yield table
    table.close()


def test_a_route_is_found_whole(table):
    """A reader finds a published route as it was published, and no other (TURN-56)."""
    assert table.writer.publish(key(1), 12.5, 3, TO, b"\x40\x07")
    found = table.reader.find(key(1))
    assert found[2:] == (12.5, 3, TO, b"\x40\x07")
    assert table.reader.words[found.word] == found.generation
    others = (key(2), key(1, b"\x40\x02"), key(1, listener=1), route_key(0, bytes(28), NUMBER))
    assert not any(map(table.reader.find, others))


def test_a_change_is_seen_by_who_remembers(table):
    """Each change of a route and its end make its remembered generation wrong (TURN-56)."""
    seen = set()
    for until in range(5):
        table.writer.publish(key(1), until, 0, TO, NUMBER)
        found = table.reader.find(key(1))
        assert found.until == until
        seen.add(found.generation)
    table.writer.withdraw(key(1))
    assert table.reader.find(key(1)) is None
    assert table.reader.words[found.word] not in seen
    table.writer.publish(key(2), 1, 0, TO, NUMBER)
    other = table.reader.find(key(2))
    assert other.word == found.word
    assert other.generation not in seen
    assert len(seen) == 5


def test_a_table_is_bounded(table):
    """A route that finds no room is not published, and room that is given back is used again."""
    published = [table.writer.publish(key(port), 1, 0, TO, NUMBER) for port in range(12)]
    assert published == [True] * 8 + [False] * 4
    assert len(table.writer) == 8
    table.writer.withdraw(key(3))
    table.writer.withdraw(key(3))
    assert table.writer.publish(key(9), 1, 0, TO, NUMBER)
    assert table.reader.find(key(9)) is not None
    assert table.reader.find(key(3)) is None
    assert len(table.writer) == 8


@pytest.mark.parametrize("records", [0, MAX_RECORDS + 1])
def test_sizes_of_a_table(records):
    """A table without records, or with more than an index entry can name, is refused."""
    with pytest.raises(ValueError, match="records"):
        table_size(records)


@settings(max_examples=300)
@given(st.data())
def test_a_torn_record_is_never_followed(data):
    """Read at any moment of any write, in any order of words, a route is the old or the new one
    or none, never a mixture (TURN-56).
    """
    table = Table(records=1)
    first, second = data.draw(st.permutations([1, 2, 3]))[:2]
    times = data.draw(st.lists(st.sampled_from([1.0, 2.0]), min_size=2, max_size=2))
    table.writer.publish(key(first), times[0], 0, TO, b"\x40\x01")
    table.writer.publish(key(first), times[0], 0, TO, b"\x40\x01")
    old = bytes(table.memory)
    if data.draw(st.booleans()):
        table.writer.withdraw(key(first))
    else:
        second = first
    table.writer.publish(key(second), times[1], 1, encode_name(("::1", 7)), b"\x40\x02")
    new = bytes(table.memory)
    legal = {
        (port, bytes(memory)): read(table, memory, port)
        for memory in (old, new)
        for port in (1, 2, 3)
    }
    begin = len(old) - RECORD
    taken = data.draw(st.lists(st.booleans(), min_size=RECORD // 8, max_size=RECORD // 8))
    mixed = bytearray(data.draw(st.sampled_from([old, new])))
    for word, is_new in enumerate(taken):
        here = slice(begin + 8 * word, begin + 8 * word + 8)
        mixed[here] = (new if is_new else old)[here]
    for port in (1, 2, 3):
        found = read(table, mixed, port)
        assert found in {None, legal[port, old], legal[port, new]}
    table.close()


def read(table, memory, port):
    """Return what a reader finds in a given state of the memory."""
    before = bytes(table.memory)
    table.memory[:] = bytes(memory)
    try:
        return table.reader.find(key(port))
    finally:
        table.memory[:] = before


class Model(RuleBasedStateMachine):
    """A table against a dictionary."""

    def __init__(self):
        super().__init__()
        self.table = Table(records=16)
        self.routes = {}
        self.remembered = {}

    @rule(port=st.integers(1, 40), until=st.floats(0, 100), to=st.integers(1, 9))
    def publish(self, port, until, to):
        if self.table.writer.publish(key(port), until, to, TO, NUMBER):
            self.routes[port] = (until, to)
        else:
            assert len(self.routes) == 16
            assert port not in self.routes
        self.remembered.pop(port, None)

    @rule(port=st.integers(1, 40))
    def withdraw(self, port):
        self.table.writer.withdraw(key(port))
        self.routes.pop(port, None)

    @rule(port=st.integers(1, 40))
    def remember(self, port):
        found = self.table.reader.find(key(port))
        if found is not None:
            self.remembered[port] = found

    @invariant()
    def same(self):
        for port in range(1, 41):
            found = self.table.reader.find(key(port))
            assert (found and found[2:4]) == self.routes.get(port)
        for port, found in self.remembered.items():
            if self.table.reader.words[found.word] == found.generation:
                assert self.routes[port] == found[2:4]

    def teardown(self):
        self.table.close()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=40)


@pytest.mark.parametrize(
    "address",
    [("127.0.0.1", 9), ("255.254.253.252", 65535), ("::1", 9, 0, 0), ("fe80::1", 1, 0, 2)],
)
def test_names_are_the_kernels(address):
    """A socket address survives the way through the kernel's form."""
    assert decode_name(encode_name(address)) == address
    assert len(encode_name(address)) == (28 if ":" in address[0] else 16)


def test_scopes_by_name():
    """A scope that is spelled in the host is that of the tuple."""
    assert encode_name(("fe80::1%lo", 1, 0, 1)) == encode_name(("fe80::1", 1, 0, 1))


def test_header_is_one_cache_line():
    """What all readers read for each packet stands apart from what is written often."""
    assert HEADER == 64
