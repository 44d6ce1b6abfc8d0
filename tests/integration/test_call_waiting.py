"""A second call while one is connected: declined, answered beside a held one, or instead of it."""

import anyio
import pytest

import e2ecall
from e2ecall import EndReason
from e2ecall.protocol.messages import Stream
from tests.integration.people import ended, media, next_call, person, ringing, talking, until
from tests.integration.test_controls import loudness, more

pytestmark = pytest.mark.anyio


async def test_a_waiting_call_is_declined(people, tmp_path, relay):
    """CALL-36: a second call rings and can be declined, a third is Busy; the first goes on."""
    async with (
        people() as (alice, bob),
        person(tmp_path, relay, "carol") as carol,
        person(tmp_path, relay, "dave") as dave,
    ):
        bob.let_calls_wait()
        call, answered = await talking(alice, bob)
        second, incoming = await ringing(carol, bob)
        assert incoming.other is answered
        assert await ended(await dave.call(bob.address)) == (EndReason.BUSY, True)
        await incoming.decline()
        assert await ended(second) == (EndReason.DECLINED, True)
        assert call.ended is answered.ended is None
        await call.hangup()


async def test_a_waiting_call_is_answered_beside_a_held_one(people, tmp_path, relay):
    """CALL-36: answering holds the first call, which says so, and can be gone back to."""
    async with people() as (alice, bob), person(tmp_path, relay, "carol") as carol:
        bob.let_calls_wait()
        at_alice = media(video=False)
        call, first = await ringing(alice, bob, **at_alice)
        first = await first.accept(**media(video=False))
        await until(call, e2ecall.Connected)
        await until(first, e2ecall.Connected)
        second, incoming = await ringing(carol, bob, **media(video=False))
        taken = await incoming.accept(**media(video=False))
        assert (await until(call, e2ecall.MediaState)).held
        await until(second, e2ecall.Connected)
        await more(at_alice["output"], Stream.MICROPHONE, 25)  # what was on its way is played
        heard = await more(at_alice["output"], Stream.MICROPHONE)
        assert max(loudness(frame) for frame in heard) < 50
        await taken.hangup()
        await second.closed.wait()
        await first.resume()
        assert not (await until(call, e2ecall.MediaState)).held
        heard = await more(at_alice["output"], Stream.MICROPHONE, 50)
        assert max(loudness(frame) for frame in heard) > 200
        await call.hangup()
        assert await ended(first) == (EndReason.HANGUP, True)


async def test_a_waiting_call_is_answered_instead(people, tmp_path, relay):
    """CALL-36: answering can end the first call, whose other end learns why; then all is free."""
    async with people() as (alice, bob), person(tmp_path, relay, "carol") as carol:
        bob.let_calls_wait()
        call, first = await talking(alice, bob)
        second, incoming = await ringing(carol, bob)
        taken = await incoming.accept(**media(video=False), end_other=True)
        assert await ended(call) == (EndReason.BUSY, True)
        assert await ended(first) == (EndReason.HANGUP, False)
        await until(second, e2ecall.Connected)
        await second.hangup()
        await taken.closed.wait()
        await talking(alice, bob)


async def test_a_call_that_waits_where_another_has_just_ended(people, tmp_path, relay):
    """CALL-36: of two calls the first one ends and is not released yet; whoever calls then waits
    beside the other, which is put on hold before that call is answered.
    """
    async with (
        people() as (alice, bob),
        person(tmp_path, relay, "carol") as carol,
        person(tmp_path, relay, "dave") as dave,
    ):
        bob.let_calls_wait()
        _, first = await talking(alice, bob)
        second, incoming = await ringing(carol, bob)
        taken = await incoming.accept(**media(video=False))
        await until(second, e2ecall.Connected)
        await until(taken, e2ecall.Connected)
        released, note = anyio.Event(), first._note

        async def slowly(past):
            await released.wait()
            await note(past)

        first._note = slowly
        first.leave()
        third, waiting = await ringing(dave, bob)
        assert not first.closed.is_set()
        assert waiting.other is taken
        await waiting.accept(**media(video=False))
        assert taken.controls.held
        await until(third, e2ecall.Connected)
        released.set()
        await first.closed.wait()
        await third.hangup()
        await second.hangup()


async def test_a_waiting_call_that_is_over_holds_nothing(people, tmp_path, relay):
    """A waiting call that was given up cannot be answered, and the first is not put on hold."""
    async with people() as (alice, bob), person(tmp_path, relay, "carol") as carol:
        bob.let_calls_wait()
        _, first = await talking(alice, bob)
        second, incoming = await ringing(carol, bob)
        await second.hangup()
        await incoming.call.closed.wait()
        with pytest.raises(e2ecall.LocalProtocolError, match="over already"):
            await incoming.accept()
        assert not first.controls.held
        again = await carol.call(bob.address)
        assert (await next_call(bob)).other is first
        await again.hangup()
