"""After a lost, a moved and a rolled-back store, at a real relay: people reach each other again."""

import shutil
import time
from contextlib import asynccontextmanager

import anyio
import pytest

import e2ecall
from e2ecall import Client
from e2ecall.io.store import RecordKind
from e2ecall.protocol import account_export
from relay.wire.names import Address
from tests.integration.people import PATIENCE, person, texts
from tests.protocol.test_account_export import CHEAP

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick_exports(monkeypatch):
    monkeypatch.setattr(account_export.generate_export, "__defaults__", (CHEAP,))


@asynccontextmanager
async def moved(folder, relay, data, name="new"):
    """Open a new store and import the account into it."""
    path = folder / f"{name}.db"
    async with Client.open(path, passphrase="of alice", relay=relay.url) as client:
        await client.import_account(data, "paper")
        yield client


async def introduce(alice, bob):
    await alice.message(bob.address, "hello")
    await texts(bob, 1)
    await bob.message(alice.address, "hello")
    await texts(alice, 1)


async def test_a_lost_store(tmp_path, relay):
    """ACCOUNT-01, ACCOUNT-04, SESSION-11: an export brings back name, contacts and verification."""
    async with person(tmp_path, relay, "bob") as bob:
        async with person(tmp_path, relay, "alice") as alice:
            await introduce(alice, bob)
            await alice.verify(bob.address, bob.fingerprint())
            await alice.set_policy(e2ecall.Policy.CONTACTS)
            await bob.verify(alice.address, alice.fingerprint())
            data, address = await alice.export_account("paper"), alice.address
        (tmp_path / "alice.db").unlink()
        async with moved(tmp_path, relay, data) as alice:
            assert alice.address == address
            assert alice.contacts() == (e2ecall.Contact(bob.address, verified=True),)
            assert alice.devices() == (e2ecall.DeviceInfo(2, is_this=True),)
            await alice.message(bob.address, "it is me")
            assert [text.text for text in await texts(bob, 2)] == ["hello", "it is me"]
            assert [one.verified for one in bob.contacts()] == [True]
            await bob.message(alice.address, "welcome back")
            assert [text.text for text in await texts(alice, 1)] == ["welcome back"]
            # The policy came along, and with it who may reach the account.
            async with person(tmp_path, relay, "eve") as eve:
                with pytest.raises(e2ecall.NotReachableError):
                    await eve.message(address, "hello")
    async with Client.open(tmp_path / "new.db", passphrase="of alice", relay=relay.url) as alice:
        assert alice.address == address


async def test_the_former_device(tmp_path, relay):
    """ACCOUNT-06: the device before is told at once, and is not let in any more."""
    async with person(tmp_path, relay, "alice") as former:
        data = await former.export_account("paper")
        async with moved(tmp_path, relay, data):
            with anyio.fail_after(PATIENCE), pytest.raises(e2ecall.RelayError):
                await former.wait_closed()
    with pytest.raises(e2ecall.RelayError, match="not valid"):
        async with person(tmp_path, relay, "alice"):
            pass


async def test_what_is_no_export(tmp_path, relay):
    """ACCOUNT-03, S1: a wrong passphrase and damage are refused, and nothing is stored."""
    async with person(tmp_path, relay, "alice") as alice:
        data = await alice.export_account("paper")
        with pytest.raises(e2ecall.LocalProtocolError, match="belongs to") as caught:
            await alice.import_account(data, "paper")
        assert caught.value.hint
    async with Client.open(tmp_path / "new.db", passphrase="x", relay=relay.url) as new:
        for wrong, passphrase in ((data, "rock"), (data[:-1], "paper"), (b"", "paper")):
            with pytest.raises(e2ecall.ExportError):
                await new.import_account(wrong, passphrase)
        assert not new.is_registered
        assert new.contacts() == ()


@pytest.mark.parametrize("first", ["the_one_who_went_back", "the_other_one"])
async def test_a_rolled_back_store(tmp_path, relay, first):
    """S2, SESSION-02: after one of two went back to an older copy, whoever writes first, they
    find together again with the next message of who could not read.
    """
    ahead = 0

    def clock():
        return time.time() + ahead

    async with person(tmp_path, relay, "bob", clock=clock) as bob:
        async with person(tmp_path, relay, "alice", clock=clock) as alice:
            await introduce(alice, bob)
        shutil.copy(tmp_path / "alice.db", tmp_path / "backup.db")
        async with person(tmp_path, relay, "alice", clock=clock) as alice:
            for _ in range(3):
                await introduce(alice, bob)
        shutil.copy(tmp_path / "backup.db", tmp_path / "alice.db")
        async with person(tmp_path, relay, "alice", clock=clock) as alice:
            back = first == "the_one_who_went_back"
            writer, reader = (alice, bob) if back else (bob, alice)
            await writer.message(reader.address, "unreadable")
            with anyio.fail_after(PATIENCE):
                while not _suspects(reader, writer):  # noqa: ASYNC110 - its line takes it in
                    await anyio.sleep(0.01)
            ahead = 3_700  # a session is replaced at most once an hour
            await reader.message(writer.address, "are you there?")
            await _until(writer, "are you there?")
            await writer.message(reader.address, "yes")
            await _until(reader, "yes")
            await reader.message(writer.address, "good")
            await _until(writer, "good")


async def _until(client, wanted):
    """Read texts up to the wanted one; the unreadable is not among them."""
    with anyio.fail_after(PATIENCE):
        async for message in client.messages():
            assert message.text != "unreadable"
            if message.text == wanted:
                return


def _suspects(one, other):
    """Tell whether a message of the other could not be decrypted."""
    return other.address in map(str, one._services.sessions._undecryptable)


async def test_an_import_writes_to_nobody(tmp_path, relay):
    """ACCOUNT-07: after an import contacts hear nothing until the user writes."""
    async with person(tmp_path, relay, "bob") as bob:
        async with person(tmp_path, relay, "alice") as alice:
            await introduce(alice, bob)
            data = await alice.export_account("paper")
        async with moved(tmp_path, relay, data) as alice:
            before = bob._services.sessions._peers.get(_address(alice)).heard
            await alice.set_policy(e2ecall.Policy.EVERYONE)  # a whole round trip later
            assert bob._services.sessions._peers.get(_address(alice)).heard == before
            assert alice._services.store.all(RecordKind.PEER) == {}


def _address(client):
    return Address.parse(client.address)
