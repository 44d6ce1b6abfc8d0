"""Texts through a real relay: both ways, offline, across restarts, and who may send them."""

from functools import partial

import anyio
import pytest

import e2ecall
from e2ecall import EndReason, Policy
from e2ecall.testing import running_relay
from tests.integration.people import PATIENCE, ended, fresh, person, ringing, talking, texts

pytestmark = pytest.mark.anyio


async def test_both_ways(people):
    """Texts arrive in order in both directions, with the sender's proven address and the time."""
    async with people() as (alice, bob):
        for number in range(3):
            await alice.message(bob.address, f"hello {number}")
        received = await texts(bob, 3)
        assert [text.text for text in received] == ["hello 0", "hello 1", "hello 2"]
        assert {(text.sender, text.proven) for text in received} == {(alice.address, True)}
        assert 0 <= received[1].sent_at - received[0].sent_at < PATIENCE
        await bob.message(alice.address, "good evening ☎")
        (reply,) = await texts(alice, 1)
        assert (reply.sender, reply.text) == (bob.address, "good evening ☎")


async def test_a_name_alone_is_at_the_own_relay(people):
    """A bare username means the account of that name at the own relay."""
    async with people() as (alice, bob):
        await alice.message(bob.address.partition("@")[0], "hello")
        assert [text.sender for text in await texts(bob, 1)] == [alice.address]


async def test_delivered_when_the_recipient_comes_back(tmp_path, relay):
    """What was sent while nobody was there arrives later, once, in order."""
    async with person(tmp_path, relay, "bob") as bob:
        address = bob.address
    async with person(tmp_path, relay, "alice") as alice:
        for number in range(3):
            await alice.message(address, str(number))
    async with person(tmp_path, relay, "bob") as bob:
        assert [text.text for text in await texts(bob, 3)] == ["0", "1", "2"]


async def test_restarts(tmp_path, relay):
    """A conversation goes on when both clients are opened anew on their stores, again and again."""
    async with person(tmp_path, relay, "alice") as alice, person(tmp_path, relay, "bob") as bob:
        addresses = {"alice": alice.address, "bob": bob.address}
    for number, (sender, recipient) in enumerate([("alice", "bob"), ("bob", "alice")] * 2):
        async with person(tmp_path, relay, sender) as client:
            assert client.address == addresses[sender]
            await client.message(addresses[recipient], str(number))
        async with person(tmp_path, relay, recipient) as client:
            inbox = client.messages()
            with anyio.fail_after(PATIENCE):
                while (await anext(inbox)).text != str(number):
                    pass


async def test_untaken_texts_outlive_the_client(tmp_path, relay):
    """INBOX-02: a text that was received and not taken is there when the store is opened again."""
    async with person(tmp_path, relay, "alice") as alice:
        async with person(tmp_path, relay, "bob") as bob:
            await alice.message(bob.address, "kept")
            await alice.message(bob.address, "kept too")
            assert [text.text for text in await texts(bob, 2)] == ["kept", "kept too"]
        async with person(tmp_path, relay, "bob") as bob:
            assert [text.text for text in await texts(bob, 1)] == ["kept too"]


async def test_many_tasks_at_once(people):
    """S3: tasks that send over the same sessions at the same time never fork a ratchet."""
    count = 12
    async with people() as (alice, bob):
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(alice.message, bob.address, f"a{number}")
                tasks.start_soon(bob.message, alice.address, f"b{number}")
        for client, letter in ((alice, "b"), (bob, "a")):
            received = {text.text for text in await texts(client, count)}
            assert received == {f"{letter}{number}" for number in range(count)}


async def test_texts_during_a_call(people):
    """Texts and a call share the session of two people without disturbing each other."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob)
        await alice.message(bob.address, "pick up")
        await bob.message(alice.address, "one moment")
        assert [text.text for text in await texts(bob, 1)] == ["pick up"]
        assert [text.text for text in await texts(alice, 1)] == ["one moment"]
        await incoming.decline()
        assert await ended(call) == (EndReason.DECLINED, True)


async def test_contacts_only(people, tmp_path, relay):
    """P8: under `contacts` strangers are answered as if there was no such user, in every way."""
    async with people() as (alice, bob), person(tmp_path, relay, "carol") as stranger:
        await bob.message(alice.address, "reach me any time")
        await texts(alice, 1)
        await bob.set_policy(Policy.CONTACTS)
        refusals = []
        for address in (bob.address, fresh("nobody")):
            for attempt in (
                partial(stranger.message, address, "hi"),
                partial(stranger.call, address),
            ):
                with pytest.raises(e2ecall.NotReachableError) as caught:
                    await attempt()
                refusals.append((str(caught.value), caught.value.hint, caught.value.retry_after))
        assert len(set(refusals)) == 1
        await alice.message(bob.address, "thank you")
        assert [text.text for text in await texts(bob, 1)] == ["thank you"]
        call, incoming = await ringing(alice, bob)
        await incoming.decline()
        assert await ended(call) == (EndReason.DECLINED, True)


async def test_everyone_again(people):
    """Who chose `contacts` can choose `everyone` again, and strangers get through."""
    async with people() as (alice, bob):
        await bob.set_policy(Policy.CONTACTS)
        with pytest.raises(e2ecall.NotReachableError):
            await alice.message(bob.address, "hello")
        await bob.set_policy(Policy.EVERYONE)
        await alice.message(bob.address, "hello")
        assert [text.text for text in await texts(bob, 1)] == ["hello"]


async def test_two_relays(tmp_path, relay):
    """P12: a stranger of another relay is unproven until one answers: then that relay is asked."""
    async with (
        running_relay() as other,
        person(tmp_path, relay, "alice") as alice,
        person(tmp_path, other, "bob") as bob,
    ):
        await alice.message(bob.address, "over there?")
        (text,) = await texts(bob, 1)
        assert (text.sender, text.proven) == (alice.address, False)
        await bob.message(alice.address, "over here")
        (text,) = await texts(alice, 1)
        assert (text.sender, text.proven) == (bob.address, True)
        call, answered = await talking(alice, bob)
        assert call.sas == answered.sas
        await call.hangup()
