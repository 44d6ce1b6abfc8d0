"""What becomes of cameras and microphones where a call comes to nothing (spec/media.md)."""

import pytest

import e2ecall
from e2ecall.testing import moving_picture, speech_like_sound
from tests.integration.people import ended, ringing

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("way", ["given up", "unknown", "over", "turned on while it rings"])
async def test_sources_are_closed_however_early_a_call_ends(people, way):
    """MEDIA-50: no camera or microphone outlives a call that never came to have a transport."""
    async with people() as (alice, bob):
        audio, video = speech_like_sound(1), moving_picture(1)
        sources = {"audio": audio, "video": video}
        if way == "given up":
            await (await alice.call(bob.address, **sources)).hangup()
        elif way == "unknown":
            with pytest.raises(e2ecall.NotReachableError):
                await alice.call("nobody_here", **sources)
        else:
            call, incoming = await ringing(alice, bob)
            if way == "over":
                await call.hangup()
                await ended(incoming.call)
                with pytest.raises(e2ecall.LocalProtocolError):
                    await incoming.accept(**sources)
            else:
                await incoming.call.camera(True, video)
                audio.close()
                await incoming.decline()
                late = moving_picture(2)
                with pytest.raises(e2ecall.LocalProtocolError):
                    await incoming.call.camera(True, late)
                assert late.read() is None
        assert (audio.read(), video.read()) == (None, None)
