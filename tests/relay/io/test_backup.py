"""Backup, restore and migrate, by the operator's commands (spec/wire.md, Backup)."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import psycopg
import pytest
import trio

from relay.io import sqlite
from relay.wire.codes import read_code
from relay.wire.messages import (
    Bundle,
    Done,
    ErrorCode,
    FetchBundle,
    PrekeyCounts,
    PrekeyStatus,
    PublishPrekeys,
)
from relay.wire.records import PreKeyKind
from tests.relay.cluster import Cluster
from tests.relay.conftest import POSTGRES, Identity, letter, wire
from tests.relay.nodes import NAME, node_config

pytestmark = pytest.mark.trio

KINDS = (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024)


def command(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "relay.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


async def in_thread(function, *arguments):
    return await trio.to_thread.run_sync(lambda: function(*arguments))


async def register(client):
    identity = Identity("somebody", NAME)
    assert await client.request(identity.register(client.hello)) == Done()
    keys = identity.basic_prekeys()
    for kind in KINDS:
        keys += identity.one_time(kind, 1, 3)
    assert await client.request(PublishPrekeys(keys)) == Done()
    return identity, keys


async def fetch(client):
    bundle = await client.request(FetchBundle("somebody", None, None))
    assert isinstance(bundle, Bundle)
    return bundle.bundle


async def never_again(relay, identity, keys):
    """Check that no one-time prekey is left, old ones stay refused, and new ones are served."""
    async with wire(relay.url) as owner, wire(relay.url) as taker:
        assert await owner.request(identity.login(owner.hello)) == Done()
        assert await owner.request(PrekeyStatus()) == PrekeyCounts(0, 0)
        one_time = tuple(key for key in keys if key.kind in KINDS)
        assert await owner.request(PublishPrekeys(one_time)) == Done()
        bundle = await fetch(taker)
        assert bundle.one_time_prekey is None
        assert bundle.kem_prekey.kind is PreKeyKind.LAST_RESORT_MLKEM1024
        fresh = tuple(key for kind in KINDS for key in identity.one_time(kind, 100, 1))
        assert await owner.request(PublishPrekeys(fresh)) == Done()
        bundle = await fetch(taker)
        assert bundle.one_time_prekey.key_id == bundle.kem_prekey.key_id == 100


async def test_f5_a_backup_is_restored(start_relay, tmp_path):
    """F5, STORAGE-12: what was handed out after the backup is never handed out again, and a code
    that may have been used since makes no account.
    """
    config = node_config(tmp_path / "one", "one", None)
    data, folder = config.parent / "data", tmp_path / "backup"
    relay = start_relay("--config", config, dev=False)
    async with wire(relay.url) as owner, wire(relay.url) as other:
        identity, keys = await register(owner)
        await owner.socket.aclose()
        code = (await in_thread(command, "invite", "--config", config)).strip()
        assert await other.request(letter("somebody", b"kept")) == Done()
        assert "relay.key" in await in_thread(command, "backup", folder, "--config", config)
        taken = [await fetch(other) for _ in range(2)]
        assert [bundle.one_time_prekey.key_id for bundle in taken] == [1, 2]
        refused = await in_thread(lambda: command("restore", folder, "--config", config, code=1))
        assert "another relay uses the data directory" in refused
    assert relay.terminate()[0] == 0
    assert "--replace" in command("restore", folder, "--config", config, code=1)
    said = command("restore", folder, "--config", config, "--replace")
    assert said == "restored; 6 one-time prekeys were discarded\n"
    assert list(data.glob("relay.sqlite.replaced-*"))
    relay = start_relay("--config", config, dev=False)
    await never_again(relay, identity, keys)
    async with wire(relay.url) as owner:
        assert await owner.request(identity.login(owner.hello)) == Done()
        assert await owner.deliveries(1) == [b"kept"]
    await in_thread(command, "account", "registration", "invite", "--config", config)
    assert await with_code(relay, code) is ErrorCode.REGISTRATION_CLOSED
    new = (await in_thread(command, "invite", "--config", config)).strip()
    assert await with_code(relay, new) is None
    relay.terminate()


async def with_code(relay, code):
    """Register somebody new; return the code of the refusal, if there is one."""
    async with wire(relay.url) as client:
        another = Identity("another", NAME)
        reply = await client.request(another.register(client.hello, code=read_code(code)))
        return getattr(reply, "code", None)


async def test_restore_to_a_new_machine(start_relay, tmp_path):
    """A backup alone is enough: the database and the relay's key."""
    config = node_config(tmp_path / "one", "one", None)
    relay = start_relay("--config", config, dev=False)
    async with wire(relay.url) as owner:
        await register(owner)
        key = owner.hello.relay_key
    relay.terminate()
    command("backup", tmp_path / "backup", "--config", config)
    shutil.rmtree(config.parent / "data")
    command("restore", tmp_path / "backup", "--config", config)
    again = start_relay("--config", config, dev=False)
    async with wire(again.url) as client:
        assert client.hello.relay_key == key
        assert (await fetch(client)).one_time_prekey is None
    again.terminate()
    assert (config.parent / "data" / "relay.key").stat().st_mode & 0o777 == 0o600


