"""What only the SQLite backend has: its file, its thread, its failures (spec/wire.md, Storage)."""

import os
import sqlite3
from functools import partial

import pytest
import trio

from relay.errors import OperatorError, RefusedError, StorageError
from relay.io import writer
from relay.io.memory import MemoryPresence
from relay.io.sqlite import FORMAT, open_storage
from relay.io.sqlite_mailbox import SQLiteMailbox
from relay.io.tails import Tails
from relay.io.writer import Writer
from relay.services.delivery import Readers
from relay.services.mailbox import TOMBSTONE_LIFETIME, BoxMailbox, Letter, Stored
from relay.wire.messages import ErrorCode
from tests.relay.io.storing import DEVICE, NOW, account, put, read

pytestmark = pytest.mark.trio

BOX = BoxMailbox(bytes(32))


@pytest.fixture
async def storage(tmp_path):
    async with open_storage(tmp_path / "relay.sqlite", Readers()) as opened:
        yield opened


async def rows(path, query):
    with sqlite3.connect(path) as db:
        found = db.execute(query).fetchall()
    db.close()
    return found


def pages_in_use(db):
    return db.execute(
        "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count"
    ).fetchone()


async def test_boxes_are_capped(tmp_path):
    """The number of reply boxes of a relay is bounded; opening one again is always possible."""
    async with open_storage(tmp_path / "relay.sqlite", Readers()) as storage:
        tails = Tails()
        presence = MemoryPresence(Readers(), tails)
        mailbox = SQLiteMailbox(storage.writer, presence, tails, max_boxes=2)
        for number in range(2):
            await mailbox.open_box(BoxMailbox(bytes([number]) * 32), NOW)
        with pytest.raises(RefusedError) as caught:
            await mailbox.open_box(BoxMailbox(bytes([2]) * 32), NOW)
        assert caught.value.code is ErrorCode.TOO_MANY
        await mailbox.open_box(BoxMailbox(bytes([1]) * 32), NOW)


async def test_acknowledged_envelope_is_not_kept(storage, tmp_path):
    """An acknowledged envelope is no longer in the database."""
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    await put(storage, box)
    (mail,) = await read(storage, box)
    await storage.mailbox.remove([(box, mail.row)], NOW)
    found = await rows(tmp_path / "relay.sqlite", "SELECT envelope FROM mail")
    assert found == [(None,)]


async def test_acknowledged_envelopes_leave_their_room(storage):
    """WIRE-30: of an acknowledged envelope no more room stays taken than its id needs."""
    rounds, under_way, per_id = 40, 8, 250
    await storage.mailbox.open_box(BOX, NOW)
    (before,) = await storage.writer.run(pages_in_use)
    for _ in range(rounds):
        letters = [Letter(os.urandom(16), os.urandom(9_000)) for _ in range(under_way)]
        await storage.mailbox.put(BOX, letters, None, NOW)
        came = [(BOX, mail.row) for mail in await read(storage, BOX)]
        assert len(came) == under_way
        await storage.mailbox.remove(came, NOW)
    (after,) = await storage.writer.run(pages_in_use)
    assert 4_096 * (after - before) < rounds * under_way * per_id


async def test_what_was_is_overwritten(tmp_path, monkeypatch, speak):
    """STORAGE-14: no bytes of acknowledged mail or of a deleted account stay in the files."""
    monkeypatch.setattr(writer, "WIPE_SECONDS", 0.0)
    mark, box = os.urandom(16), BoxMailbox(bytes(32))

    async def found(*texts):
        """Say which of these are in the database or its log."""
        await storage.probe()  # after which the log is emptied
        await storage.probe()
        held = b"".join(path.read_bytes() for path in tmp_path.glob("relay.sqlite*"))
        return [text in held for text in texts]

    async with open_storage(tmp_path / "relay.sqlite", Readers()) as storage:
        await storage.directory.create(account(speak, "departed")[1])
        await storage.mailbox.open_box(box, NOW)
        for _ in range(4):
            await put(storage, box, mark * 1000)
        assert await found(mark, b"departed") == [True, True]
        mails = await read(storage, box)
        await storage.mailbox.remove([(box, mail.row) for mail in mails], NOW)
        await storage.directory.delete("departed")
        assert await found(mark, b"departed") == [False, False]


async def test_refused_mail_is_not_kept(storage, tmp_path):
    """Mail for nobody does the same writes as other mail, and leaves nothing."""
    assert await put(storage, DEVICE) is Stored.REFUSED
    assert await rows(tmp_path / "relay.sqlite", "SELECT * FROM mail") == []


async def test_failed_job_is_alone(tmp_path):
    """A job that fails in a shared transaction changes nothing, and the others are done."""
    results = []

    async def run(writer, number):
        def work(db):
            db.execute("INSERT INTO numbers VALUES (?)", (number,))
            if number % 2:
                raise RuntimeError(number)

        try:
            await writer.run(work)
            results.append(number)
        except StorageError:
            results.append(-number)

    async with Writer(tmp_path / "db") as writer:
        await writer.run(lambda db: db.execute("CREATE TABLE numbers (n INTEGER)"))
        async with trio.open_nursery() as nursery:
            for number in range(1, 21):
                nursery.start_soon(run, writer, number)
        kept = await writer.run(lambda db: db.execute("SELECT n FROM numbers").fetchall())
    assert {n for (n,) in kept} == {n for n in range(1, 21) if n % 2 == 0}
    assert set(results) == {n if n % 2 == 0 else -n for n in range(1, 21)}


