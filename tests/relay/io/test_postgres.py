"""What only the PostgreSQL backend has: a server that fails, leases, lost hints (spec/wire.md)."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial

import psycopg
import pytest
import trio

from relay.errors import FencedError, OperatorError, StorageError
from relay.io import (
    postgres,
    postgres_bus,
    postgres_mailbox,
    postgres_pool,
    postgres_presence,
    postgres_schema,
)
from relay.services.delivery import Readers
from relay.services.mailbox import MAIL_LIFETIME, TOMBSTONE_LIFETIME, BoxMailbox, Stored
from relay.services.quota import Rate
from relay.services.signatures import RelayKey
from relay.wire.messages import PrekeyCounts
from relay.wire.records import PreKeyKind
from tests.relay.cluster import Cluster
from tests.relay.conftest import POSTGRES
from tests.relay.io.conftest import StorageNode
from tests.relay.io.storing import DEVICE, NOW, account, put, read, reads

pytestmark = [pytest.mark.trio, POSTGRES]

BOX = BoxMailbox(bytes(32))
KEY = RelayKey.from_seed(bytes(32))


@pytest.fixture
def dsn(cluster):
    return cluster.database()


def open_node(dsn, readers=None, *, node="north", key=KEY, relay="relay.example"):
    return postgres.open_storage(dsn, readers or Readers(), node=node, key=key, relay=relay)


@pytest.fixture
async def pair(dsn):
    async with AsyncExitStack() as stack:
        found = []
        for name in ("north", "south"):
            readers = Readers()
            opened = open_node(dsn, readers, node=name)
            found.append(StorageNode(await stack.enter_async_context(opened), readers))
        yield found


def query(dsn, text, *values):
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(text, values)
        return cursor.fetchall() if cursor.description else None


async def eventually(call, wanted, seconds=20):
    with trio.fail_after(seconds):
        while call() != wanted:  # noqa: ASYNC110 - the database does not tell
            await trio.sleep(0.05)


@pytest.fixture
def own_cluster(require_program):
    cluster = Cluster(require_program)
    yield cluster
    cluster.close()


async def test_server_crashes(own_cluster):
    """F2, STORAGE-08: a server that is gone is a retryable error; afterwards nothing is missing."""
    cluster = own_cluster
    async with open_node(cluster.database()) as storage:
        await storage.mailbox.open_box(BOX, NOW)
        assert await put(storage, BOX, b"before") is Stored.NEW
        await trio.to_thread.run_sync(cluster.stop)
        try:
            with pytest.raises(StorageError):
                await put(storage, BOX, b"never")
            with pytest.raises(StorageError):
                await storage.probe()
        finally:
            await trio.to_thread.run_sync(cluster.start)
        stored = 0
        with trio.fail_after(20):
            while not stored:
                try:
                    stored = await put(storage, BOX, b"after") is Stored.NEW
                    await storage.probe()
                except StorageError:
                    stored = 0
                    await trio.sleep(0.1)
        envelopes = {mail.envelope for mail in await read(storage, BOX)}
        assert envelopes == {b"before", b"after"}


async def test_a_restart_is_noticed_once(own_cluster):
    """F2: a restart of the server costs one request, and not one for each connection."""
    async with open_node(own_cluster.database()) as storage:
        await storage.mailbox.open_box(BOX, NOW)
        failed = []

        async def store():
            try:
                await put(storage, BOX)
            except StorageError:
                failed.append(None)

        async def store_many():
            async with trio.open_nursery() as nursery:
                for _ in range(4 * postgres_pool.CONNECTIONS):
                    nursery.start_soon(store)

        await store_many()
        assert not failed
        await trio.to_thread.run_sync(own_cluster.stop, signal.SIGINT)
        with pytest.raises(StorageError):
            await put(storage, BOX)
        await trio.to_thread.run_sync(own_cluster.start)
        await answered(partial(put, storage, BOX))
        await store_many()
        assert not failed


async def test_f5_another_timeline(own_cluster, speak):
    """F5, STORAGE-12: nodes that meet a server that recovered discard all one-time prekeys."""
    identity, somebody = account(speak)
    far = int(NOW) + 86_400
    kinds = (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024)
    keys = [identity.prekey(kind, number, expires=far) for kind in kinds for number in (1, 2)]
    async with open_node(own_cluster.database()) as storage:
        await storage.directory.create(somebody)
        await storage.directory.add_prekeys("somebody", 1, keys)
        assert await storage.directory.count_prekeys("somebody", 1, NOW) == PrekeyCounts(2, 2)
        await trio.to_thread.run_sync(own_cluster.stop, signal.SIGINT)
        await trio.to_thread.run_sync(own_cluster.start)
        assert await count(storage) == PrekeyCounts(2, 2)
        await trio.to_thread.run_sync(own_cluster.recover)
        assert await count(storage) == PrekeyCounts(0, 0)
        # Connections of the pool that the restart cut may still lie there, and fail once.
        await answered(partial(storage.directory.add_prekeys, "somebody", 1, keys))
        assert await count(storage) == PrekeyCounts(0, 0)


async def count(storage):
    """Return what is left, as soon as the server answers."""
    return await answered(partial(storage.directory.count_prekeys, "somebody", 1, NOW))


async def answered(ask):
    """Return the answer of a server that may have to start first."""
    with trio.fail_after(20):
        while True:
            try:
                return await ask()
            except StorageError:
                await trio.sleep(0.1)


async def test_locked_rows(dsn, monkeypatch):
    """F2, STORAGE-08: what waits too long for a lock fails as retryable, and works after."""
    monkeypatch.setitem(postgres_pool._SETTINGS, "lock_timeout", "100ms")
    async with open_node(dsn) as storage:
        await storage.mailbox.open_box(BOX, NOW)
        with psycopg.connect(dsn) as other:
            other.execute("SELECT 1 FROM mailboxes FOR UPDATE")
            with pytest.raises(StorageError):
                await put(storage, BOX)
        assert await put(storage, BOX) is Stored.NEW
        assert len(await read(storage, BOX)) == 1


async def test_read_only_server(dsn):
    """F2, STORAGE-09: a database that can be read only is no storage that works."""
    async with open_node(dsn) as storage:
        query(dsn, "ALTER ROLE app SET default_transaction_read_only = on")
        try:
            query(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                       " WHERE application_name = 'e2ecall-relay'")  # fmt: skip
            with pytest.raises(StorageError):
                await storage.probe()
            with pytest.raises(StorageError):
                await storage.probe()
        finally:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute("ALTER ROLE app RESET default_transaction_read_only")


async def test_lost_listener(pair, dsn):
    """STORAGE-06: a node whose LISTEN connection breaks looks for mail when it listens again."""
    north, south = (node.storage for node in pair)
    await north.mailbox.open_box(BOX, NOW)
    reader, _ = await reads(pair[1], BOX)
    channel = f"LISTEN e2ecall_node_{south.bus.node}"
    listening = "SELECT pid FROM pg_stat_activity WHERE query = %s"
    ((pid,),) = query(dsn, listening, channel)
    query(dsn, "SELECT pg_terminate_backend(%s)", pid)
    assert await put(north, BOX) is Stored.NEW  # and no hint at all
    await reader.hears("hint", BOX)
    ((again,),) = query(dsn, listening, channel)
    assert again != pid


async def test_lost_hint(dsn, monkeypatch):
    """STORAGE-06: mail of which no hint came is found by the regular scan."""
    monkeypatch.setattr(postgres_bus, "RESCAN_SECONDS", 0.1)
    readers = Readers()
    async with open_node(dsn, readers) as storage:
        await storage.mailbox.open_box(BOX, NOW)
        reader, _ = await reads(StorageNode(storage, readers), BOX)
        await put(storage, BOX)
        await reader.hears("hint", BOX)


async def test_lost_displacement(pair, monkeypatch):
    """STORAGE-04: a reader that nobody told is found by the regular scan of its node."""
    monkeypatch.setattr(postgres_bus, "RESCAN_SECONDS", 0.1)
    reader, _ = await reads(pair[0], BOX)
    pair[1].storage.bus._losses = _Deaf()
    await reads(pair[1], BOX)
    await pair[0].storage.bus._scan()
    await reader.hears("lost", BOX)


async def test_two_first_claims(pair, dsn):
    """WIRE-07, STORAGE-04: of two connections that claim at once what nobody read before, the
    second knows whom it follows, so that the first is told.
    """
    north, south = (node.storage.bus.node for node in pair)
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"

    def claim_both():
        with psycopg.connect(dsn) as first, ThreadPoolExecutor(1) as thread:
            claimed = postgres_presence._claim(first.cursor(), north, BOX.key)
            following = thread.submit(
                postgres.at_once, dsn, lambda db: postgres_presence._claim(db, south, BOX.key)
            )
            while not query(dsn, waiting):
                time.sleep(0.01)
            first.commit()
            return claimed, following.result(60)

    with trio.fail_after(60):
        first, second = await trio.to_thread.run_sync(claim_both)
    assert (first[0], second[0]) == (None, north)
    assert first[1] < second[1]


class _Deaf(dict):
    """A queue that forgets what is put into it."""

    def __setitem__(self, key, value):
        pass


async def test_hints_are_gathered(pair, dsn):
    """Many hints become few notifications, none of them in the transaction of a Send."""
    north = pair[0].storage
    boxes = [BoxMailbox(number.to_bytes(32)) for number in range(200)]
    told = []
    for box in boxes:
        reader, _ = await reads(pair[1], box)
        told.append((reader, box))
    sent = []
    notify = postgres_bus._notify

    def counted(db, own, hints, losses):
        sent.append(len(hints))
        return notify(db, own, hints, losses)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_bus, "_notify", counted)
        for box in boxes:
            north.bus.hint(box)
        for reader, box in told:
            await reader.hears("hint", box)
    assert sent == [200]


async def test_dead_node(pair, dsn):
    """STORAGE-10: a node that died without a word is noticed within 15 s; its claims end."""
    await pair[1].storage.mailbox.open_box(BOX, NOW)
    start = time.monotonic()
    query(dsn, "INSERT INTO nodes VALUES (999, 'dead', clock_timestamp())")
    query(dsn, "INSERT INTO presence VALUES (%s, 999, nextval('epochs'))", BOX.key)
    await eventually(lambda: query(dsn, "SELECT 1 FROM nodes WHERE id = 999"), [], 15)
    assert 8 < time.monotonic() - start < 15
    assert query(dsn, "SELECT 1 FROM presence") == []
    assert pair[0].storage.bus.node is not None
    assert pair[1].storage.bus.node is not None


async def test_taken_for_dead(pair, dsn):
    """STORAGE-10: a node that was taken for dead ends what it read, and becomes a member anew."""
    north = pair[0].storage
    reader, claim = await reads(pair[0], BOX)
    before = north.bus.node
    query(dsn, "DELETE FROM nodes WHERE id = %s", before)
    with pytest.raises(FencedError) as caught:
        await north.mailbox.read(claim, 0, 9, NOW)
    assert not caught.value.is_taken
    await reader.hears("expired", BOX)
    await eventually(lambda: north.bus.node not in {None, before}, True)
    await reads(pair[0], BOX)
    await north.probe()


async def test_same_name_twice(dsn):
    """A process that is started under the name of another takes its place, which it gives up."""
    readers = Readers()
    async with open_node(dsn, readers) as first:
        reader, _ = await reads(StorageNode(first, readers), BOX)
        async with open_node(dsn) as second:
            await reader.hears("expired", BOX)
            assert second.bus.node is not None
            with pytest.raises(StorageError):
                await first.presence.claim(BOX)
            with pytest.raises(StorageError):
                await first.probe()
        await eventually(lambda: first.bus.node is not None, True)


async def test_much_expired_mail_goes_in_steps(pair, dsn, monkeypatch):
    """What expired while nobody swept is forgotten in transactions that cannot take too long."""
    monkeypatch.setattr(postgres_mailbox, "SWEEP_ROWS", 7)
    storage = pair[0].storage
    await storage.mailbox.open_box(BOX, NOW)
    for _ in range(20):
        assert await put(storage, BOX) is Stored.NEW
    end = NOW + MAIL_LIFETIME
    assert await storage.pool.run(lambda db: postgres_mailbox._sweep_mail(db, end)) == 7
    (counted,) = query(dsn, "SELECT envelopes, bytes FROM mailboxes WHERE is_box")
    assert counted == (13, 13 * len(b"sealed"))
    await storage.mailbox.keep(end, [BOX])
    await storage.mailbox.sweep(end)
    (counted,) = query(dsn, "SELECT envelopes, bytes FROM mailboxes WHERE is_box")
    assert counted == (0, 0)


async def test_no_time_is_kept_of_what_was_acknowledged(pair, dsn, speak):
    """STORAGE-17: when something came for a device is in no row once it was acknowledged and its
    message id forgotten.
    """
    storage = pair[0].storage
    await storage.directory.create(account(speak)[1])
    for _ in range(2):
        assert await put(storage, DEVICE, b"first", NOW + 1234) is Stored.NEW
        (mail,) = await read(storage, DEVICE)
        await storage.mailbox.remove([(DEVICE, mail.row)], NOW)
    await storage.mailbox.sweep(NOW + TOMBSTONE_LIFETIME)
    assert query(dsn, "SELECT row FROM mail") == []
    kept = query(dsn, "SELECT key, envelopes, touched FROM mailboxes WHERE id <> 0")
    assert kept == [(DEVICE.key, 0, 0)]


async def test_times_of_older_releases_go(dsn, monkeypatch):
    """STORAGE-17: `migrate` drops when something came for a device, and leaves boxes alone."""
    steps = postgres_schema.MIGRATIONS
    with monkeypatch.context() as older:
        older.setattr(postgres_schema, "MIGRATIONS", steps[:4])
        older.setattr(postgres_schema, "FORMAT", 4)
        assert postgres.migrate(dsn) == (0, 4)
    for mailbox in (DEVICE, BOX):
        query(
            dsn,
            "INSERT INTO mailboxes (key, is_box, envelopes, bytes, touched)"
            " VALUES (%s, %s, 0, 0, 7)",
            mailbox.key,
            mailbox is BOX,
        )
    assert postgres.migrate(dsn) == (4, postgres_schema.FORMAT)
    kept = query(dsn, "SELECT is_box, touched FROM mailboxes WHERE id <> 0 ORDER BY is_box")
    assert kept == [(False, 0), (True, 7)]


async def test_a_node_with_a_wrong_clock(dsn):
    """STORAGE-09, STORAGE-13: a node whose clock differs from the database's is not ready."""
    for wrong in (-60.0, 0.0, 60.0):
        clock = partial(ahead, wrong)
        async with postgres.open_storage(
            dsn, Readers(), node="north", key=KEY, relay="relay.example", clock=clock
        ) as storage:
            if not wrong:
                await storage.probe()
                continue
            with pytest.raises(StorageError, match="clock"):
                await storage.probe()


