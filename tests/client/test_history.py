"""The calls that were: what is noted of them, for how long, and what is not (spec/store.md)."""

import itertools
import time

import anyio
import pytest

from e2ecall import EndReason
from e2ecall.client import history
from e2ecall.client.contacts import Contacts
from e2ecall.client.history import History, PastCall
from e2ecall.io.store import Store
from e2ecall.secret import Secret
from relay.wire.names import Address
from tests.integration.people import PATIENCE, ended, person, ringing, talking

pytestmark = pytest.mark.anyio


def past(peer="alice@relay.example", began=0.0, outgoing=False):
    return PastCall(peer, outgoing, began, 0.0, EndReason.NO_ANSWER, video=False)


async def noted(client, count):
    """Return the past calls of a client when there are this many."""
    with anyio.fail_after(PATIENCE):
        while len(client.history()) < count:  # noqa: ASYNC110 - the store tells nobody
            await anyio.sleep(0.01)
    return client.history()


async def test_both_ends_note_a_call(people):
    """HISTORY-01: when a call is released both ends have it, with its length and its end."""
    async with people() as (alice, bob):
        before = time.time()
        call, answered = await talking(alice, bob)
        await call.hangup()
        await answered.closed.wait()
        (placed,), (taken,) = alice.history(), bob.history()
        assert (placed.peer, placed.outgoing, placed.missed) == (bob.address, True, False)
        assert (taken.peer, taken.outgoing, taken.missed) == (alice.address, False, False)
        for entry in (placed, taken):
            assert entry.reason is EndReason.HANGUP
            assert before - 1 <= entry.began <= time.time()
            assert 0 < entry.seconds < time.time() - before + 1
        assert (alice.last_called(), bob.last_called()) == (bob.address, None)


async def test_missed_and_declined(people):
    """A call that its caller gave up was missed; one that was declined was not."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob)
        await call.hangup()
        await incoming.call.closed.wait()
        call, incoming = await ringing(alice, bob)
        await incoming.decline()
        await call.closed.wait()
        assert [entry.missed for entry in bob.history()] == [False, True]
        assert [entry.missed for entry in alice.history()] == [False, False]


async def test_a_call_missed_while_off_line(tmp_path, relay):
    """HISTORY-03: who was off line learns who called, and when, and how to call back."""
    ahead = [0.0]

    def clock():
        return time.time() + ahead[0]

    async with person(tmp_path, relay, "bob") as bob:
        address = bob.address
    async with person(tmp_path, relay, "alice", clock=clock) as alice:
        caller, called_at = alice.address, clock()
        call = await alice.call(address)
        ahead[0] = 62
        assert await ended(call) == (EndReason.NO_ANSWER, False)
        async with person(tmp_path, relay, "bob", clock=clock) as bob:
            (entry,) = await noted(bob, 1)
            assert entry.missed
            assert (entry.peer, entry.reason) == (caller, EndReason.NO_ANSWER)
            assert abs(entry.began - called_at) < 10
            _, incoming = await ringing(bob, alice)
            assert incoming.caller == address
            await incoming.decline()


async def test_a_call_that_found_the_line_busy(people, tmp_path, relay):
    """HISTORY-03: who called while one was talking is among the missed calls."""
    async with people() as (alice, bob), person(tmp_path, relay, "carol") as carol:
        await talking(alice, bob)
        assert await ended(await carol.call(bob.address)) == (EndReason.BUSY, True)
        (entry,) = await noted(bob, 1)
        assert (entry.peer, entry.missed, entry.reason) == (carol.address, True, EndReason.BUSY)


async def test_no_history(people):
    """HISTORY-02: turned off, what there is goes and nothing comes; turned on, it begins anew."""
    async with people() as (alice, bob):
        for kept, expected in ((True, 1), (False, 0), (True, 1)):
            await alice.keep_history(kept)
            assert alice.keeps_history is kept
            assert len(alice.history()) == 0 or kept
            call, _ = await talking(alice, bob)
            await call.hangup()
            assert len(alice.history()) == expected
        await alice.clear_history()
        assert alice.history() == ()
        assert alice.keeps_history


async def test_forgetting_somebody_forgets_their_calls(people):
    """Who forgets a contact keeps no call with them."""
    async with people() as (alice, bob):
        call, answered = await talking(alice, bob)
        await call.hangup()
        await answered.closed.wait()
        await bob.forget(alice.address)
        assert bob.history() == ()
        assert len(alice.history()) == 1


async def test_the_history_is_bounded(tmp_path, monkeypatch):
    """HISTORY-04: the oldest call makes room, and strangers have only their own part."""
    monkeypatch.setattr(history, "MAX_CALLS", 6)
    monkeypatch.setattr(history, "MAX_OF_STRANGERS", 2)
    store = await Store.open(tmp_path / "store.db", Secret(b"x"))
    try:
        contacts = Contacts(store)
        known = Address.parse("carol@relay.example")
        pin = contacts.get(known).new(known, pinned_identity=b"i" * 32)
        await store.write([pin.change()])
        calls = History(store, contacts)
        times = itertools.count()
        for _ in range(4):
            await calls.note(past(str(known), next(times)))
        for number in range(5):
            await calls.note(past(f"stranger_{number}@relay.example", next(times)))
        assert [call.began for call in calls.all()] == [8, 7, 3, 2, 1, 0]
        for _ in range(3):
            await calls.note(past(str(known), next(times)))
        assert [call.began for call in calls.all()] == [11, 10, 9, 8, 7, 3]
    finally:
        await store.aclose()


async def test_a_full_disk_keeps_no_call_from_its_end(people, monkeypatch):
    """HISTORY-01: where the store refuses, the call is over all the same."""
    from e2ecall.errors import StoreError

    async def refused(self, call):
        raise StoreError("the disk is full")

    async with people() as (alice, bob):
        monkeypatch.setattr(History, "note", refused)
        call, answered = await talking(alice, bob)
        with anyio.fail_after(PATIENCE):
            await call.hangup()
            await answered.closed.wait()
