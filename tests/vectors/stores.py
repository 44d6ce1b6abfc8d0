"""The operation on stores (spec/store.md): a file with given rows, opened."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from msgspec.structs import astuple

from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.io.storefile import open_file
from e2ecall.protocol.account_export import open_export as read_export
from tests.vectors.harness import Given, operation

_SCHEMA = """
PRAGMA application_id = 0x65326563;
CREATE TABLE header (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE records (name BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;
"""


@operation
def open_store(given: Given):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version = {given['format']}")
            header = [("header", given.hex("header")), ("manifest", given.hex("manifest"))]
            database.executemany("INSERT INTO header VALUES (?, ?)", header)
            rows = [tuple(map(bytes.fromhex, row)) for row in given["rows"]]
            database.executemany("INSERT INTO records VALUES (?, ?)", rows)
        cost = Argon2Cost(64, 1, 1)  # for a new file alone; this one says its own
        file, records = open_file(path, given.secret("passphrase"), cost)
        file.close()
    found = sorted((int(kind), key, value) for (kind, key), value in records.items())
    return {"records": found}


@operation
def open_export(given: Given):
    account = read_export(given.hex("file"), given.secret("passphrase"))
    names = ("address", "identity_seed", "newest_device_id", "list_version")
    return {
        **{name: getattr(account, name) for name in names},
        "policy": int(account.policy),
        "relays": [[relay.name, relay.key] for relay in account.relays],
        "contacts": [list(astuple(contact)) for contact in account.contacts],
        "rules": [account.strangers_ring, int(account.audio), int(account.video)],
    }
