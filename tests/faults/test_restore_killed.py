"""kill -9 in the middle of `restore --replace` (spec/wire.md, Backup): before each change of names.

strace kills the process at the N-th call of a kind, for N = 1, 2, ... until it survives.
"""

import itertools
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import trio

from relay.io.sqlite import APPLICATION
from relay.io.sqlite_backup import restore
from relay.wire.messages import Bundle, FetchBundle, PublishPrekeys
from relay.wire.records import PreKeyKind

pytestmark = [pytest.mark.trio, pytest.mark.system("strace"), pytest.mark.timeout(180)]

CALLS = ("unlink", "unlinkat", "link", "linkat", "rename", "renameat", "renameat2")
"""One after the other: strace counts the calls of each kind apart. No system has them all."""
MOST_CALLS = 60
CHILD = """
import sys
from pathlib import Path
from relay.io.sqlite_backup import restore

print(restore(Path(sys.argv[1]), Path(sys.argv[2]), replace=True))
"""

MAKE = """
import sys
from pathlib import Path
from relay.io.sqlite_backup import backup

backup(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def killed(call, number, backup, data):
    """Run the child to its death at the N-th call, or to its end; tell whether it died."""
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace=?{call}",
         "-e", f"inject=?{call}:signal=SIGKILL:when={number}",
         sys.executable, "-c", CHILD, backup, data],
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in {0, -9}, done.stderr
    return done.returncode != 0


def served(data):
    """Return what a relay would serve from there: its mark, accounts, and one-time prekeys."""
    path = data / "relay.sqlite"
    assert path.exists()
    with closing(sqlite3.connect(path)) as db:
        (mark,) = db.execute("PRAGMA application_id").fetchone()
        (names,) = db.execute("SELECT count(*) FROM accounts").fetchone()
        keys = db.execute(
            "SELECT key_id FROM prekeys WHERE record IS NOT NULL AND kind = ?",
            (int(PreKeyKind.ONE_TIME_X25519),),
        ).fetchall()
    return mark, names, sorted(key for (key,) in keys)


async def test_killed_at_each_step(start_relay, tmp_path, speak, username):
    """F5, STORAGE-12: whenever a restore dies, what a relay finds is the database of before, with
    all that its log holds, or the restored one; it can be repeated; and nothing is lost.
    """
    data, backup = tmp_path / "data", tmp_path / "backup"
    relay = start_relay("--data-dir", data)
    async with speak.registered(relay.url, username) as (client, identity):
        keys = identity.one_time(PreKeyKind.ONE_TIME_X25519, 1, 3)
        await client.request(PublishPrekeys(keys))
        make = [sys.executable, "-c", MAKE, str(data), str(backup)]
        await trio.run_process(make, stdin=subprocess.DEVNULL)
        async with speak.wire(relay.url) as taker:
            assert isinstance(await taker.request(FetchBundle(username, None, None)), Bundle)
        relay.kill()
    assert list(data.glob("*-wal"))
    before, after = (APPLICATION, 1, [2, 3]), (APPLICATION, 1, [])
    seen, died = [], True
    for call, number in itertools.product(CALLS, range(1, MOST_CALLS)):
        if number > 1 and not died:
            continue
        place = tmp_path / f"{call}-{number}"
        shutil.copytree(data, place, ignore=shutil.ignore_patterns("*.sock"))
        died = killed(call, number, backup, place)
        seen.append(served(place))
        assert seen[-1] == before if died else after
        restore(backup, place, replace=True)
        assert served(place) == after
        assert list(place.glob("relay.sqlite.replaced-*"))
    assert seen.count(before) > 5