def ahead(seconds):
    return time.time() + seconds


async def test_no_names_in_hints_and_rates(pair, dsn):
    """STORAGE-07: what is counted is in the database as a keyed hash only."""
    limiter = pair[0].storage.limiter("sends", Rate(0.1, 3))
    await limiter.take("192.0.2.77", NOW)
    ((key, level),) = query(dsn, "SELECT key, level FROM rates")
    assert (len(key), level) == (16, 2)
    assert b"192" not in key
    await pair[0].storage.mailbox.sweep(NOW + 9)
    assert len(query(dsn, "SELECT 1 FROM rates")) == 1
    await pair[0].storage.mailbox.sweep(NOW + 11)
    assert query(dsn, "SELECT 1 FROM rates") == []


@pytest.mark.parametrize(
    ("options", "named"),
    [({"key": RelayKey.from_seed(bytes(range(32)))}, "relay key"), ({"relay": "other"}, "name")],
)
async def test_other_relay(dsn, options, named):
    """A node whose key or name is not the database's is refused."""
    async with open_node(dsn):
        pass
    with pytest.raises(OperatorError, match=named):
        async with open_node(dsn, **options):
            pass


async def test_other_format(dsn):
    """STORAGE-11: a database of another release is refused, and left alone."""
    async with open_node(dsn):
        pass
    query(dsn, "UPDATE meta SET value = '99' WHERE name = 'format'")
    with pytest.raises(OperatorError, match="format 99"):
        async with open_node(dsn):
            pass


