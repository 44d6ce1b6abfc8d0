"""Readers of texts and losses that asyncio cancels in the midst of a write to a real store."""

import asyncio
import threading
from contextlib import contextmanager

import anyio
import pytest

from e2ecall.client.gaps import MessagesMissing
from e2ecall.client.inbox import Inbox
from e2ecall.io.store import RecordKind
from tests.client.devices import devices

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

PATIENCE = 60


@contextmanager
def held_writes(store, monkeypatch):
    """Hold the writer in its next commit; yields when it got there, and what lets it go on."""
    begun, go_on = threading.Event(), threading.Event()
    commit = store._file.commit

    def held(changes):
        begun.set()
        assert go_on.wait(PATIENCE)
        commit(changes)

    with monkeypatch.context() as patched:
        patched.setattr(store._file, "commit", held)
        yield begun, go_on


async def cancelled_in_its_write(asking, store, monkeypatch):
    """Cancel a request, past AnyIO, whose write has begun; return when it has ended."""
    with held_writes(store, monkeypatch) as (begun, go_on):
        task = asyncio.ensure_future(asking)
        assert await anyio.to_thread.run_sync(begun.wait, PATIENCE)
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_text_after_a_cancelled_request(tmp_path, monkeypatch):
    """INBOX-06: a text that came after a cancelled request is yielded, not deleted unseen."""
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        following, closed = Inbox(alice.store).messages(), anyio.Event()
        await alice.receive(await bob.send(alice, b"one"))
        assert (await following(closed)).text == "one"
        await cancelled_in_its_write(following(closed), alice.store, monkeypatch)
        assert not alice.store.all(RecordKind.INBOX)
        await alice.receive(await bob.send(alice, b"two"))
        with anyio.fail_after(PATIENCE):
            assert (await following(closed)).text == "two"
        closed.set()
        assert await following(closed) is None


async def test_a_loss_after_a_cancelled_request(tmp_path, monkeypatch):
    """RATCHET-13: a loss that was noted after a cancelled request is told, not taken for told."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await bob.receive(await alice.send(bob, b"hello"))
        gaps, closed = alice.sessions.gaps, anyio.Event()
        following = gaps.events()

        async def lose_one():
            await bob.send(alice, b"lost")
            await alice.receive(await bob.send(alice, b"found"))
            place.now += 200
            await gaps.look(place.now)

        await lose_one()
        missing = MessagesMissing(str(bob.address), 1)
        assert await following(closed) == missing
        await cancelled_in_its_write(following(closed), alice.store, monkeypatch)
        await lose_one()
        with anyio.fail_after(PATIENCE):
            assert await following(closed) == missing
        closed.set()
        assert await following(closed) is None
