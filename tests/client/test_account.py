"""Registering, and keeping the relay up to date, when things go wrong in between."""

import anyio
import pytest

import e2ecall
from e2ecall import Client
from e2ecall.client.contacts import ContactRecord
from e2ecall.io.connection import RelayConnection
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.store import Store
from e2ecall.secret import Secret
from relay.wire.messages import Bundle, FetchBundle, Login, PublishPrekeys, Register
from tests.integration.people import PATIENCE, fresh, person, texts

pytestmark = pytest.mark.anyio


def break_after(monkeypatch, kind):
    """Lose the answer to every request of a kind; the relay has carried it out."""
    request = RelayConnection.request

    async def broken(self, body, reply):
        answer = await request(self, body, reply)
        if isinstance(body, kind):
            await self.aclose()
            raise e2ecall.ConnectionFailedError("the connection broke")
        return answer

    monkeypatch.setattr(RelayConnection, "request", broken)


@pytest.mark.parametrize("kind", [Register, PublishPrekeys])
@pytest.mark.parametrize("restart", [False, True], ids=["at-once", "after-a-restart"])
async def test_lost_answer(tmp_path, relay, monkeypatch, kind, restart):
    """A registration whose answer was lost is taken up again with the same keys, and works."""
    name = fresh("alice")

    def opened():
        return Client.open(tmp_path / "alice.db", passphrase="x", relay=relay.url)

    async with opened() as alice, person(tmp_path, relay, "bob") as bob:
        with monkeypatch.context() as patch:
            break_after(patch, kind)
            with pytest.raises(e2ecall.ConnectionFailedError, match="broke"):
                await alice.register(name)
        if not restart:
            await alice.register(name)
            await bob.message(name, "hello")
            assert [text.text for text in await texts(alice, 1)] == ["hello"]
            return
    async with opened() as alice, person(tmp_path, relay, "bob") as bob:
        if not alice.is_registered:
            await alice.register(name)
        await bob.message(name, "hello")
        assert [text.text for text in await texts(alice, 1)] == ["hello"]


@pytest.mark.parametrize("refused", [Register, Login])
async def test_lost_answer_and_a_busy_relay(tmp_path, relay, monkeypatch, refused):
    """IDENTITY-18: a name whose registration got no answer is not lost by a refusal after it."""
    name, request = fresh("alice"), RelayConnection.request

    async def busy(self, body, reply):
        if refused is Login and isinstance(body, Register):
            raise e2ecall.UsernameTakenError("this username is taken")
        if isinstance(body, refused):
            raise e2ecall.RelayError("too many requests", retry_after=30)
        return await request(self, body, reply)

    async with Client.open(tmp_path / "alice.db", passphrase="x", relay=relay.url) as alice:
        with monkeypatch.context() as patch:
            break_after(patch, Register)
            with pytest.raises(e2ecall.ConnectionFailedError, match="broke"):
                await alice.register(name)
        with monkeypatch.context() as patch:
            patch.setattr(RelayConnection, "request", busy)
            with pytest.raises(e2ecall.RelayError, match="too many") as caught:
                await alice.register(name)
            assert not isinstance(caught.value, e2ecall.UsernameTakenError)
        await alice.register(name)
        assert alice.address == f"{name}@{alice.address.partition('@')[2]}"


async def test_refused_registration_is_forgotten(tmp_path, relay):
    """After a refusal the store holds no account, also when it is opened again."""
    async with person(tmp_path, relay, "bob") as bob:
        taken = bob.address.partition("@")[0]
    for _ in range(2):
        path = tmp_path / "alice.db"
        async with Client.open(path, passphrase="x", relay=relay.url) as alice:
            assert not alice.is_registered
            with pytest.raises(e2ecall.UsernameTakenError):
                await alice.register(taken)


async def test_prekeys_run_out_and_are_refilled(tmp_path, relay):
    """R3: without one-time prekeys first contact still works; the owner refills them when back."""
    async with person(tmp_path, relay, "bob") as bob:
        name = bob.address.partition("@")[0]
    bundles = [await fetch(relay, name) for _ in range(101)]
    assert [bundle.one_time_prekey is None for bundle in bundles] == [False] * 100 + [True]
    async with person(tmp_path, relay, "alice") as alice:
        await alice.message(name, "hello")
        async with person(tmp_path, relay, "bob") as bob:
            assert [text.text for text in await texts(bob, 1)] == ["hello"]
            await bob.message(alice.address, "welcome")
        assert [text.text for text in await texts(alice, 1)] == ["welcome"]
    assert (await fetch(relay, name)).one_time_prekey is not None


async def fetch(relay, name):
    """Fetch a bundle as a stranger does."""
    opened = await RelayConnection.connect(RelayEndpoint.parse(relay.url), None)

    async def run(task_status):
        task_status.started()
        await opened.run(lambda _: anyio.lowlevel.checkpoint())

    async with anyio.create_task_group() as tasks:
        await tasks.start(run)
        reply = await opened.request(FetchBundle(name, None, None), Bundle)
        tasks.cancel_scope.cancel()
    return reply.bundle


async def test_many_contacts(tmp_path, relay):
    """An account with more contacts than the relay keeps tokens for stays usable."""
    async with person(tmp_path, relay, "alice") as alice:
        own = alice.address.partition("@")[2]
    store = await Store.open(tmp_path / "alice.db", Secret(b"of alice"))
    records = [
        ContactRecord(3, f"contact_{number}@{own}", given_token=number.to_bytes(16))
        for number in range(150)
    ]
    await store.write([record.change() for record in records])
    await store.aclose()
    async with person(tmp_path, relay, "alice") as alice, person(tmp_path, relay, "bob") as bob:
        assert len(alice.contacts()) == 150
        with anyio.fail_after(PATIENCE):
            await alice.set_policy(e2ecall.Policy.EVERYONE)
            await bob.message(alice.address, "hello")
            assert [text.text for text in await texts(alice, 1)] == ["hello"]


async def test_messages_end_with_the_account(tmp_path, relay):
    """Who waits for texts learns when the account's connection is over for good."""
    async with person(tmp_path, relay, "alice") as alice:
        pass
    async with person(tmp_path, relay, "alice") as alice:
        store = alice._services.store

        async def fails(_changes):
            raise e2ecall.StoreError("the disk is full")

        store.write = fails
        async with person(tmp_path, relay, "bob") as bob:
            await bob.message(alice.address, "hello")
            with (
                anyio.fail_after(PATIENCE),
                pytest.raises(e2ecall.StoreError, match="disk is full"),
            ):
                await anext(alice.messages())
    async with person(tmp_path, relay, "alice") as alice:
        assert [text.text for text in await texts(alice, 1)] == ["hello"]
