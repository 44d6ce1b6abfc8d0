"""The encrypted store (spec/store.md), on real files; each test names its requirement."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from functools import partial

import anyio
import pytest

from e2ecall.errors import StoreError
from e2ecall.io.migrations import FORMAT
from e2ecall.io.records import MAX_RECORD
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.io.storefile import APPLICATION_ID
from e2ecall.secret import Secret
from tests.io.conftest import CHEAP

pytestmark = pytest.mark.anyio

PASSPHRASE = Secret(b"correct horse")
PEER = RecordKind.PEER
HEADER = "SELECT value FROM header WHERE name = 'header'"
SET_HEADER = "UPDATE header SET value = ? WHERE name = 'header'"


@asynccontextmanager
async def opened(path, passphrase=PASSPHRASE):
    store = await Store.open(path, passphrase, cost=CHEAP)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "me.db"


@pytest.fixture
async def filled(path):
    """A closed store with a few records."""
    async with opened(path) as store:
        await store.write(
            [
                Change(RecordKind.ACCOUNT, b"", b"the account"),
                Change(PEER, b"alice@relay.example", b"keys of alice"),
                Change(PEER, b"bob@relay.example", b"keys of bob" * 500),
            ]
        )
    return path


def execute(path, statement, *parameters):
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(statement, parameters).fetchall()


async def test_reads_what_was_written(filled):
    """STORE-10: after closing and opening, every record is there as it was written."""
    async with opened(filled) as store:
        assert store.get(RecordKind.ACCOUNT) == b"the account"
        assert store.get(RecordKind.ACCOUNT, b"other") is None
        assert store.all(PEER) == {
            b"alice@relay.example": b"keys of alice",
            b"bob@relay.example": b"keys of bob" * 500,
        }
        assert store.all(RecordKind.INBOX) == {}


async def test_replace_and_delete(filled):
    """STORE-10: a record can be replaced and deleted; deleting nothing is no error."""
    async with opened(filled) as store:
        await store.write(
            [
                Change(PEER, b"alice@relay.example", b"newer"),
                Change(PEER, b"bob@relay.example", None),
                Change(PEER, b"nobody@relay.example", None),
            ]
        )
        expected = {b"alice@relay.example": b"newer"}
        assert store.all(PEER) == expected
    async with opened(filled) as store:
        assert store.all(PEER) == expected


async def test_the_file_shows_nothing(filled):
    """STORE-04, S4: neither names nor values nor the passphrase are in the file."""
    data = filled.read_bytes()
    for text in (b"alice", b"bob", b"relay.example", b"account", b"keys of", b"correct horse"):
        assert text not in data
    names = [name for (name,) in execute(filled, "SELECT name FROM records")]
    assert [len(name) for name in names] == [32, 32, 32]


async def test_two_stores_name_the_same_differently(filled, tmp_path):
    """STORE-04: row ids are keyed, so the same contact cannot be recognised in two stores."""
    async with opened(tmp_path / "other.db") as store:
        await store.write([Change(PEER, b"alice@relay.example", b"keys of alice")])
    ids = "SELECT name FROM records"
    assert not set(execute(filled, ids)) & set(execute(tmp_path / "other.db", ids))


async def test_deleted_records_are_gone(filled):
    """STORE-11: what was deleted is overwritten, so that its ciphertext cannot be recovered."""
    rows = execute(filled, "SELECT value FROM records")
    async with opened(filled) as store:
        keys = {kind: list(store.all(kind)) for kind in RecordKind}
        await store.write([Change(kind, key, None) for kind in keys for key in keys[kind]])
    data = filled.read_bytes()
    assert all(value[:64] not in data for (value,) in rows)


async def test_only_the_owner_reads_it(path):
    """STORE-12: the file is made readable by its owner alone, whatever the umask."""
    before = os.umask(0)
    try:
        async with opened(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_wrong_passphrase(filled):
    """STORE-03, S1: a wrong passphrase is refused with a hint, and the file is not touched."""
    before = filled.read_bytes()
    for wrong in (b"correct hors", b"correct horse ", b"Correct horse", b"x"):
        with pytest.raises(StoreError, match="passphrase does not open") as caught:
            await Store.open(filled, Secret(wrong))
        assert caught.value.hint
    assert filled.read_bytes() == before
    async with opened(filled) as store:
        assert store.get(RecordKind.ACCOUNT) == b"the account"


async def test_truncated(filled):
    """S1: a store that was cut off anywhere is refused, and not touched."""
    whole = filled.read_bytes()
    for length in range(0, len(whole), 512):
        filled.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            await Store.open(filled, PASSPHRASE)
        assert filled.read_bytes() == whole[:length]
    assert sorted(file.name for file in filled.parent.iterdir()) == [filled.name]


async def test_cut_within_the_last_page(filled):
    """S1: also a cut that takes nothing but unused space is noticed."""
    whole = filled.read_bytes()
    filled.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match="damaged"):
        await Store.open(filled, PASSPHRASE)


async def test_missing_row(filled):
    """STORE-06: a row that is gone is noticed, whichever it is."""
    pristine = filled.read_bytes()
    for (name,) in execute(filled, "SELECT name FROM records"):
        execute(filled, "DELETE FROM records WHERE name = ?", name)
        with pytest.raises(StoreError, match="damaged"):
            await Store.open(filled, PASSPHRASE)
        filled.write_bytes(pristine)


async def test_older_row(filled):
    """STORE-06: a row's former value, put back, is noticed: no single ratchet goes back in time."""
    before = dict(execute(filled, "SELECT name, value FROM records"))
    async with opened(filled) as store:
        await store.write([Change(PEER, b"alice@relay.example", b"next keys")])
    after = dict(execute(filled, "SELECT name, value FROM records"))
    ((name, value),) = before.items() - after.items()
    execute(filled, "UPDATE records SET value = ? WHERE name = ?", value, name)
    with pytest.raises(StoreError, match="damaged"):
        await Store.open(filled, PASSPHRASE)


