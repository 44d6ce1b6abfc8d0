"""Whose calls ring and whose pictures are seen (spec/reach.md, "Calls"), and missed calls."""

import anyio
import pytest

import e2ecall
from e2ecall import EndReason, Policy
from e2ecall.protocol.messages import Stream
from tests.integration.people import (
    PATIENCE,
    caught_up,
    ended,
    frames,
    media,
    person,
    ringing,
    talking,
    texts,
    until,
)
from tests.integration.test_controls import loudness, more

pytestmark = pytest.mark.anyio


async def known(caller, callee):
    """Make the caller a contact of the callee."""
    await callee.message(caller.address, "hello")
    await texts(caller, 1)


async def does_not_ring(caller, callee, **arguments):
    """Place a call that the callee lets not in; what tells is a text that comes behind it."""
    call = await caller.call(callee.address, **arguments)
    await caught_up(caller, callee)
    assert callee._calls._call is None
    assert call.sas is None  # no Ringing came
    await call.hangup()


async def declined(call, incoming):
    """Decline a call, and see that the caller has learnt it: it may place the next one."""
    await incoming.decline()
    await ended(call)


async def next_missed(client):
    with anyio.fail_after(PATIENCE):
        return await anext(client.missed())


async def test_audio_and_video_apart(people):
    """REACH-12: a rule for everybody and one for a single person, for sound and pictures apart;
    what does not ring is answered with nothing, and a contact's is among the missed calls.
    """
    async with people() as (alice, bob):
        await bob.set_call_policy(audio=Policy.CONTACTS, video=Policy.CONTACTS)
        await does_not_ring(alice, bob)
        assert not bob.history()  # a stranger's leaves none
        await known(alice, bob)
        call, incoming = await ringing(alice, bob)
        await declined(call, incoming)
        await bob.set_call_policy(audio=Policy.NOBODY)
        await does_not_ring(alice, bob, **media(video=False))
        missed = await next_missed(bob)
        assert (missed.peer, missed.reason) == (alice.address, EndReason.NO_ANSWER)
        call, incoming = await ringing(alice, bob, **media())
        assert incoming.wants_video
        await declined(call, incoming)
        await bob.allow(alice.address, audio=True, video=False)
        call, incoming = await ringing(alice, bob, **media())
        assert not incoming.wants_video
        await declined(call, incoming)
        await bob.allow(alice.address, audio=False, video=False)
        await does_not_ring(alice, bob, **media())
        (contact,) = bob.contacts()
        assert (contact.audio, contact.video) == (False, False)
        await bob.allow(alice.address)
        await bob.set_call_policy(audio=Policy.EVERYONE)
        assert bob.reachability == e2ecall.Reachability(
            Policy.EVERYONE, strangers_ring=True, audio=Policy.EVERYONE, video=Policy.CONTACTS
        )
        call, incoming = await ringing(alice, bob)
        await declined(call, incoming)


async def test_a_stranger_who_is_let_in(people):
    """REACH-12: a stranger of whom the user says so rings where first calls wait."""
    async with people() as (alice, bob):
        await bob.set_policy(Policy.EVERYONE, strangers_ring=False)
        await does_not_ring(alice, bob)
        await bob.allow(alice.address, audio=True)
        call, incoming = await ringing(alice, bob)
        await declined(call, incoming)


async def test_pictures_that_are_not_let_in(people):
    """REACH-13, P2: whoever is not to be seen reaches no decoder by calling with a picture, turning
    one on, or sharing a screen; asking for it shows it, and hiding hides it again.
    """
    async with people() as (alice, bob):
        await bob.set_call_policy(video=Policy.NOBODY)
        at_bob = media(video=False)
        call, incoming = await ringing(alice, bob, **media())
        assert not incoming.wants_video
        answered = await incoming.accept(**at_bob)
        await until(call, e2ecall.Connected)
        await call.share_screen(media()["video"])
        while min(sent(call, stream) for stream in PICTURES) < 30:
            await more(at_bob["output"], Stream.MICROPHONE)
        assert not any(at_bob["output"].of(stream) for stream in PICTURES)
        received = answered.media.stats().received
        assert not any(received[stream].decoded for stream in PICTURES)
        assert answered.media.stats().refused == 0
        await answered.ask_video()
        await frames(at_bob["output"], Stream.CAMERA, 5)
        await frames(at_bob["output"], Stream.SCREEN, 5)
        await answered.hide_peer()
        seen = [len(at_bob["output"].of(stream)) for stream in PICTURES]
        await more(at_bob["output"], Stream.MICROPHONE, 50)
        after = [len(at_bob["output"].of(stream)) for stream in PICTURES]
        # What a decoder had already may still come out.
        assert all(late - early <= 2 for early, late in zip(seen, after, strict=True))
        await call.hangup()


