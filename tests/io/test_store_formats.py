"""Stores of older formats (spec/store.md, "Formats"), on a file that the first version wrote."""

import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from e2ecall.client.contacts import Contacts
from e2ecall.errors import StoreError
from e2ecall.io import storefile
from e2ecall.io.migrations import FORMAT
from e2ecall.io.store import RecordKind, Store
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.peerstore import peer_from_bytes
from e2ecall.secret import Secret
from relay.wire.names import Address

pytestmark = pytest.mark.anyio

PASSPHRASE = Secret(b"correct horse")
FORMAT_1 = Path(__file__).parent / "data" / "format_1.store"
"""Written by the program that knew format 1 alone: an account, a relay and two contacts."""
FORMAT_2 = FORMAT_1.with_name("format_2.store")
"""Written by the last program of format 2: an account, a relay, two contacts, a peer with an active
and a replaced session, and a request."""


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copy(FORMAT_1, tmp_path / "me.db"))


@pytest.fixture
def second(tmp_path):
    return Path(shutil.copy(FORMAT_2, tmp_path / "second.db"))


@asynccontextmanager
async def opened(path, passphrase=PASSPHRASE):
    store = await Store.open(path, passphrase)
    try:
        yield store
    finally:
        await store.aclose()


def format_of(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA user_version").fetchone()[0]


def assert_is_all_there(store):
    local = LocalDevice.from_bytes(store.get(RecordKind.ACCOUNT))
    assert str(local.address) == "alice@relay.example"
    assert local.identity.public.hex().startswith("25f9e04681ab513b")
    assert store.all(RecordKind.RELAY) == {b"relay.example": bytes(range(32))}
    bob, carol = Contacts(store).all()
    assert (bob.address, bob.verified_identity, bob.told_key_id) == (
        "bob@relay.example", b"B" * 32, 7,
    )  # fmt: skip
    assert (bob.token, bob.given_token, bob.used) == (b"t" * 16, b"g" * 16, 1_799_999_999)
    assert (bob.identity_changed, bob.other_identity, bob.blocked) == (True, None, False)
    assert Contacts(store).get(Address.parse("carol@relay.example")) == carol


async def test_a_store_of_the_first_format(old):
    """STORE-13: a store of format 1 opens with all that was in it, and is of the newest then."""
    assert format_of(old) == 1
    for _ in range(2):
        async with opened(old) as store:
            assert_is_all_there(store)
        assert format_of(old) == FORMAT
    assert sorted(file.name for file in old.parent.iterdir()) == [old.name]


async def test_a_store_of_the_second_format(second):
    """STORE-13: so does one of format 2, with contacts, sessions and requests as they were."""
    assert format_of(second) == 2
    for _ in range(2):
        async with opened(second) as store:
            local = LocalDevice.from_bytes(store.get(RecordKind.ACCOUNT))
            assert local.identity.public.hex().startswith("490b3ea8d9fa2c16")
            bob, carol = Contacts(store).all()
            assert (bob.token, bob.given_token, bob.token_sent) == (b"t" * 16, b"g" * 16, 0)
            assert (bob.verified_identity, bob.other_identity) == (b"B" * 32, b"O" * 32)
            assert (bob.pinned_identity, bob.checked) == (b"P" * 32, 1_799_999_000)
            assert (carol.blocked, bob.blocked) == (True, False)
            peer = peer_from_bytes(store.get(RecordKind.PEER, bob.address.encode()))
            assert peer.proven is False
            assert [one.archived_at for one in peer.sessions] == [0, 1_800_000_000]
            assert peer.sessions[1].session_id.hex() == "9f7d8ce20677f7f6acf8e43dacca326f"
            assert [len(one.ratchet.receiving) for one in peer.sessions] == [1, 1]
            (request,) = store.all(RecordKind.REQUEST).values()
            assert str(peer_from_bytes(request).address) == "eve@relay.example"
        assert format_of(second) == FORMAT


async def test_wrong_passphrase_migrates_nothing(old):
    """STORE-13, S1: with a wrong passphrase an old store is not touched."""
    with pytest.raises(StoreError, match="passphrase does not open"):
        await Store.open(old, Secret(b"wrong"))
    assert old.read_bytes() == FORMAT_1.read_bytes()


async def test_damaged_old_store(old):
    """STORE-13, S1: an old store with any row altered or gone is refused and stays as it is."""
    with closing(sqlite3.connect(old)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM records")]
    for statement in (
        "DELETE FROM records WHERE name = ?",
        "UPDATE records SET value = zeroblob(64) WHERE name = ?",
    ):
        for name in names:
            shutil.copy(FORMAT_1, old)
            with closing(sqlite3.connect(old)) as database, database:
                database.execute(statement, (name,))
            before = old.read_bytes()
            with pytest.raises(StoreError, match="damaged"):
                await Store.open(old, PASSPHRASE)
            assert old.read_bytes() == before
            assert format_of(old) == 1


async def test_disk_full_while_migrating(old, monkeypatch):
    """STORE-13: a migration that the disk refuses leaves the old store, which opens later."""
    seal = storefile.RecordKeys.seal

    def full(keys, record):
        if record.kind is RecordKind.CONTACT:
            raise sqlite3.OperationalError("database or disk is full")
        return seal(keys, record)

    with monkeypatch.context() as patch:
        patch.setattr(storefile.RecordKeys, "seal", full)
        with pytest.raises(StoreError, match="disk is full"):
            await Store.open(old, PASSPHRASE)
    assert format_of(old) == 1
    async with opened(old) as store:
        assert_is_all_there(store)


async def test_the_migrated_store_has_a_key_of_its_own(old):
    """STORE-13, STORE-11: a migrated store is sealed anew: no old row or header is left in it."""
    with closing(sqlite3.connect(old)) as database:
        rows = database.execute("SELECT value FROM records UNION ALL SELECT value FROM header")
        before = [value for (value,) in rows]
    async with opened(old):
        pass
    data = old.read_bytes()
    assert before
    assert not any(value in data for value in before)


async def test_header_of_another_format(old, tmp_path):
    """STORE-02, R12: a header is worth nothing under another format than it was sealed for."""
    async with opened(tmp_path / "new.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "new.db")) as database, database:
        database.execute("PRAGMA user_version = 1")
    before = (tmp_path / "new.db").read_bytes()
    with pytest.raises(StoreError, match="damaged"):
        await Store.open(tmp_path / "new.db", PASSPHRASE)
    assert (tmp_path / "new.db").read_bytes() == before
