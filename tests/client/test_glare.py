"""Two people call each other at once: one call, and nobody picks up (spec/call.md, CALL-09)."""

import dataclasses
import os

import anyio
import pytest

import e2ecall
from e2ecall.client.call import Call
from e2ecall.client.calllink import CallLink
from e2ecall.client.sessions import Sessions
from e2ecall.errors import RelayError
from e2ecall.protocol.call_exchange import CallerSecrets
from e2ecall.protocol.messages import PayloadKind, Stream
from e2ecall.testing import CollectingSink, speech_like_sound
from relay.wire.names import Address
from tests.integration.people import PATIENCE, frames, media, talking, until

pytestmark = pytest.mark.anyio


async def acquainted(alice, bob):
    """Let both have a session, so that an Offer leaves at once."""
    await alice.message(bob.address, "hello")
    await bob.message(alice.address, "hello")


@pytest.fixture
def call_ids(monkeypatch):
    """Give the CallIds of the next calls, as first bytes; after those they are random again."""
    first, generate = [], CallerSecrets.generate.__func__

    def chosen(cls):
        made = generate(cls)
        return dataclasses.replace(made, call_id=first.pop(0) + os.urandom(15)) if first else made

    monkeypatch.setattr(CallerSecrets, "generate", classmethod(chosen))
    return first


class Gate:
    """Holds back what one client does, until it is opened."""

    def __init__(self):
        self.reached, self.opened = anyio.Event(), anyio.Event()

    async def wait(self):
        self.reached.set()
        await self.opened.wait()


def hold_offers(monkeypatch, client, gate, outcome=None):
    """Let the Offers of ``client`` wait at ``gate``, and then fail if there is an outcome."""
    deliver = CallLink.deliver

    async def held(link, sealed, box):
        if box is None and link._sessions is client._services.sessions:
            await gate.wait()
            if outcome is not None:
                raise outcome
        await deliver(link, sealed, box)

    monkeypatch.setattr(CallLink, "deliver", held)


async def crossing(monkeypatch, first, second):
    """Let two people call each other so that both Offers are made before either arrives.

    The Offer of the first is stored after that of the second.
    """
    (caller, mine), (callee, theirs) = first, second
    gate, placed = Gate(), []
    with monkeypatch.context() as patch:
        hold_offers(patch, caller, gate)

        async def place():
            placed.append(await caller.call(callee.address, **mine))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place)
            with anyio.fail_after(PATIENCE):
                await gate.reached.wait()
            other = await callee.call(caller.address, **theirs)
            gate.opened.set()
    return placed[0], other


async def one_call(first, second):
    """Check that two ends are those of one call that runs in both directions."""
    for call in (first, second):
        await until(call, e2ecall.Connected)
    assert first.sas == second.sas is not None
    with anyio.fail_after(PATIENCE):
        await first.hangup()
        end = await second.wait_ended()
    assert (end.reason, end.by_peer) == (e2ecall.EndReason.HANGUP, True)


async def test_both_call_at_once(people):
    """P10, CALL-09: both Call objects become the two ends of one call, accepted by itself."""
    async with people() as (alice, bob):
        for _ in range(3):
            placed = {}

            async def place(name, caller, callee, placed=placed):
                placed[name] = await caller.call(callee.address, **media(video=False))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(place, "alice", alice, bob)
                tasks.start_soon(place, "bob", bob, alice)
            await one_call(placed["alice"], placed["bob"])


@pytest.mark.parametrize("ours", [b"\x00", b"\xff"], ids=["wins", "loses"])
async def test_the_lower_call_wins_with_each_users_own_media(people, monkeypatch, call_ids, ours):
    """CALL-09: whoever wins, each hears what the other chose to send when calling."""
    async with people() as (alice, bob):
        await acquainted(alice, bob)
        call_ids += [ours, b"\x80"]
        sinks = CollectingSink(), CollectingSink()
        mine, theirs = await crossing(
            monkeypatch,
            (alice, {"audio": speech_like_sound(1), "output": sinks[0]}),
            (bob, {"audio": speech_like_sound(2), "output": sinks[1]}),
        )
        events = []

        async def follow(call):
            events.extend([(call, event) async for event in call.events()])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, mine)
            tasks.start_soon(follow, theirs)
            for sink in sinks:
                await frames(sink, Stream.MICROPHONE, 10)
            with anyio.fail_after(PATIENCE):
                await mine.hangup()
        kinds = {
            call: [type(e).__name__ for c, e in events if c is call] for call in (mine, theirs)
        }
        for seen in kinds.values():
            assert seen.count("Ended") == seen.count("Sas") == seen.count("Connected") == 1
            assert seen[-1] == "Ended"