async def test_not_there(tmp_path):
    """A server that cannot be reached is told as such, with a hint."""
    with pytest.raises(OperatorError, match="cannot connect") as caught:
        async with open_node(f"host={tmp_path} dbname=x connect_timeout=1"):
            pass
    assert caught.value.hint


async def test_errors_quote_no_rows(dsn):
    """W8: what the server says about a row is in no error of ours."""
    async with open_node(dsn) as storage:
        with pytest.raises(StorageError) as caught:
            await storage.pool.run(
                lambda db: db.execute("INSERT INTO devices VALUES ('secretname', 1)")
            )
        assert "secretname" not in str(caught.value)


async def test_refused_mail_is_not_kept(dsn):
    """WIRE-20: mail for nobody does the same writes as other mail, and leaves nothing."""
    async with open_node(dsn) as storage:
        assert await put(storage, BOX, os.urandom(99)) is Stored.REFUSED
        assert query(dsn, "SELECT 1 FROM mail") == []
        await storage.mailbox.open_box(BOX, NOW)
        assert await put(storage, BOX) is Stored.NEW
        (mail,) = await read(storage, BOX)
        await storage.mailbox.remove([(BOX, mail.row)], NOW)
        assert query(dsn, "SELECT envelope FROM mail") == [(None,)]
        assert query(dsn, "SELECT envelopes, bytes FROM mailboxes WHERE id > 0") == [(0, 0)]
