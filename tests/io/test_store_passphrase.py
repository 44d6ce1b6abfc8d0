"""A new passphrase for a store, and who may open one (spec/store.md, STORE-07, STORE-14)."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from functools import partial

import anyio
import pytest

from e2ecall.errors import LocalProtocolError, StoreError
from e2ecall.io import storefile
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.secret import Secret
from tests.io.conftest import CHEAP

pytestmark = pytest.mark.anyio

OLD, NEW = Secret(b"correct horse"), Secret(b"battery staple")
PEER = RecordKind.PEER
KEPT = {b"alice@relay.example": b"keys of alice", b"bob@relay.example": b"keys of bob" * 500}


@asynccontextmanager
async def opened(path, passphrase=OLD):
    store = await Store.open(path, passphrase, cost=CHEAP)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def path(tmp_path):
    path = tmp_path / "me.db"
    async with opened(path) as store:
        await store.write([Change(PEER, key, value) for key, value in KEPT.items()])
    return path


def header_of(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT name, value FROM header").fetchall()


async def test_the_new_one_opens_it(path):
    """STORE-14: after a change the new passphrase opens the store, and the old one does not."""
    async with opened(path) as store:
        await store.change_passphrase(NEW, cost=CHEAP)
        assert store.all(PEER) == KEPT
        await store.write([Change(PEER, b"c", b"written afterwards")])
    with pytest.raises(StoreError, match="passphrase does not open"):
        await Store.open(path, OLD)
    async with opened(path, NEW) as store:
        assert store.all(PEER) == KEPT | {b"c": b"written afterwards"}


async def test_an_old_copy_does_not_help(path, tmp_path):
    """STORE-14: the old passphrase with the header of an old copy opens nothing newer."""
    old_header = header_of(path)
    async with opened(path) as store:
        await store.change_passphrase(NEW, cost=CHEAP)
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "UPDATE header SET value = ? WHERE name = ?", [(v, n) for n, v in old_header]
        )
    with pytest.raises(StoreError, match="damaged"):
        await Store.open(path, OLD)


async def test_nothing_old_is_left(path):
    """STORE-14, STORE-11: no row and no header from before the change is in the file."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT value FROM records UNION ALL SELECT value FROM header")
        before = [value for (value,) in rows]
    async with opened(path) as store:
        await store.change_passphrase(NEW, cost=CHEAP)
        assert path.with_name("me.db-journal").stat().st_size == 0
    data = path.read_bytes()
    assert len(before) == 4
    assert not any(value[:64] in data for value in before)


async def test_the_journal_keeps_nothing(path):
    """STORE-11: while the store is open no replaced value stands in SQLite's journal."""
    journal = path.with_name("me.db-journal")
    async with opened(path) as store:
        for number in range(5):
            await store.write([Change(PEER, b"c", bytes([number]) * 5_000)])
            assert journal.stat().st_size == 0
    assert not journal.exists()


async def test_disk_full(path, monkeypatch):
    """STORE-14: a change that the disk refuses changes nothing, and the store goes on working."""

    def full(_keys, _record):
        raise sqlite3.OperationalError("database or disk is full")

    async with opened(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(storefile.RecordKeys, "seal", full)
            with pytest.raises(StoreError, match="cannot write"):
                await store.change_passphrase(NEW, cost=CHEAP)
        await store.write([Change(PEER, b"c", b"c")])
    with pytest.raises(StoreError, match="passphrase does not open"):
        await Store.open(path, NEW)
    async with opened(path) as store:
        assert store.all(PEER) == KEPT | {b"c": b"c"}


async def test_empty_passphrase(path):
    """An empty passphrase is refused, and the former one stays."""
    async with opened(path) as store:
        with pytest.raises(LocalProtocolError, match="empty"):
            await store.change_passphrase(Secret(b""), cost=CHEAP)
    async with opened(path):
        pass


async def test_while_others_write(path):
    """S3, STORE-14: writes of other tasks before, during and after a change are all kept."""
    async with opened(path) as store, anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(store.write, [Change(PEER, bytes([number]), b"x")])
            if number == 10:
                tasks.start_soon(partial(store.change_passphrase, NEW, cost=CHEAP))
    async with opened(path, NEW) as store:
        assert store.all(PEER) == KEPT | {bytes([number]): b"x" for number in range(20)}


async def test_closed(path):
    """A closed store takes no new passphrase."""
    async with opened(path) as store:
        pass
    with pytest.raises(StoreError, match="closed"):
        await store.change_passphrase(NEW, cost=CHEAP)


OTHER = """
import sys, anyio
from pathlib import Path
from e2ecall.errors import StoreError
from e2ecall.io.store import Store
from e2ecall.secret import Secret

async def main():
    try:
        store = await Store.open(Path(sys.argv[1]), Secret(b"correct horse"))
    except StoreError as error:
        print(error)
        sys.exit(3)
    await store.aclose()

anyio.run(main)
"""


async def other_process(path):
    command = [sys.executable, "-W", "error", "-c", OTHER, str(path)]
    return await anyio.run_process(command, stdin=subprocess.DEVNULL, check=False)


async def test_another_process(path, tmp_path):
    """STORE-07, S3: another process is refused while the store is open, by any name of the file."""
    (tmp_path / "link.db").symlink_to(path)
    async with opened(path):
        for name in (path, tmp_path / "link.db"):
            refused = await other_process(name)
            assert refused.returncode == 3
            assert b"is in use by another program" in refused.stdout
    assert (await other_process(path)).returncode == 0


async def test_copied_by_its_own_program(path, tmp_path):
    """STORE-07, S3: a program that reads its own open store does not let others in by that."""
    async with opened(path) as store:
        shutil.copy(path, tmp_path / "backup.db")  # closing it drops the process's record locks
        with pytest.raises(StoreError, match="in use"):
            await Store.open(path, OLD)
        assert (await other_process(path)).returncode == 3
        await store.write([Change(PEER, b"c", b"still ours")])
    async with opened(tmp_path / "backup.db") as store:
        assert store.all(PEER) == KEPT


async def test_killed_holder(path):
    """STORE-07, S2: the lock ends with the process that held it, however that ended."""
    code = OTHER.replace("    await store.aclose()", "    print('open', flush=True)\n"
                         "    await anyio.sleep_forever()")  # fmt: skip
    command = [sys.executable, "-c", code, str(path)]
    async with await anyio.open_process(command, stdin=subprocess.DEVNULL, stderr=None) as process:
        assert (await process.stdout.receive()).startswith(b"open")
        with pytest.raises(StoreError, match="in use"):
            await Store.open(path, OLD)
        process.kill()
        await process.wait()
    async with opened(path) as store:
        assert store.all(PEER) == KEPT