async def test_an_offer_that_comes_before_ours_was_made(people, monkeypatch):
    """CALL-09: while a call is still being prepared, the peer's own call goes on instead."""
    gate, ensure = Gate(), Sessions.ensure
    async with people() as (alice, bob):
        await acquainted(alice, bob)

        async def held(sessions, address, **arguments):
            if sessions is alice._services.sessions:
                await gate.wait()
            await ensure(sessions, address, **arguments)

        monkeypatch.setattr(Sessions, "ensure", held)
        placed = []

        async def place():
            placed.append(await alice.call(bob.address, **media(video=False)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place)
            await gate.reached.wait()
            theirs = await bob.call(alice.address, **media(video=False))
            with anyio.fail_after(PATIENCE):
                while alice._calls._live is None:  # noqa: ASYNC110 - nothing says so
                    await anyio.sleep(0.005)
            gate.opened.set()
        await one_call(placed[0], theirs)


@pytest.mark.parametrize("outcome", [None, RelayError("refused")], ids=["stored", "refused"])
async def test_an_offer_on_its_way_loses(people, monkeypatch, call_ids, outcome):
    """CALL-09: what becomes of the losing Offer's Send does not matter: one call, no orphan."""
    gate = Gate()
    async with people() as (alice, bob):
        await acquainted(alice, bob)
        call_ids += [b"\xff", b"\x00"]
        hold_offers(monkeypatch, alice, gate, outcome)
        placed = []

        async def place():
            placed.append(await alice.call(bob.address, **media(video=False)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place)
            await gate.reached.wait()
            theirs = await bob.call(alice.address, **media(video=False))
            await until(theirs, e2ecall.Ringing)
            gate.opened.set()
        with pytest.raises(e2ecall.LocalProtocolError, match="a call already"):
            await alice.call(bob.address)
        await one_call(placed[0], theirs)


async def test_hanging_up_at_once_after_glare(people, monkeypatch, call_ids):
    """CALL-09: the losing side can hang up before its Ringing is out, and both ends are free."""
    async with people() as (alice, bob):
        await acquainted(alice, bob)
        call_ids += [b"\xff", b"\x00"]
        carry_on = Call.carry_on

        def leave_at_once(call, machine):
            carry_on(call, machine)
            call.leave()

        with monkeypatch.context() as patch:
            patch.setattr(Call, "carry_on", leave_at_once)
            mine, theirs = await crossing(monkeypatch, (alice, {}), (bob, {}))
            with anyio.fail_after(PATIENCE):
                await mine.closed.wait()
                end = await theirs.wait_ended()
        assert (end.reason, end.by_peer) == (e2ecall.EndReason.DECLINED, True)
        await talking(alice, bob)


@pytest.mark.parametrize("ours", [b"\x00", b"\xff"], ids=["lower", "higher"])
async def test_the_peers_first_message_overtakes_an_offer(people, monkeypatch, call_ids, ours):
    """CALLKEY-18, CALL-09: a session that the peer begins just then does not part the keys."""
    gate, seal = Gate(), Sessions.seal
    async with people() as (alice, bob):
        sessions, address = alice._services.sessions, Address.parse(bob.address)
        call_ids += [ours, b"\x80"]

        async def held(own, to, kind, body, **arguments):
            if own is sessions and kind is PayloadKind.CALL:
                await gate.wait()
            return await seal(own, to, kind, body, **arguments)

        monkeypatch.setattr(Sessions, "seal", held)
        ends = []

        async def place():
            ends.append(await alice.call(bob.address, **media(video=False)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place)
            with anyio.fail_after(PATIENCE):
                await gate.reached.wait()
                own = sessions._peers.get(address).active.session_id
                ends.append(await bob.call(alice.address, **media(video=False)))
                while sessions._peers.get(address).active.session_id == own:  # noqa: ASYNC110 - nothing says so
                    await anyio.sleep(0.005)
            gate.opened.set()
        await one_call(*ends)