async def test_a_backup_is_not_served(tmp_path):
    """F5, STORAGE-12: a backup that was only copied into place is refused."""
    config = node_config(tmp_path / "one", "one", None)
    data = config.parent / "data"
    with closing(sqlite3.connect(data / "relay.sqlite")) as db:
        for statement in (*sqlite.MIGRATIONS[0], *sqlite.MIGRATIONS[1]):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {sqlite.FORMAT}")
        db.commit()
    command("backup", tmp_path / "backup", "--config", config)
    shutil.copyfile(tmp_path / "backup" / "relay.sqlite", data / "relay.sqlite")
    assert "this database is a backup" in command("serve", "--config", config, code=1)
    again = command("backup", tmp_path / "backup", "--config", config, code=1)
    assert "a folder that does not exist yet" in again


@pytest.mark.parametrize("damage", ["no backup", "in use", "damaged", "other key"])
async def test_what_is_not_restored(start_relay, tmp_path, damage):
    """What is no whole backup of this relay is refused, and nothing is changed."""
    config = node_config(tmp_path / "one", "one", None)
    start_relay("--config", config, dev=False).terminate()
    folder, data = tmp_path / "backup", config.parent / "data"
    command("backup", folder, "--config", config)
    copy = folder / "relay.sqlite"
    if damage == "no backup":
        copy.unlink()
    elif damage == "in use":
        shutil.copyfile(data / "relay.sqlite", copy)
    elif damage == "damaged":
        copy.write_bytes(copy.read_bytes()[:-5000] + bytes(5000))
    else:
        (folder / "relay.key").write_bytes(bytes(32))
    before = (data / "relay.sqlite").read_bytes()
    command("restore", folder, "--config", config, "--replace", code=1)
    assert (data / "relay.sqlite").read_bytes() == before
    start_relay("--config", config, dev=False).terminate()


