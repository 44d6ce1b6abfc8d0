"""kill -9 in the middle of SQLite's own work (S2): before each write, sync, cut and unlink.

strace kills the process at the N-th system call of these, for N = 1, 2, ... until it survives.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.errors import StoreError
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.secret import Secret

pytestmark = [pytest.mark.anyio, pytest.mark.system("strace"), pytest.mark.timeout(180)]

OLD, NEW = Secret(b"correct horse"), Secret(b"battery staple")
FORMAT_1 = Path(__file__).parents[1] / "io" / "data" / "format_1.store"
CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
CALLS = "pwrite64,fsync,fdatasync,ftruncate,unlink"
SURVIVED, MOST_CALLS = 7, 200

CHILD = """
import sys, sqlite3, threading
from pathlib import Path
from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.io.records import Change, RecordKind
from e2ecall.io.storefile import open_file
from e2ecall.secret import Secret

path, what = Path(sys.argv[1]), sys.argv[2]
cheap = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
file, records = open_file(path, Secret(b"correct horse"), cheap)
if what == "passphrase":
    file.rewrite(records, Secret(b"battery staple"), cheap)
if what == "write":
    file.commit([Change(RecordKind.PEER, key, b"new" * 400) for key in (b"a", b"b")])
sys.exit(7)
"""


async def kill_at(number, path, what):
    """Run the child to its death at the N-th call, or to its end; tell whether it survived."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}",
               "-e", f"inject={CALLS}:signal=SIGKILL:when={number}",
               sys.executable, "-c", CHILD, str(path), what]  # fmt: skip
    done = await anyio.run_process(command, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode in {SURVIVED, -9}, done.stderr
    return done.returncode == SURVIVED


async def kill_everywhere(tmp_path, original, what):
    """Give the store after each kill, and tell at the end how many calls there were."""
    for number in range(1, MOST_CALLS):
        path = tmp_path / str(number) / "me.db"
        path.parent.mkdir()
        shutil.copy(original, path)
        survived = await kill_at(number, path, what)
        yield path, survived
        if survived:
            assert number > 6  # journal, its sync, pages, their sync, the cut: strace did kill
            return
    pytest.fail("it never survives")


async def read(path, passphrase):
    """Return everything in a store."""
    store = await Store.open(path, passphrase)
    try:
        return {(kind, key): value for kind in RecordKind for key, value in store.all(kind).items()}
    finally:
        await store.aclose()


@pytest.fixture
async def original(tmp_path):
    path = tmp_path / "original.db"
    store = await Store.open(path, OLD, cost=CHEAP)
    await store.write(
        [
            Change(RecordKind.ACCOUNT, b"", b"the account" * 900),
            Change(RecordKind.PEER, b"a", b"old" * 400),
            Change(RecordKind.PEER, b"b", b"old" * 400),
        ]
    )
    await store.aclose()
    return path


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_change_of_the_passphrase(tmp_path, original):
    """S2, STORE-14: killed at any moment of a change, exactly one passphrase opens everything."""
    expected = await read(original, OLD)
    worked = []
    async for path, survived in kill_everywhere(tmp_path, original, "passphrase"):
        opens = []
        for passphrase in (OLD, NEW):
            try:
                opens.append(await read(path, passphrase) == expected)
            except StoreError as error:
                assert "passphrase does not open" in str(error)  # noqa: PT017 - one of them is
                opens.append(False)
        assert sum(opens) == 1
        worked.append(opens[1])
        assert not survived or opens[1]
    assert worked == sorted(worked)  # from one moment on it is the new one


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_write(tmp_path, original):
    """S2, STORE-09: killed at any moment of a write, all of its changes are there or none."""
    before = await read(original, OLD)
    after = before | {(RecordKind.PEER, key): b"new" * 400 for key in (b"a", b"b")}
    found = []
    async for path, _ in kill_everywhere(tmp_path, original, "write"):
        records = await read(path, OLD)
        assert records in (before, after)
        found.append(records == after)
    assert found == sorted(found)
    assert found[-1]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_migration(tmp_path):
    """S2, STORE-13: killed at any moment of a migration, the store opens and has everything."""
    shutil.copy(FORMAT_1, tmp_path / "whole.db")
    expected = await read(tmp_path / "whole.db", OLD)
    assert len(expected) == 4
    async for path, _ in kill_everywhere(tmp_path, FORMAT_1, "migration"):
        assert await read(path, OLD) == expected
