"""Texts that wait to be taken (spec/store.md, "Inbox"), on a real store."""

from contextlib import asynccontextmanager

import anyio
import pytest

from e2ecall.client.inbox import MAX_WAITING, Inbox, Standing
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.secret import Secret
from relay.wire.codec import encode
from tests.integration.people import ended, person, ringing, texts

pytestmark = pytest.mark.anyio

SENDER = "alice@relay.example"


def text(number):
    record = encode([SENDER, True, 1_000 * number, f"text {number}".encode()])
    return Change(RecordKind.INBOX, number.to_bytes(8) + bytes([Standing.CONTACT]), record)


@asynccontextmanager
async def inbox_of(path, passphrase=b"x"):
    store = await Store.open(path, Secret(passphrase))
    try:
        yield store, Inbox(store)
    finally:
        await store.aclose()


@pytest.fixture
async def inbox(tmp_path):
    async with inbox_of(tmp_path / "me.db") as pair:
        yield pair


async def test_in_order(inbox):
    """INBOX-01: texts are yielded in the order in which they arrived, whole."""
    store, waiting = inbox
    await store.write([text(number) for number in (256, 2, 1, 255)])
    following = waiting.messages()
    taken = [await following(anyio.Event()) for _ in range(4)]
    assert [(m.sender, m.proven, m.text) for m in taken] == [
        (SENDER, True, f"text {number}") for number in (1, 2, 255, 256)
    ]
    assert taken[0].sent_at == 1.0


async def test_taken_when_the_next_is_asked_for(inbox):
    """INBOX-02: a text leaves the store when the next is asked for, and not before."""
    store, waiting = inbox
    await store.write([text(1), text(2)])
    following = waiting.messages()
    for left in (2, 1):
        await following(anyio.Event())
        assert len(store.all(RecordKind.INBOX)) == left
    assert (await waiting.messages()(anyio.Event())).text == "text 2"


async def test_waits_for_the_next(inbox):
    """A reader sleeps until a text was stored."""
    store, waiting = inbox
    taken = []

    async def read():
        taken.append(await waiting.messages()(anyio.Event()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert not taken
        await store.write([text(1)])
        waiting.notify()
    assert [message.text for message in taken] == ["text 1"]


async def test_the_end(inbox):
    """When no more can come what waits is still yielded, and then the reader ends."""
    store, waiting = inbox
    await store.write([text(1), text(2)])
    over = anyio.Event()
    over.set()
    following = waiting.messages()
    assert [(await following(over)).text for _ in range(2)] == ["text 1", "text 2"]
    assert await following(over) is None


async def test_full(tmp_path, relay):
    """INBOX-04: a full inbox takes no more texts; those that wait stay, and room helps again."""
    path = tmp_path / "bob.db"
    async with person(tmp_path, relay, "bob") as bob:
        address = bob.address
    async with inbox_of(path, b"of bob") as (store, _):
        await store.write([text(number) for number in range(1, MAX_WAITING + 1)])
    async with person(tmp_path, relay, "alice") as alice, person(tmp_path, relay, "bob") as bob:
        await alice.message(address, "one too many")
        call, incoming = await ringing(alice, bob)  # it was sent later, so the text was handled
        await incoming.decline()
        await ended(call)
        assert [message.text for message in await texts(bob, 2)] == ["text 1", "text 2"]
        await alice.message(address, "fits")
        _, incoming = await ringing(alice, bob)
    async with inbox_of(path, b"of bob") as (store, waiting):
        kept = sorted(store.all(RecordKind.INBOX))
        assert len(kept) == MAX_WAITING
        await store.write([Change(RecordKind.INBOX, key, None) for key in kept[:-2]])
        following = waiting.messages()
        assert [(await following(anyio.Event())).text for _ in range(2)] == ["text 1000", "fits"]