async def test_too_long(filled):
    """STORE-05: a record that could not be read again is refused before anything is written."""
    async with opened(filled) as store:
        before = store.all(PEER)
        await store.write([Change(PEER, b"long", b"x" * (MAX_RECORD - 100))])
        with pytest.raises(StoreError, match="too long"):
            await store.write([Change(PEER, b"e", b"e"), Change(PEER, b"f", b"x" * MAX_RECORD)])
        await store.write([Change(PEER, b"long", None)])
        assert store.all(PEER) == before
    async with opened(filled) as store:
        assert store.all(PEER) == before


async def test_every_byte_of_a_record_counts(filled):
    """STORE-06, S1: a flipped bit in a row's id or value is found when the store is opened."""
    rows = execute(filled, "SELECT name, value FROM records ORDER BY length(value)")
    name, value = rows[0]
    pristine = filled.read_bytes()
    places = [("value", value, at) for at in range(len(value))]
    places += [("name", name, at) for at in range(len(name))]
    for column, original, at in places:
        changed = bytearray(original)
        changed[at] ^= 1 << at % 8
        execute(filled, f"UPDATE records SET {column} = ? WHERE name = ?", bytes(changed), name)
        damaged = filled.read_bytes()
        with pytest.raises(StoreError, match="damaged") as caught:
            await Store.open(filled, PASSPHRASE)
        assert caught.value.hint
        assert filled.read_bytes() == damaged
        filled.write_bytes(pristine)


async def test_every_byte_of_the_header_counts(filled):
    """STORE-02, S1: a flipped bit in the header is refused; none makes a weaker derivation."""
    ((header,),) = execute(filled, HEADER)
    for at in range(len(header)):
        changed = bytearray(header)
        changed[at] ^= 1
        execute(filled, SET_HEADER, bytes(changed))
        with pytest.raises(StoreError):
            await Store.open(filled, PASSPHRASE)
    execute(filled, SET_HEADER, header)
    async with opened(filled) as store:
        assert store.get(RecordKind.ACCOUNT) == b"the account"


async def test_flipped_bits_anywhere_in_the_file(filled):
    """S1: with any bit of the file flipped, opening is refused or gives every record unchanged."""
    whole = filled.read_bytes()
    expected = {
        b"alice@relay.example": b"keys of alice",
        b"bob@relay.example": b"keys of bob" * 500,
    }
    pages = range(0, len(whole), 4096)
    # Everything of importance to SQLite, such as how many rows a page has, is at a page's start.
    for at in sorted(
        {
            *range(112),
            *(page + n for page in pages for n in range(16)),
            *range(100, len(whole), 101),
        }
    ):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 3
        filled.write_bytes(changed)
        try:
            async with opened(filled) as store:
                assert store.all(PEER) == expected
                assert store.get(RecordKind.ACCOUNT) == b"the account"
        except StoreError:
            assert filled.read_bytes() == changed


