"""Who rings in a loop, or breaks calls off for guesses at the code, against a running client."""

import dataclasses

import anyio
import pytest

import e2ecall
from e2ecall import EndReason
from e2ecall.cli.softphone.widgets import ringing_text
from e2ecall.client.rings import MAX_RINGS, RINGS_WINDOW
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_exchange import CallerSecrets
from e2ecall.protocol.exchange_guard import MAX_UNFINISHED
from e2ecall.protocol.messages import Reveal
from relay.wire.names import Address
from tests.adversary.test_offers import Clock
from tests.client.test_glare import acquainted, crossing
from tests.integration.people import PATIENCE, caught_up, ended, person, ringing, talking, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """Only what happens between clients is of interest here."""
    return "trio"


async def rings_and_gives_up(caller, callee):
    call, incoming = await ringing(caller, callee)
    await call.hangup()
    with anyio.fail_after(PATIENCE):
        await incoming.call.closed.wait()


async def is_not_answered(caller, callee):
    """Place a call; what tells that it does not ring is a text that comes behind it."""
    call = await caller.call(callee.address)
    await caught_up(caller, callee)
    assert callee._calls._call is None
    assert call.sas is None  # no Ringing came
    await call.hangup()


async def test_ringing_in_a_loop(people, tmp_path, relay):
    """P9, REACH-17: who calls again and again rings five times in five minutes, whatever the relay
    lets through; then every call is a missed one. Others ring, and so does who was answered.
    """
    clock = Clock()
    async with (
        people(clock=clock) as (eve, bob),
        person(tmp_path, relay, "carol", clock=clock) as carol,
    ):
        await acquainted(eve, bob)
        for _ in range(MAX_RINGS):
            await rings_and_gives_up(eve, bob)
        await bob.clear_history()
        for number in range(3):
            await is_not_answered(eve, bob)
            with anyio.fail_after(PATIENCE):
                while len(bob.history()) <= number:  # noqa: ASYNC110 - it is noted meanwhile
                    await anyio.sleep(0.01)
        assert {(past.peer, past.reason, past.missed) for past in bob.history()} == {
            (eve.address, EndReason.NO_ANSWER, True)
        }
        await rings_and_gives_up(carol, bob)
        clock.ahead += RINGS_WINDOW
        for _ in range(2):
            call, answered = await talking(eve, bob)
            await call.hangup()
            await answered.closed.wait()
            for _ in range(MAX_RINGS - 1):
                await rings_and_gives_up(eve, bob)


async def test_strangers_ringing_in_a_loop(people, tmp_path, relay):
    """P9, REACH-17: a stranger gets no further with a second name, and keeps no contact away."""
    async with people() as (alice, bob), person(tmp_path, relay, "eve") as eve:
        async with person(tmp_path, relay, "mallory") as mallory:
            for number in range(MAX_RINGS):
                await rings_and_gives_up((eve, mallory)[number % 2], bob)
            for stranger in (eve, mallory):
                await is_not_answered(stranger, bob)
        await acquainted(alice, bob)
        await rings_and_gives_up(alice, bob)


async def test_guesses_from_everywhere(tmp_path, relay, monkeypatch):
    """P11, CALL-08: calls broken off before the Reveal count together, from whatever device, in
    glare or not, over a restart of the victim; a CallId that comes again is not even one. They are
    shown with the next call that rings, they stand among the missed ones, and a fourth gets no
    answer.
    """
    send_now, generate, chosen = Call.messages_to_send, CallerSecrets.generate.__func__, []

    def without_reveal(self):
        return [message for message in send_now(self) if not isinstance(message, Reveal)]

    def with_chosen_id(cls):
        made = generate(cls)
        return dataclasses.replace(made, call_id=chosen.pop(0)) if chosen else made

    monkeypatch.setattr(CallerSecrets, "generate", classmethod(with_chosen_id))
    clock = Clock()

    async def guess(eve, bob, call_id=None):
        """Break a call off; return the code that it would have had, or None without a Ringing."""
        chosen[:] = [] if call_id is None else [call_id]
        with monkeypatch.context() as patch:
            patch.setattr(Call, "messages_to_send", without_reveal)
            call = await eve.call(bob.address)
            await caught_up(eve, bob)
            with anyio.fail_after(PATIENCE):
                while call.sas is None and bob._calls._call is not None:  # noqa: ASYNC110 - soon
                    await anyio.sleep(0.01)
            if call.sas is not None:
                clock.ahead += 11
                assert await ended(call) == (EndReason.PEER_FAILED, True)
            await call.hangup()
            return call.sas

    def tries(bob, eve):
        return bob._calls._exchanges.count(Address.parse(eve.address))

    used = b"used before, 16b"
    async with person(tmp_path, relay, "bob", clock=clock) as bob:
        async with person(tmp_path, relay, "eve", clock=clock) as eve:
            await acquainted(eve, bob)
            seen = [await guess(eve, bob, used)]
            assert tries(bob, eve) == 1
            exported = await eve.export_account("of eve")
        async with e2ecall.Client.open(
            tmp_path / "other.db", passphrase="x", relay=relay.url, clock=clock
        ) as eve:
            await eve.import_account(exported, "of eve")
            assert await guess(eve, bob, used) is None
            seen.append(await guess(eve, bob))
            call, incoming = await ringing(eve, bob)
            assert incoming.broken_off == tries(bob, eve) == 2
            assert "2 calls of theirs broke off" in ringing_text(incoming).plain
            await incoming.decline()
            await ended(call)
            with monkeypatch.context() as patch:
                patch.setattr(Call, "messages_to_send", without_reveal)
                chosen[:] = [b"\xff" * 16, bytes(16)]
                mine, theirs = await crossing(monkeypatch, (bob, {}), (eve, {}))
                await until(theirs, e2ecall.Ringing)
                clock.ahead += 11
                assert await ended(mine) == (EndReason.NOT_AUTHENTIC, False)
                seen.append(theirs.sas)
    assert len({code.digits for code in seen}) == MAX_UNFINISHED  # always fresh
    async with (
        person(tmp_path, relay, "bob", clock=clock) as bob,
        e2ecall.Client.open(
            tmp_path / "other.db", passphrase="x", relay=relay.url, clock=clock
        ) as eve,
    ):
        assert tries(bob, eve) == MAX_UNFINISHED
        assert await guess(eve, bob) is None
        assert tries(bob, eve) == MAX_UNFINISHED
        with anyio.fail_after(PATIENCE):
            while sum(p.reason is EndReason.NOT_AUTHENTIC for p in bob.history()) < 5:  # noqa: ASYNC110 - noted meanwhile
                await anyio.sleep(0.01)
        assert all(
            past.missed or past.outgoing
            for past in bob.history()
            if past.reason is EndReason.NOT_AUTHENTIC
        )
