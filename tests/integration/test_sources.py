"""What becomes of cameras and microphones where a call comes to nothing (spec/media.md)."""

import anyio
import pytest

import e2ecall
from e2ecall.protocol.messages import Stream
from e2ecall.testing import moving_picture, speech_like_sound
from tests.client.test_glare import Gate, acquainted, hold_offers
from tests.integration.people import (
    PATIENCE,
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


class Sources:
    """A microphone and a camera that are given to a call."""

    def __init__(self):
        self.audio, self.video = speech_like_sound(1), moving_picture(1)
        self.given = {"audio": self.audio, "video": self.video}

    @property
    def are_closed(self):
        return (self.audio.read(), self.video.read()) == (None, None)


@pytest.mark.parametrize("way", ["given up", "unknown", "over", "turned on while it rings"])
async def test_sources_are_closed_however_early_a_call_ends(people, way):
    """MEDIA-50: no camera or microphone outlives a call that never came to have a transport."""
    async with people() as (alice, bob):
        sources = Sources()
        if way == "given up":
            await (await alice.call(bob.address, **sources.given)).hangup()
        elif way == "unknown":
            with pytest.raises(e2ecall.NotReachableError):
                await alice.call("nobody_here", **sources.given)
        else:
            call, incoming = await ringing(alice, bob)
            if way == "over":
                await call.hangup()
                await ended(incoming.call)
                with pytest.raises(e2ecall.LocalProtocolError):
                    await incoming.accept(**sources.given)
            else:
                await incoming.call.camera(True, sources.video)
                sources.audio.close()
                await incoming.decline()
                late = moving_picture(2)
                with pytest.raises(e2ecall.LocalProtocolError):
                    await incoming.call.camera(True, late)
                assert late.read() is None
        assert sources.are_closed


@pytest.mark.parametrize("way", ["one's own address", "no address", "blocked", "a call already"])
async def test_sources_of_a_call_that_is_refused_at_once(people, way):
    """MEDIA-50: sources are closed where `call` refuses before it asks anybody, and what another
    call sends is not.
    """
    async with people() as (alice, bob):
        sources, others = Sources(), Sources()
        whom, goes_on = bob.address, None
        if way == "one's own address":
            whom = alice.address
        elif way == "no address":
            whom = "No-Body"
        elif way == "blocked":
            await alice.block(whom)
        else:
            goes_on = (await talking(alice, bob, **others.given))[0]
        with pytest.raises(e2ecall.LocalProtocolError):
            await alice.call(whom, **sources.given)
        assert sources.are_closed
        if goes_on is not None:
            assert goes_on.ended is None
            assert goes_on.controls.camera
            assert None not in (others.audio.read(), others.video.read())
            await goes_on.hangup()
            assert others.are_closed


async def test_sources_of_who_has_no_account(tmp_path, relay):
    """MEDIA-50: sources are closed where there is no account to call from."""
    sources = Sources()
    async with e2ecall.Client.open(tmp_path / "new.db", passphrase="x", relay=relay.url) as client:
        with pytest.raises(e2ecall.LocalProtocolError):
            await client.call("bob", **sources.given)
        assert sources.are_closed


@pytest.mark.parametrize("way", ["cancelled", "blocked meanwhile", "no relay"])
async def test_sources_of_a_call_that_is_being_placed(people, monkeypatch, way):
    """MEDIA-50: sources are closed where placing a call is cancelled, refused, or fails."""
    async with people() as (alice, bob):
        await acquainted(alice, bob)
        sources, gate, failed = Sources(), Gate(), []
        outcome = e2ecall.ConnectionFailedError("gone") if way == "no relay" else None
        hold_offers(monkeypatch, alice, gate, outcome)

        async def place():
            try:
                failed.append(await alice.call(bob.address, **sources.given))
            except e2ecall.E2ECallError as error:
                failed.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place)
            with anyio.fail_after(PATIENCE):
                await gate.reached.wait()
            if way == "cancelled":
                tasks.cancel_scope.cancel()
            elif way == "blocked meanwhile":
                await alice.block(bob.address)
            gate.opened.set()
        assert len(failed) == (way != "cancelled")
        if way == "blocked meanwhile":
            (call,) = failed
            await call.closed.wait()
        assert sources.are_closed


async def test_sources_of_an_answer_that_is_cancelled(people):
    """MEDIA-50: an answer that is cancelled closes its sources, and another one can be given."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob)
        sources = Sources()
        gathered, incoming.call._gathered = incoming.call._gathered, False
        with anyio.CancelScope() as scope:
            scope.cancel()
            await incoming.accept(**sources.given)
        assert scope.cancelled_caught
        assert sources.are_closed
        incoming.call._gathered |= gathered
        answered = await incoming.accept(**media(video=False))
        await until(call, e2ecall.Connected)
        assert not answered.controls.camera
        await call.hangup()


async def test_sources_of_a_second_answer(people):
    """MEDIA-50: a call that was accepted is not accepted again: the sources of the second time are
    closed, and what the call sends and says of itself stays as it is.
    """
    async with people() as (alice, bob):
        at_alice, first, second = media(video=False), Sources(), Sources()
        call, incoming = await ringing(alice, bob, **at_alice)
        answered = await incoming.accept(**first.given)
        await until(call, e2ecall.Connected)
        second_audio = {"audio": second.audio, "video": None}
        with pytest.raises(e2ecall.LocalProtocolError, match="accepted already"):
            await incoming.accept(**second_audio)
        assert second.audio.read() is None
        second.video.close()
        assert answered.controls.camera
        await frames(at_alice["output"], Stream.CAMERA, 10)
        await call.hangup()
        await answered.closed.wait()
        assert first.are_closed


async def test_sources_of_a_client_that_is_closed(tmp_path, relay):
    """MEDIA-50: leaving a client closes the sources of the call that goes on, and of one that is
    placed too late.
    """
    sources, late = Sources(), Sources()
    async with person(tmp_path, relay, "bob") as bob:
        async with person(tmp_path, relay, "alice") as alice:
            await alice.call(bob.address, **sources.given)
            await next_call(bob)
        assert sources.are_closed
        with pytest.raises(e2ecall.LocalProtocolError, match="closed"):
            await alice.call(bob.address, **late.given)
        assert late.are_closed