async def test_locked_database(tmp_path, monkeypatch):
    """F2, STORAGE-08: while another process writes, requests fail as retryable; then they work."""
    monkeypatch.setattr("relay.io.writer.BUSY_TIMEOUT", 0.05)
    path = tmp_path / "relay.sqlite"
    async with open_storage(path, Readers()) as storage:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError):
            await storage.mailbox.open_box(BoxMailbox(bytes(32)), NOW)
        other.execute("ROLLBACK")
        other.close()
        await storage.mailbox.open_box(BoxMailbox(bytes(32)), NOW)


async def test_full_disk(tmp_path):
    """F2, STORAGE-01: on a full disk mail is refused as retryable, never acknowledged and lost."""
    async with open_storage(tmp_path / "relay.sqlite", Readers()) as storage:
        box = BoxMailbox(bytes(32))
        await storage.mailbox.open_box(box, NOW)
        writer = storage.writer

        def limit(db):
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {pages + 20}")

        await writer.run(limit)
        stored = 0
        with pytest.raises(StorageError):
            while True:
                assert await put(storage, box, bytes(30_000)) is Stored.NEW
                stored += 1
        assert len(await read(storage, box)) == stored
        await writer.run(lambda db: db.execute("PRAGMA max_page_count = 100000"))
        assert await put(storage, box, bytes(30_000)) is Stored.NEW


async def test_no_time_is_kept_of_what_was_acknowledged(storage, speak, tmp_path):
    """STORAGE-17: when something came for a device is in no row once it was acknowledged and its
    message id forgotten.
    """
    _, somebody = account(speak)
    await storage.directory.create(somebody)
    for _ in range(2):
        assert await put(storage, DEVICE, b"first", NOW + 1234) is Stored.NEW
        (mail,) = await read(storage, DEVICE)
        await storage.mailbox.remove([(DEVICE, mail.row)], NOW)
    await storage.mailbox.sweep(NOW + TOMBSTONE_LIFETIME)
    assert await rows(tmp_path / "relay.sqlite", "SELECT row FROM mail") == []
    kept = "SELECT key, envelopes, touched FROM mailboxes WHERE id <> 0"
    assert await rows(tmp_path / "relay.sqlite", kept) == [(DEVICE.key, 0, 0)]


@pytest.mark.parametrize("name", ["relay.sqlite", "relay.sqlite-wal"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_taken_away(tmp_path, name, replaced):
    """F2, STORAGE-16: while the database or its log is not in its place, nothing is stored and
    the disk cannot be looked at; when it is back all goes on.
    """
    path, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    async with open_storage(tmp_path / "relay.sqlite", Readers()) as storage:
        await storage.mailbox.open_box(BOX, NOW)
        assert await put(storage, BOX, b"before") is Stored.NEW
        path.rename(elsewhere)
        if replaced:
            path.write_bytes(elsewhere.read_bytes())
        for attempt in (partial(put, storage, BOX, b"never"), storage.probe):
            with pytest.raises(StorageError):
                await attempt()
        if name == "relay.sqlite" and not replaced:
            with pytest.raises(StorageError):
                await storage.directory.usage()
        elsewhere.replace(path)
        assert await put(storage, BOX, b"after") is Stored.NEW
        await storage.probe()
        await storage.directory.usage()
    async with open_storage(tmp_path / "relay.sqlite", Readers()) as storage:
        assert [mail.envelope for mail in await read(storage, BOX)] == [b"before", b"after"]


async def test_full_disk_takes_all_or_nothing(tmp_path):
    """F2, WIRE-61: of several envelopes that the disk has no room for together none is stored."""
    async with open_storage(tmp_path / "relay.sqlite", Readers()) as storage:
        await storage.mailbox.open_box(BOX, NOW)

        def limit(db):
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {pages + 20}")

        await storage.writer.run(limit)
        letters = [Letter(os.urandom(16), bytes(30_000)) for _ in range(5)]
        with pytest.raises(StorageError):
            await storage.mailbox.put(BOX, letters, None, NOW)
        assert await read(storage, BOX) == []
        await storage.writer.run(lambda db: db.execute("PRAGMA max_page_count = 100000"))
        assert await storage.mailbox.put(BOX, letters, None, NOW) == [Stored.NEW] * 5


async def test_what_frees_room_is_done_first(tmp_path):
    """Jobs that free pages are done before the others, and all results are told in that order."""
    done, told = [], []

    async with Writer(tmp_path / "db") as writer:
        await writer.run(lambda db: db.execute("CREATE TABLE numbers (n INTEGER)"))

        async def run(number):
            def work(db):
                db.execute("INSERT INTO numbers VALUES (?)", (number,))
                done.append(number)
                return number

            await writer.run(work, told.append, pieces=1, is_first=number < 0)

        async with trio.open_nursery() as nursery:
            for number in (1, -2, 3, -4, 5):
                nursery.start_soon(run, number)
    assert len(done) == 5
    assert [number < 0 for number in done] == [True, True, False, False, False]
    assert told == done


async def test_other_format(tmp_path):
    """STORAGE-11: a database of another release is refused, and left alone."""
    path = tmp_path / "relay.sqlite"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    with pytest.raises(OperatorError) as caught:
        async with open_storage(path, Readers()):
            pass
    assert "format" in str(caught.value)


async def test_not_a_database(tmp_path):
    """A file that is no database is refused, and left alone."""
    path = tmp_path / "relay.sqlite"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(OperatorError):
        async with open_storage(path, Readers()):
            pass
    assert path.read_bytes() == b"something else" * 100
