"""Calls through a real relay, on trio and on asyncio: how they begin, go on and end."""

import time

import anyio
import pytest

import e2ecall
from e2ecall import EndReason
from e2ecall.protocol.messages import Stream
from tests.integration.people import (
    ended,
    frames,
    media,
    next_call,
    person,
    ringing,
    talking,
    until,
)

pytestmark = pytest.mark.anyio


class Clock:
    """The time of day, which a test can set forward."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


async def test_sound_and_picture_flow_both_ways(people):
    """A call carries audio and video in both directions, and both ends show the same code."""
    async with people() as (alice, bob):
        at_alice, at_bob = media(), media()
        call, incoming = await ringing(alice, bob, **at_alice)
        assert (incoming.caller, incoming.wants_video) == (alice.address, True)
        assert not incoming.verified
        answered = await incoming.accept(**at_bob)
        for end in (call, answered):
            await until(end, e2ecall.Connected)
            await until(end, e2ecall.FirstVideo)
        assert call.sas == answered.sas is not None
        assert len(call.sas.emoji) == 4
        assert len(call.sas.digits) == 8
        for side in (at_alice, at_bob):
            await frames(side["output"], Stream.MICROPHONE, 25)
            await frames(side["output"], Stream.CAMERA, 15)
            picture = side["output"].of(Stream.CAMERA)[-1].frame
            assert (picture.width, picture.height) == (640, 360)
        assert call.media.stats().refused == answered.media.stats().refused == 0
        await call.hangup()
        assert await ended(answered) == (EndReason.HANGUP, True)
        await answered.closed.wait()
        assert at_alice["output"].closed
        assert at_bob["output"].closed


@pytest.mark.parametrize("leaver", ["caller", "callee"])
async def test_hangup(people, leaver):
    """Either end can hang up; both learn of it, and who did it."""
    async with people() as (alice, bob):
        ends = dict(zip(("caller", "callee"), await talking(alice, bob), strict=True))
        leaving = ends.pop(leaver)
        (staying,) = ends.values()
        await leaving.hangup()
        assert await ended(leaving) == (EndReason.HANGUP, False)
        assert await ended(staying) == (EndReason.HANGUP, True)


async def test_one_call_after_the_other(people):
    """After a call ended the next one rings, in either direction, with another code."""
    async with people() as (alice, bob):
        codes = set()
        for caller, callee in ((alice, bob), (bob, alice), (alice, bob)):
            call, answered = await talking(caller, callee)
            codes.add(call.sas.digits)
            await call.hangup()
            await answered.closed.wait()
        assert len(codes) == 3


async def test_decline(people):
    """A declined call ends at both ends, and no media was ever sent."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob)
        await incoming.decline()
        assert await ended(call) == (EndReason.DECLINED, True)
        assert await ended(incoming.call) == (EndReason.DECLINED, False)
        assert call.media.stats().datagrams_sent == 0
        assert incoming.call.media.stats().datagrams_sent == 0