async def test_swapped_rows(filled):
    """STORE-05: the values of two rows cannot stand in for each other."""
    (name, value), (other, other_value), _ = execute(filled, "SELECT name, value FROM records")
    execute(filled, "UPDATE records SET value = ? WHERE name = ?", other_value, name)
    execute(filled, "UPDATE records SET value = ? WHERE name = ?", value, other)
    with pytest.raises(StoreError, match="damaged"):
        await Store.open(filled, PASSPHRASE)


async def test_row_of_another_store(filled, tmp_path):
    """STORE-05: a row from another store is refused, also under the same passphrase."""
    async with opened(tmp_path / "other.db") as store:
        await store.write([Change(PEER, b"mallory@relay.example", b"keys")])
    ((name, value),) = execute(tmp_path / "other.db", "SELECT name, value FROM records")
    execute(filled, "INSERT INTO records VALUES (?, ?)", name, value)
    with pytest.raises(StoreError, match="damaged"):
        await Store.open(filled, PASSPHRASE)


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("PRAGMA application_id = 1", "not a store"),
        ("PRAGMA user_version = 0", "format"),
        ("PRAGMA user_version = 1", "damaged"),
        (f"PRAGMA user_version = {FORMAT + 1}", "format"),
        ("DELETE FROM header", "damaged"),
        ("DROP TABLE header", "cannot open"),
        ("DROP TABLE records", "cannot open"),
        ("UPDATE header SET value = 7", "damaged"),
        ("UPDATE records SET value = 'text'", "damaged"),
        ("UPDATE records SET value = x''", "damaged"),
    ],
)
async def test_other_databases(filled, statement, text):
    """STORE-01: another file, another format or other tables are refused by what they are."""
    execute(filled, statement)
    before = filled.read_bytes()
    with pytest.raises(StoreError, match=text):
        await Store.open(filled, PASSPHRASE)
    assert filled.read_bytes() == before


async def test_what_is_no_database(path):
    """STORE-01: an empty file, a text and a folder are refused and left alone."""
    for content, text in ((b"", "is empty"), (b"dear diary" * 100, "is damaged")):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=text):
            await Store.open(path, PASSPHRASE)
        assert path.read_bytes() == content
        path.unlink()
    path.mkdir()
    with pytest.raises(StoreError):
        await Store.open(path, PASSPHRASE)
    assert path.is_dir()


async def test_no_folder(tmp_path):
    """A store in a folder that does not exist is refused, and nothing is created."""
    with pytest.raises(StoreError, match="no folder") as caught:
        await Store.open(tmp_path / "none" / "me.db", PASSPHRASE)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


async def test_expensive_header(filled):
    """STORE-02: a header that asks for absurd work is refused before any is done."""
    ((header,),) = execute(filled, HEADER)
    huge = header.replace(b"\x40\x01\x01", b"\xce\xff\xff\xff\xff\x01\x01")
    assert huge != header
    execute(filled, SET_HEADER, huge)
    with anyio.fail_after(30), pytest.raises(StoreError, match="damaged"):
        await Store.open(filled, PASSPHRASE)


async def test_in_use(path):
    """STORE-07, S3: while it is open nobody else opens it; afterwards anybody does."""
    async with opened(path) as store:
        with pytest.raises(StoreError, match="in use") as caught:
            await Store.open(path, PASSPHRASE)
        assert caught.value.hint
        await store.write([Change(PEER, b"a", b"still works")])
    async with opened(path) as store:
        assert store.get(PEER, b"a") == b"still works"


async def test_created_by_two_at_once(path):
    """STORE-08, S3: of many that create the same store exactly one has it, and it is whole."""
    stores, refusals = [], []

    async def create():
        try:
            stores.append(await Store.open(path, PASSPHRASE, cost=CHEAP))
        except StoreError as error:
            refusals.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(create)
    assert (len(stores), len(refusals)) == (1, 7)
    await stores[0].write([Change(PEER, b"a", b"b")])
    await stores[0].aclose()
    async with opened(path) as store:
        assert store.get(PEER, b"a") == b"b"


