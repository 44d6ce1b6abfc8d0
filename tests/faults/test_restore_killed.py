"""kill -9 in the middle of `restore --replace` (spec/wire.md, Backup): at each change of names."""

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
from tests.faults.killpoints import NAMES, Victim

pytestmark = [pytest.mark.trio, pytest.mark.system("strace"), pytest.mark.timeout(180)]

CHILD = """
import sys
from pathlib import Path
from relay.io.sqlite_backup import restore

restore(Path(sys.argv[1]), Path(sys.argv[2]), replace=True)
"""

MAKE = """
import sys
from pathlib import Path
from relay.io.sqlite_backup import backup

backup(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def place(folder, data):
    """Copy what a relay left to a folder that is not there yet."""
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*.sock"))
    return folder


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
    victim, seen = Victim(CHILD, NAMES, tmp_path / "strace.log"), []
    victim.live(backup, place(tmp_path / "whole", data))
    assert served(tmp_path / "whole") == after
    for number in range(len(victim.points)):
        folder = place(tmp_path / str(number), data)
        victim.die(number, backup, folder)
        seen.append(served(folder))
        assert seen[-1] in (before, after)
        restore(backup, folder, replace=True)
        assert served(folder) == after
        assert list(folder.glob("relay.sqlite.replaced-*"))
    assert seen.count(before) > 5