async def test_cancel_while_it_rings(people):
    """A caller who gives up ends the ringing; what comes too late to accept says so."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob)
        await call.hangup()
        assert await ended(call) == (EndReason.CANCELLED, False)
        assert await ended(incoming.call) == (EndReason.CANCELLED, True)
        with pytest.raises(e2ecall.LocalProtocolError, match="over already"):
            await incoming.accept()


async def test_cancel_before_it_rings(people):
    """A call that is given up at once never rings, and does not keep the callee busy."""
    async with people() as (alice, bob):
        given_up = await alice.call(bob.address)
        await given_up.hangup()
        assert await ended(given_up) == (EndReason.CANCELLED, False)
        call, incoming = await ringing(alice, bob)
        assert incoming.call.ended is None
        await incoming.decline()
        assert await ended(call) == (EndReason.DECLINED, True)


async def test_busy(people, tmp_path, relay):
    """Who is in a call, or is being called, is busy for others; the call goes on undisturbed."""
    async with people() as (alice, bob), person(tmp_path, relay, "carol") as carol:
        call, incoming = await ringing(alice, bob)
        assert await ended(await carol.call(bob.address)) == (EndReason.BUSY, True)
        answered = await incoming.accept(**media(video=False))
        await until(answered, e2ecall.Connected)
        assert await ended(await carol.call(bob.address)) == (EndReason.BUSY, True)
        assert await ended(await carol.call(alice.address)) == (EndReason.BUSY, True)
        assert call.ended is answered.ended is None
        with pytest.raises(e2ecall.LocalProtocolError, match="already"):
            await alice.call(carol.address)
        await call.hangup()
        again, _ = await ringing(carol, bob)
        await again.hangup()


async def test_no_answer(people):
    """A call that nobody answers ends after a minute at both ends."""
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, incoming = await ringing(alice, bob)
        clock.ahead = 59
        assert call.ended is incoming.call.ended is None
        clock.ahead = 62
        assert (await ended(call))[0] is EndReason.NO_ANSWER
        assert (await ended(incoming.call))[0] in {EndReason.NO_ANSWER, EndReason.CANCELLED}


async def test_nobody_there(people, tmp_path, relay):
    """A call to somebody who is offline ends unanswered, and rings nowhere when it is old."""
    clock = Clock()
    async with person(tmp_path, relay, "bob") as bob:
        address = bob.address
    async with person(tmp_path, relay, "alice", clock=clock) as alice:
        call = await alice.call(address)
        clock.ahead = 62
        assert await ended(call) == (EndReason.NO_ANSWER, False)
    async with (
        person(tmp_path, relay, "bob", clock=clock) as bob,
        person(tmp_path, relay, "carol", clock=clock) as carol,
    ):
        _, incoming = await ringing(carol, bob)
        assert incoming.caller == carol.address
        await incoming.decline()


async def test_leaving_hangs_up(people, tmp_path, relay):
    """Closing a client in a call ends the call, and the peer learns of it at once."""
    async with person(tmp_path, relay, "alice") as alice:
        async with person(tmp_path, relay, "bob") as bob:
            call, _ = await talking(alice, bob)
        assert await ended(call) == (EndReason.HANGUP, True)


async def test_cancelled_program(people):
    """A program that is cancelled anywhere in a call leaves nothing behind, and its peer knows."""
    async with people() as (alice, bob):

        async def program(task_status):
            call = await alice.call(bob.address, **media(video=False))
            task_status.started(call)
            try:
                await call.wait_ended()
            finally:
                with anyio.CancelScope(shield=True):
                    await call.hangup()

        async with anyio.create_task_group() as tasks:
            await tasks.start(program)
            answered = await (await next_call(bob)).accept(**media(video=False))
            await until(answered, e2ecall.Connected)
            tasks.cancel_scope.cancel()
        assert await ended(answered) == (EndReason.HANGUP, True)


async def test_confirmed_code(people):
    """SAS-04: after the code was confirmed the person is verified, and later calls say so."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob)
        await incoming.call.confirm_sas()
        await call.hangup()
        _, incoming = await ringing(alice, bob)
        assert incoming.verified
        assert [(c.address, c.verified) for c in bob.contacts()] == [(alice.address, True)]
        assert [(c.address, c.verified) for c in alice.contacts()] == [(bob.address, False)]
        await incoming.decline()


async def test_mute(people):
    """The peer is told of mute and unmute, and frames keep coming at their rate while muted."""
    async with people() as (alice, bob):
        at_bob = media(video=False)
        call, incoming = await ringing(alice, bob, **media(video=False))
        answered = await incoming.accept(**at_bob)
        await until(answered, e2ecall.Connected)
        for muted in (True, False):
            await (call.mute() if muted else call.unmute())
            assert await until(answered, e2ecall.MediaState) == e2ecall.MediaState(muted, False)
            heard = len(at_bob["output"].of(Stream.MICROPHONE))
            await frames(at_bob["output"], Stream.MICROPHONE, heard + 10)
        await call.hangup()


async def test_both_call_at_once(people):
    """P10, CALL-09: two calls that cross become one, which needs no accepting, with one code."""
    async with people() as (alice, bob):
        placed = {}

        async def place(name, caller, callee):
            placed[name] = await caller.call(callee.address, **media(video=False))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place, "alice", alice, bob)
            tasks.start_soon(place, "bob", bob, alice)
        ends = placed.values()
        for end in ends:
            await until(end, e2ecall.Connected)
        assert len({end.sas for end in ends}) == 1
        await placed["alice"].hangup()
        assert await ended(placed["bob"]) == (EndReason.HANGUP, True)
        # Nobody is left who believes to be in a call.
        call, incoming = await ringing(bob, alice)
        await incoming.decline()
        assert await ended(call) == (EndReason.DECLINED, True)
