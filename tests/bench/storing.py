"""Writing the encrypted store against writing the same bytes to a bare SQLite file.

The cost is the disk's: both write with the same settings and the same number of rows.
"""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.io.records import Change, RecordKind
from e2ecall.io.storefile import open_file
from e2ecall.secret import Secret
from tests.bench.harness import Case, Contestant, Report

RECORD = 6_000
"""Bytes: a peer with one session."""

CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
BARE = "bare SQLite"


def run(report: Report) -> None:
    """Measure one change of a record among a hundred."""
    with tempfile.TemporaryDirectory() as folder:
        file, _ = open_file(Path(folder, "store.db"), Secret(b"bench"), CHEAP)
        database = sqlite3.connect(Path(folder, "bare.db"), isolation_level=None)
        with closing(file), closing(database):
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA synchronous = EXTRA")
            database.execute("PRAGMA secure_delete = ON")
            database.execute("CREATE TABLE records (name BLOB PRIMARY KEY, value BLOB)")

            def ours(name: bytes = b"7") -> None:
                file.commit([Change(RecordKind.PEER, name, os.urandom(RECORD))])

            def bare(name: bytes = b"7") -> None:
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    statement = "INSERT OR REPLACE INTO records VALUES (?, ?)"
                    database.execute(statement, (name, os.urandom(RECORD)))
                    database.execute(statement, (b"manifest", os.urandom(64)))

            for number in range(100):
                ours(b"%d" % number)
                bare(b"%d" % number)
            contestants = (Contestant("e2ecall", lambda: ours), Contestant(BARE, lambda: bare))
            report.measure(
                Case(f"store write, {RECORD} B, on disk", contestants, BARE, report.rounds(100))
            )
