"""A rule that is set while a call goes on, or rings, holds in it (spec/reach.md, REACH-15)."""

import anyio
import pytest

import e2ecall
from e2ecall import EndReason, Policy
from e2ecall.io.store import RecordKind
from e2ecall.protocol.messages import Stream
from e2ecall.testing import moving_picture, speech_like_sound
from tests.client.test_rules import PICTURES, known, next_missed
from tests.integration.people import PATIENCE, ended, frames, media, ringing, talking, until
from tests.integration.test_controls import SlowCamera, more

pytestmark = pytest.mark.anyio


async def seeing(alice, bob):
    """Let two people see each other; return both ends with what each sends and receives."""
    at_alice, at_bob = media(), media()
    call, incoming = await ringing(alice, bob, **at_alice)
    answered = await incoming.accept(**at_bob)
    for end, at in ((call, at_alice), (answered, at_bob)):
        await until(end, e2ecall.Connected)
        await frames(at["output"], Stream.CAMERA, 3)
    return call, answered, at_alice, at_bob


async def told(call, **state):
    """Wait until the peer says that it is so."""
    with anyio.fail_after(PATIENCE):
        while True:
            said = await until(call, e2ecall.MediaState)
            if all(getattr(said, name) == value for name, value in state.items()):
                return


async def shows_nothing(output):
    """Check that nothing of the peer's pictures is shown from now on, while sound goes on."""
    await more(output, Stream.MICROPHONE, 10)  # what a decoder had already may still come out
    seen = [len(output.of(stream)) for stream in PICTURES]
    await more(output, Stream.MICROPHONE, 50)
    assert [len(output.of(stream)) for stream in PICTURES] == seen


async def stays_dark(output):
    """Check that the peer's pictures are black, or none, from now on, while sound goes on."""
    await more(output, Stream.MICROPHONE, 25)  # what was on its way is shown
    seen = {stream: len(output.of(stream)) for stream in PICTURES}
    await more(output, Stream.MICROPHONE, 75)
    for stream, count in seen.items():
        for received in output.of(stream)[count:]:
            assert received.frame.to_ndarray()[: received.frame.height].mean() < 20


async def test_pictures_refused_in_a_call(people):
    """REACH-15, REACH-13, CALL-31: who says in a call that somebody is not to be seen sees no more
    of them and is seen no more, which they are told, until the user turns a camera on after that.
    """
    async with people() as (alice, bob):
        call, answered, at_alice, at_bob = await seeing(alice, bob)
        await call.share_screen(moving_picture(2))
        await frames(at_bob["output"], Stream.SCREEN, 3)
        shared = moving_picture(3)
        await answered.share_screen(shared)
        await frames(at_alice["output"], Stream.SCREEN, 3)
        await bob.allow(alice.address, video=False)
        assert answered.hides_pictures
        assert (answered.controls.camera, answered.controls.screen) == (False, False)
        assert (at_bob["video"].read(), shared.read()) == (None, None)  # closed
        await told(call, camera=False, screen=False)
        await shows_nothing(at_bob["output"])
        await stays_dark(at_alice["output"])
        await answered.camera(True, moving_picture(4))
        await told(call, camera=True)
        seen = len(at_alice["output"].of(Stream.CAMERA))
        await frames(at_alice["output"], Stream.CAMERA, seen + 5)
        await shows_nothing(at_bob["output"])
        await bob.allow(alice.address, video=True)  # shows them, and leaves the own camera alone
        seen = len(at_bob["output"].of(Stream.CAMERA))
        await frames(at_bob["output"], Stream.CAMERA, seen + 5)
        assert answered.controls.camera
        await call.hangup()


async def test_a_rule_whose_setting_is_cancelled(people, monkeypatch):
    """REACH-15: a rule that was stored holds in the call also where nobody waits for it now."""
    async with people() as (alice, bob):
        call, answered, _, _ = await seeing(alice, bob)
        store = bob._services.store
        write = store.write
        with anyio.CancelScope() as setting:

            async def cancelling(changes):
                await write(changes)
                if any(change.kind is RecordKind.CALL_RULE for change in changes):
                    setting.cancel()

            monkeypatch.setattr(store, "write", cancelling)
            await bob.allow(alice.address, video=False)
        assert setting.cancelled_caught
        await told(call, camera=False)
        assert answered.hides_pictures
        assert not answered.controls.camera
        await call.hangup()


async def test_a_rule_while_a_camera_is_being_opened(people):
    """REACH-15: a camera that was asked for before pictures were refused does not go on then."""
    async with people() as (alice, bob):
        camera = SlowCamera()
        call, incoming = await ringing(alice, bob, **media(video=False))
        answered = await incoming.accept(audio=speech_like_sound(1), video=camera)
        await until(answered, e2ecall.Connected)
        await answered.camera(False)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answered.camera)
                await camera.wait_opening()
                with anyio.fail_after(PATIENCE):
                    await bob.allow(alice.address, video=False)
                camera.go_on.set()
        finally:
            camera.go_on.set()
        assert camera.opened.read() is None  # closed
        assert not answered.controls.camera
        await answered.camera()
        await told(call, camera=True)
        await call.hangup()