async def test_migrate(start_relay, tmp_path):
    """STORAGE-11: an older database is refused until `migrate` brought it to this format."""
    config = node_config(tmp_path / "one", "one", None)
    path = config.parent / "data" / "relay.sqlite"
    with closing(sqlite3.connect(path)) as db:
        for statement in sqlite.MIGRATIONS[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.commit()
    assert "e2ecall-relay migrate" in command("serve", "--config", config, code=1)
    said = command("migrate", "--config", config)
    assert said == f"the database from format 1 to {sqlite.FORMAT}\n"
    assert "has format" in command("migrate", "--config", config)
    relay = start_relay("--config", config, dev=False)
    async with wire(relay.url) as owner:
        await register(owner)
    relay.terminate()


async def test_times_of_older_releases_go(tmp_path):
    """STORAGE-17: `migrate` drops when something came for a device, and leaves boxes alone."""
    path = tmp_path / "relay.sqlite"
    with closing(sqlite3.connect(path)) as db:
        for statement in (step for steps in sqlite.MIGRATIONS[:5] for step in steps):
            db.execute(statement)
        db.execute("INSERT INTO mailboxes VALUES (1, x'01', 0, 0, 0, 7), (2, x'02', 1, 0, 0, 7)")
        db.execute("PRAGMA user_version = 5")
        db.commit()
    assert sqlite.migrate(path) == (5, sqlite.FORMAT)
    with closing(sqlite3.connect(path)) as db:
        kept = db.execute("SELECT is_box, touched FROM mailboxes WHERE id <> 0").fetchall()
    assert kept == [(0, 0), (1, 7)]


@POSTGRES
async def test_f5_postgres_goes_back_in_time(start_relay, tmp_path, require_program):
    """F5, STORAGE-12: a database that was restored discards all one-time prekeys by itself."""
    cluster = Cluster(require_program)
    try:
        dsn = cluster.database()
        config = node_config(tmp_path / "north", "north", dsn)
        relay = start_relay("--config", config, dev=False)
        async with wire(relay.url) as owner:
            identity, keys = await register(owner)
        dump = cluster.folder / "dump"
        cluster.run(require_program("pg_dump"), "-Fc", "-f", dump, "-d", dsn)
        async with wire(relay.url) as taker:
            assert (await fetch(taker)).one_time_prekey.key_id == 1
        relay.terminate()
        restored = cluster.database()
        cluster.run(require_program("pg_restore"), "--no-owner", "-d", restored, dump)
        with psycopg.connect(restored) as db:
            left = db.execute("SELECT count(record) FROM prekeys WHERE kind = ANY(%s)", ([3, 4],))
            assert left.fetchone() == (6,)
        config = node_config(tmp_path / "north", "north", restored)
        relay = start_relay("--config", config, dev=False)
        await never_again(relay, identity, keys)
        relay.terminate()
    finally:
        cluster.close()


@POSTGRES
async def test_postgres_commands(cluster, start_relay, tmp_path):
    """STORAGE-12: with PostgreSQL, restore discards keys and codes by hand, also under nodes."""
    config = node_config(tmp_path / "north", "north", cluster.database())
    assert "format 0 to" in command("migrate", "--config", config)
    assert "ok" in command("check", "--config", config)
    relay = start_relay("--config", config, dev=False)
    async with wire(relay.url) as owner:
        identity, keys = await register(owner)
        code = (await in_thread(command, "invite", "--config", config)).strip()
        said = await in_thread(command, "restore", "--config", config)
    assert said == "restored; 6 one-time prekeys were discarded\n"
    await in_thread(command, "account", "registration", "invite", "--config", config)
    assert await with_code(relay, code) is ErrorCode.REGISTRATION_CLOSED
    await never_again(relay, identity, keys)
    relay.terminate()
    assert "pg_dump" in command("backup", tmp_path / "b", "--config", config, code=1)
    assert "own means" in command("restore", tmp_path / "b", "--config", config, code=1)


@POSTGRES
async def test_migrating_under_nodes(cluster, tmp_path, monkeypatch):
    """STORAGE-11: a database that nodes of an older release use is not migrated."""
    from relay.errors import OperatorError
    from relay.io import postgres, postgres_schema

    dsn = cluster.database()
    first = postgres_schema.FORMAT
    assert postgres.migrate(dsn) == (0, first)
    steps = (*postgres_schema.MIGRATIONS, ("CREATE TABLE later (x INTEGER)",))
    monkeypatch.setattr(postgres_schema, "MIGRATIONS", steps)
    monkeypatch.setattr(postgres_schema, "FORMAT", first + 1)
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("INSERT INTO nodes (name, seen) VALUES ('north', clock_timestamp())")
        with pytest.raises(OperatorError, match="north"):
            postgres.migrate(dsn)
        db.execute("DELETE FROM nodes")
    assert postgres.migrate(dsn) == (first, first + 1)
    config = node_config(tmp_path / "north", "north", dsn)
    assert f"format {first + 1}" in command("serve", "--config", config, code=1)
