"""The SQLite backend with a clock of the test (spec/wire.md, Storage)."""

import os
import sqlite3
from dataclasses import replace

import pytest
import trio

from relay.errors import OperatorError, RefusedError, StorageError
from relay.io.sqlite import SCHEMA_VERSION, open_storage
from relay.io.sqlite_mailbox import SQLiteMailbox
from relay.io.writer import Writer
from relay.services.directory import Account, read_list
from relay.services.mailbox import (
    BOX_IDLE_LIFETIME,
    MAIL_LIFETIME,
    TOMBSTONE_LIFETIME,
    BoxMailbox,
    DeviceMailbox,
    Stored,
)
from relay.wire.messages import ErrorCode, Policy, PrekeyCounts
from relay.wire.records import PreKeyKind

pytestmark = pytest.mark.trio

NOW = 1_800_000_000.0
DEVICE = DeviceMailbox("somebody", 1)


def account(speak, username="somebody"):
    identity = speak.Identity(username, "relay.example")
    signed = identity.device_list(expires=int(NOW) + 86_400 * 18)
    return identity, Account(username, signed, read_list(signed), 1, Policy.EVERYONE)


@pytest.fixture
async def storage(tmp_path):
    async with open_storage(tmp_path / "relay.sqlite") as opened:
        yield opened


async def put(storage, mailbox, envelope=b"sealed", now=NOW, message_id=None):
    return await storage.mailbox.put(mailbox, message_id or os.urandom(16), envelope, None, now)


async def rows(path, query):
    with sqlite3.connect(path) as db:
        found = db.execute(query).fetchall()
    db.close()
    return found


async def test_mail_expires(storage, speak):
    """WIRE-35: mail waits 14 days, and no longer."""
    await storage.directory.create(account(speak)[1])
    assert await put(storage, DEVICE) is Stored.NEW
    end = NOW + MAIL_LIFETIME
    assert len(await storage.mailbox.read(DEVICE, 0, 9, end - 1)) == 1
    await storage.mailbox.sweep(end - 1, [])
    assert len(await storage.mailbox.read(DEVICE, 0, 9, end - 1)) == 1
    assert await storage.mailbox.read(DEVICE, 0, 9, end) == []
    await storage.mailbox.sweep(end, [])
    assert await storage.mailbox.read(DEVICE, 0, 9, NOW) == []


async def test_expired_mail_makes_room(storage):
    """What expired no longer counts against a mailbox."""
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    for _ in range(box.capacity.envelopes):
        assert await put(storage, box) is Stored.NEW
    assert await put(storage, box) is Stored.FULL
    later = NOW + MAIL_LIFETIME
    await storage.mailbox.sweep(later, [box])
    assert await put(storage, box, now=later) is Stored.NEW