async def test_a_rule_for_everybody_in_a_call(people):
    """REACH-15, REACH-12: a rule for everybody holds in a call unless the person has another, and
    what says nothing of pictures changes nothing about them.
    """
    async with people() as (alice, bob):
        await known(alice, bob)
        call, answered, _, at_bob = await seeing(alice, bob)
        await bob.allow(alice.address, video=True)
        await bob.set_call_policy(video=Policy.NOBODY)
        assert not answered.hides_pictures
        await bob.allow(alice.address)  # as everybody is, from now on
        assert answered.hides_pictures
        await shows_nothing(at_bob["output"])
        await answered.ask_video()
        for unrelated in (
            bob.set_call_policy(audio=Policy.CONTACTS),
            bob.allow(alice.address, audio=True),
            bob.set_policy(Policy.CONTACTS),
        ):
            await unrelated
            assert not answered.hides_pictures
        await bob.set_call_policy(video=Policy.NOBODY)  # said once more
        assert answered.hides_pictures
        await call.hangup()


async def test_sound_refused_in_a_call(people):
    """REACH-15: that somebody's calls are not to ring ends none that was taken, in which they are
    heard as before; and the next one does not ring.
    """
    async with people() as (alice, bob):
        await known(alice, bob)
        at_bob = media(video=False)
        call, incoming = await ringing(alice, bob, **media(video=False))
        answered = await incoming.accept(**at_bob)
        for end in (call, answered):
            await until(end, e2ecall.Connected)
        await bob.allow(alice.address, audio=False, video=False)
        await bob.set_policy(Policy.NOBODY)
        await more(at_bob["output"], Stream.MICROPHONE, 20)
        assert answered.ended is None
        await call.hangup()
        await answered.closed.wait()
        await bob.set_policy(Policy.CONTACTS)
        second = await alice.call(bob.address)
        missed = await next_missed(bob)
        assert (missed.peer, missed.reason) == (alice.address, EndReason.NO_ANSWER)
        assert second.sas is None
        await second.hangup()


@pytest.mark.parametrize("how", ["a rule", "a rule for everybody", "the policy"])
async def test_refused_while_it_rings(people, how):
    """REACH-15: a call that rings and is not let in any more is declined, as by hand."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob)
        if how == "a rule":
            await bob.allow(alice.address, audio=False)
        elif how == "a rule for everybody":
            await bob.set_call_policy(audio=Policy.CONTACTS)
        else:
            await bob.set_policy(Policy.CONTACTS)
        assert incoming.call.ended is not None
        assert await ended(call) == (EndReason.DECLINED, True)
        with pytest.raises(e2ecall.LocalProtocolError, match="over already"):
            await incoming.accept()


async def test_pictures_refused_while_it_rings(people):
    """REACH-15, REACH-13: a video call rings on as one without pictures, and none are shown."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob, **media())
        assert incoming.wants_video
        await bob.allow(alice.address, video=False)
        assert not incoming.wants_video
        at_bob = media(video=False)
        answered = await incoming.accept(**at_bob)
        await until(answered, e2ecall.Connected)
        await shows_nothing(at_bob["output"])
        assert not at_bob["output"].of(Stream.CAMERA)
        await call.hangup()


async def test_pictures_refused_before_it_is_answered(people):
    """REACH-15: who refuses the pictures of somebody while calling them neither shows nor sees any
    when they answer.
    """
    async with people() as (alice, bob):
        at_alice = media()
        call, incoming = await ringing(alice, bob, **at_alice)
        await until(call, e2ecall.Ringing)
        await alice.allow(bob.address, video=False)
        assert at_alice["video"].read() is None
        at_bob = media()
        answered = await incoming.accept(**at_bob)
        await until(call, e2ecall.Connected)
        await told(answered, camera=False)
        await shows_nothing(at_alice["output"])
        await stays_dark(at_bob["output"])
        assert not at_alice["output"].of(Stream.CAMERA)
        await call.hangup()


async def test_blocked_in_a_call(people):
    """REACH-05, REACH-15: a block ends the call of the person it is about, and no other one."""
    async with people() as (alice, bob):
        call, answered = await talking(alice, bob)
        await bob.block(f"somebody_else@{bob.address.partition('@')[2]}")
        assert answered.ended is None
        await bob.block(alice.address)
        assert answered.ended == e2ecall.Ended(EndReason.HANGUP, by_peer=False)
        assert await ended(call) == (EndReason.HANGUP, True)