async def test_all_or_nothing(filled, monkeypatch):
    """STORE-09: when a write fails half-way nothing has changed, on disk and in memory."""
    async with opened(filled) as store:
        before = store.all(PEER)
        good, bad = Change(PEER, b"c", b"c"), Change(PEER, b"d", b"d")
        seal = store._file._keys.seal

        def fails(record):
            if record.key == bad.key:
                raise sqlite3.OperationalError("database or disk is full")
            return seal(record)

        monkeypatch.setattr(store._file._keys, "seal", fails)
        with pytest.raises(StoreError, match="cannot write") as caught:
            await store.write([good, bad])
        assert caught.value.hint
        assert store.all(PEER) == before
        monkeypatch.undo()
        await store.write([good])
    async with opened(filled) as store:
        assert store.all(PEER) == before | {b"c": b"c"}


async def test_cancelled_write(path):
    """STORE-09: a write that is cancelled happens as a whole, or not at all."""
    async with opened(path) as store:
        for number in range(20):
            changes = [Change(PEER, bytes([number, part]), b"x" * 1000) for part in range(5)]
            with anyio.move_on_after(number / 5_000):
                await store.write(changes)
        kept = store.all(PEER)
        assert all(sum(key[0] == n for key in kept) in {0, 5} for n in range(20))
    async with opened(path) as store:
        assert store.all(PEER) == kept


async def test_writers_at_once(path):
    """S3: writes of many tasks are serialised; each is there afterwards."""
    async with opened(path) as store, anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(store.write, [Change(PEER, bytes([number]), bytes([number]))])
    async with opened(path) as store:
        assert store.all(PEER) == {bytes([n]): bytes([n]) for n in range(30)}


KILLED = """
import os, sys, anyio
from pathlib import Path
from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.secret import Secret

async def main():
    cheap = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
    store = await Store.open(Path(sys.argv[1]), Secret(b"correct horse"), cost=cheap)
    for number in range(10_000):
        key = number.to_bytes(4)
        kinds = (RecordKind.PEER, RecordKind.GUARD)
        await store.write([Change(kind, key, b"x" * 400) for kind in kinds])
        os.write(1, b"%d\\n" % number)

anyio.run(main)
"""


async def test_killed_while_writing(path):
    """STORE-09, S2: after a kill in the middle of writes, every confirmed write is there, whole."""
    command = [sys.executable, "-c", KILLED, str(path)]
    async with await anyio.open_process(command, stdin=subprocess.DEVNULL, stderr=None) as process:
        told = b""
        while told.count(b"\n") < 40:
            told += await process.stdout.receive()
        process.kill()
        await process.wait()
        while True:
            try:
                told += await process.stdout.receive()
            except anyio.EndOfStream:
                break
    confirmed = int(told.split()[-1])
    async with opened(path) as store:
        peers, guards = store.all(PEER), store.all(RecordKind.GUARD)
        assert peers.keys() == guards.keys()
        assert {number.to_bytes(4) for number in range(confirmed + 1)} <= peers.keys()
        assert len(peers) <= confirmed + 2


async def test_copy_opens(filled, tmp_path):
    """A closed store is one file: a copy of it is a backup."""
    shutil.copy(filled, tmp_path / "backup.db")
    async with opened(tmp_path / "backup.db") as store:
        assert store.get(RecordKind.ACCOUNT) == b"the account"
    assert execute(filled, "PRAGMA application_id") == [(APPLICATION_ID,)]


async def test_nothing_to_see_in_errors_and_reprs(filled):
    """S4: neither the store's repr nor its errors show passphrase, names or values."""
    async with opened(filled) as store:
        texts = [repr(store), repr(store._file), repr(PASSPHRASE)]
    for attempt in (
        partial(Store.open, filled, Secret(b"guess")),
        partial(Store.open, filled.parent, PASSPHRASE),
    ):
        with pytest.raises(StoreError) as caught:
            await attempt()
        texts += [str(caught.value), repr(caught.value)]
    for text in texts:
        assert not any(word in text for word in ("correct", "guess", "alice", "keys of"))