async def test_bytes_are_capped(storage):
    """W6: a mailbox is bounded in bytes as well as in envelopes."""
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    size = 40_000
    for _ in range(box.capacity.total_bytes // size):
        assert await put(storage, box, bytes(size)) is Stored.NEW
    assert await put(storage, box, bytes(size)) is Stored.FULL
    assert await put(storage, box, b"small") is Stored.NEW


async def test_idle_boxes_expire(storage):
    """WIRE-36: a box nobody reads or writes for two hours is gone; one in use stays."""
    idle, used = BoxMailbox(bytes(32)), BoxMailbox(bytes(range(32)))
    for box in (idle, used):
        await storage.mailbox.open_box(box, NOW)
    await put(storage, idle)
    await storage.mailbox.sweep(NOW + BOX_IDLE_LIFETIME, [used])
    assert await put(storage, idle) is Stored.REFUSED
    assert await put(storage, used) is Stored.NEW


async def test_boxes_are_capped(tmp_path):
    """The number of reply boxes of a relay is bounded; opening one again is always possible."""
    async with open_storage(tmp_path / "relay.sqlite") as storage:
        mailbox = SQLiteMailbox(storage.mailbox._writer, max_boxes=2)
        for number in range(2):
            await mailbox.open_box(BoxMailbox(bytes([number]) * 32), NOW)
        with pytest.raises(RefusedError) as caught:
            await mailbox.open_box(BoxMailbox(bytes([2]) * 32), NOW)
        assert caught.value.code is ErrorCode.TOO_MANY
        await mailbox.open_box(BoxMailbox(bytes([1]) * 32), NOW)


async def test_message_id_is_forgotten_later(storage):
    """WIRE-30: an acknowledged message id is remembered for an hour."""
    box, message_id = BoxMailbox(bytes(32)), os.urandom(16)
    await storage.mailbox.open_box(box, NOW)
    assert await put(storage, box, message_id=message_id) is Stored.NEW
    (mail,) = await storage.mailbox.read(box, 0, 9, NOW)
    await storage.mailbox.remove([(box, mail.row)], NOW)
    assert await storage.mailbox.read(box, 0, 9, NOW) == []
    assert await put(storage, box, message_id=message_id) is Stored.AGAIN
    await storage.mailbox.sweep(NOW + TOMBSTONE_LIFETIME, [box])
    assert await put(storage, box, message_id=message_id) is Stored.NEW


async def test_acknowledged_envelope_is_not_kept(storage, tmp_path):
    """An acknowledged envelope is no longer in the database."""
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    await put(storage, box)
    (mail,) = await storage.mailbox.read(box, 0, 9, NOW)
    await storage.mailbox.remove([(box, mail.row)], NOW)
    found = await rows(tmp_path / "relay.sqlite", "SELECT envelope FROM mail")
    assert found == [(None,)]


async def test_refused_mail_is_not_kept(storage, tmp_path):
    """Mail for nobody does the same writes as other mail, and leaves nothing."""
    assert await put(storage, DEVICE) is Stored.REFUSED
    assert await rows(tmp_path / "relay.sqlite", "SELECT * FROM mail") == []


async def test_row_of_another_mailbox(storage):
    """A row is removed only together with the mailbox that it belongs to."""
    first, second = BoxMailbox(bytes(32)), BoxMailbox(bytes(range(32)))
    for box in (first, second):
        await storage.mailbox.open_box(box, NOW)
    await put(storage, first)
    (mail,) = await storage.mailbox.read(first, 0, 9, NOW)
    await storage.mailbox.remove([(second, mail.row)], NOW)
    assert await storage.mailbox.read(first, 0, 9, NOW) == [mail]


async def test_expired_prekeys(storage, speak):
    """WIRE-16: an expired prekey is neither counted nor handed out, and later forgotten."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    kind = PreKeyKind.ONE_TIME_X25519
    day = int(NOW) + 86_400
    keys = [identity.prekey(kind, 1, expires=day), identity.prekey(kind, 2, expires=day + 99)]
    basic = [
        identity.prekey(kind, 9, expires=day * 2)
        for kind in (PreKeyKind.SIGNED_X25519, PreKeyKind.SEALING, PreKeyKind.LAST_RESORT_MLKEM1024)
    ]
    await storage.directory.add_prekeys("somebody", 1, [*keys, *basic])
    assert await storage.directory.count_prekeys("somebody", 1, NOW) == PrekeyCounts(2, 0)
    assert await storage.directory.count_prekeys("somebody", 1, day) == PrekeyCounts(1, 0)
    bundle = await storage.directory.take_bundle("somebody", None, None, day)
    assert bundle.one_time_prekey == keys[1]
    await storage.mailbox.sweep(day * 2, [])
    assert await storage.directory.take_bundle("somebody", None, None, NOW) is None


async def test_expired_device_list(storage, speak):
    """WIRE-16: no one-time prekey is spent on an account whose device list expired."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    far = int(NOW) * 2
    keys = [identity.prekey(kind, 1, expires=far) for kind in PreKeyKind]
    await storage.directory.add_prekeys("somebody", 1, keys)
    late = somebody.device_list.expires
    assert await storage.directory.take_bundle("somebody", None, None, late) is None
    assert await storage.directory.count_prekeys("somebody", 1, late) == PrekeyCounts(1, 1)


async def test_device_lists_in_order(storage, speak):
    """WIRE-13: a newer list may follow a lost one; what comes late or beside it is STALE."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    stored, lists = somebody.signed_list, []
    for _ in range(3):
        stored = identity.next_list(stored, expires=int(NOW) + 86_400)
        lists.append(replace(somebody, signed_list=stored, device_list=read_list(stored)))
    await storage.directory.replace_device_list(lists[1])
    identity.version, identity.previous = 4, bytes(64)
    fork = identity.device_list(expires=int(NOW) + 86_400)
    beside = replace(somebody, signed_list=fork, device_list=read_list(fork))
    for refused in (lists[0], lists[1], beside):
        with pytest.raises(RefusedError) as caught:
            await storage.directory.replace_device_list(refused)
        assert caught.value.code is ErrorCode.STALE
    await storage.directory.replace_device_list(lists[2])
    found = await storage.directory.account("somebody")
    assert found.device_list.version == 4


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
    """F2: while another process holds the database, requests fail as retryable, and work after."""
    monkeypatch.setattr("relay.io.writer.BUSY_TIMEOUT", 0.05)
    path = tmp_path / "relay.sqlite"
    async with open_storage(path) as storage:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError):
            await storage.mailbox.open_box(BoxMailbox(bytes(32)), NOW)
        other.execute("ROLLBACK")
        other.close()
        await storage.mailbox.open_box(BoxMailbox(bytes(32)), NOW)


async def test_full_disk(tmp_path):
    """F2: when the disk is full, mail is refused as retryable, never acknowledged and lost."""
    async with open_storage(tmp_path / "relay.sqlite") as storage:
        box = BoxMailbox(bytes(32))
        await storage.mailbox.open_box(box, NOW)
        writer = storage.mailbox._writer

        def limit(db):
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {pages + 20}")

        await writer.run(limit)
        stored = 0
        with pytest.raises(StorageError):
            while True:
                assert await put(storage, box, bytes(30_000)) is Stored.NEW
                stored += 1
        assert len(await storage.mailbox.read(box, 0, 99, NOW)) == stored
        await writer.run(lambda db: db.execute("PRAGMA max_page_count = 100000"))
        assert await put(storage, box, bytes(30_000)) is Stored.NEW


async def test_other_format(tmp_path):
    """A database of another release is refused, and left alone."""
    path = tmp_path / "relay.sqlite"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(OperatorError) as caught:
        async with open_storage(path):
            pass
    assert "format" in str(caught.value)


async def test_not_a_database(tmp_path):
    """A file that is no database is refused, and left alone."""
    path = tmp_path / "relay.sqlite"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(OperatorError):
        async with open_storage(path):
            pass
    assert path.read_bytes() == b"something else" * 100