PICTURES = (Stream.CAMERA, Stream.SCREEN)


def sent(call, stream):
    return call.media.stats().sent[stream].frames


async def test_who_is_called_is_let_in(people):
    """REACH-14, P10: calls that cross become one, whatever the rules say of the other."""
    async with people() as (alice, bob):
        for one in (alice, bob):
            await one.set_call_policy(audio=Policy.NOBODY, video=Policy.NOBODY)
        placed = {}

        async def place(caller, callee):
            placed[caller] = await caller.call(callee.address, **media(video=False))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place, alice, bob)
            tasks.start_soon(place, bob, alice)
        for call in placed.values():
            await until(call, e2ecall.Connected)
        assert placed[alice].sas == placed[bob].sas
        await placed[alice].hangup()


@pytest.mark.parametrize("accepted", [True, False], ids=["connected", "ringing"])
async def test_blocking_ends_a_call(people, accepted):
    """REACH-05, P8: who is blocked in a call, or while it rings, is hung up on and told no more."""
    async with people() as (alice, bob):
        if accepted:
            call, answered = await talking(alice, bob)
            told = EndReason.HANGUP
        else:
            call, incoming = await ringing(alice, bob)
            answered, told = incoming.call, EndReason.DECLINED
        await bob.block(alice.address)
        assert answered.ended is not None
        assert await ended(call) == (told, True)


async def test_a_call_placed_beside_a_held_one(people, tmp_path, relay):
    """CALL-36: with the first call on hold a second can be placed, and not otherwise; also when the
    other one calls at the same moment.
    """
    async with people() as (alice, bob), person(tmp_path, relay, "carol") as carol:
        at_bob = media(video=False)
        call, incoming = await ringing(alice, bob, **media(video=False))
        first = await incoming.accept(**at_bob)
        await until(call, e2ecall.Connected)
        await until(first, e2ecall.Connected)
        with pytest.raises(e2ecall.LocalProtocolError, match="a call already"):
            await alice.call(carol.address)
        await call.hold()
        second, incoming = await ringing(alice, carol, **media(video=False))
        taken = await incoming.accept(**media(video=False))
        await until(second, e2ecall.Connected)
        with pytest.raises(e2ecall.LocalProtocolError, match="a call already"):
            await alice.call(bob.address)
        assert (await until(first, e2ecall.MediaState)).held
        await more(at_bob["output"], Stream.MICROPHONE, 25)  # what was on its way is played
        assert max(loudness(f) for f in await more(at_bob["output"], Stream.MICROPHONE)) < 50
        await taken.hangup()
        await second.closed.wait()
        placed = []

        async def place(caller, callee):
            placed.append(await caller.call(callee.address, **media(video=False)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place, alice, carol)
            tasks.start_soon(place, carol, alice)
        for crossed in placed:
            await until(crossed, e2ecall.Connected)
        assert placed[0].sas == placed[1].sas
        await placed[0].hangup()
        await call.resume()
        assert max(loudness(f) for f in await more(at_bob["output"], Stream.MICROPHONE, 50)) > 200
        await call.hangup()
        assert await ended(first) == (EndReason.HANGUP, True)


async def test_missed_calls_are_told(people, tmp_path, relay):
    """A missed call is an event, also where no history is kept; a declined one is not missed."""
    async with people() as (alice, bob), person(tmp_path, relay, "carol") as carol:
        await bob.keep_history(False)
        call, incoming = await ringing(alice, bob)
        await declined(call, incoming)
        call, incoming = await ringing(alice, bob)
        await call.hangup()
        assert (await next_missed(bob)).peer == alice.address
        await talking(alice, bob)
        assert await ended(await carol.call(bob.address)) == (EndReason.BUSY, True)
        missed = await next_missed(bob)
        assert (missed.peer, missed.reason) == (carol.address, EndReason.BUSY)
        assert not bob.history()
