"""What people do within a call, over a real relay: mute, camera, screen, hold, words, reasons."""

import threading
import time

import anyio
import numpy as np
import pytest

import e2ecall
from e2ecall import EndReason, LeaveReason
from e2ecall.media.files import write_movie
from e2ecall.media.playback import FileVideo
from e2ecall.media.recorder import RecorderSink
from e2ecall.media.sources import GeneratedVideo
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.messages import Stream
from e2ecall.protocol.sframe import SFrameSender
from e2ecall.protocol.sframe_header import parse_header
from e2ecall.testing import moving_picture, speech_like_sound
from tests.integration.people import PATIENCE, ended, frames, media, ringing, talking, until

pytestmark = pytest.mark.anyio


def loudness(received):
    """Return the mean amplitude of a decoded frame of sound."""
    return float(np.abs(received.frame.to_ndarray().astype(np.int32)).mean())


def small_pictures():
    """Return a source of another size and rate than `moving_picture`."""
    return GeneratedVideo(lambda n: np.full((270, 320), n % 256, dtype=np.uint8), frame_rate=15)


async def more(sink, stream, count=10):
    """Wait for this many more frames of a stream and return them."""
    seen = len(sink.of(stream))
    await frames(sink, stream, seen + count)
    return sink.of(stream)[seen:]


class SlowCamera(GeneratedVideo):
    """A camera that takes long to be opened once more: until the test lets it."""

    def __init__(self):
        super().__init__(lambda n: np.full((270, 320), n % 256, dtype=np.uint8), frame_rate=15)
        self.opening, self.go_on, self.opened = threading.Event(), threading.Event(), None

    def again(self):
        self.opening.set()
        assert self.go_on.wait(PATIENCE)
        self.opened = small_pictures()
        return self.opened

    async def wait_opening(self):
        assert await anyio.to_thread.run_sync(self.opening.wait, PATIENCE)


async def with_pictures(alice, bob):
    """Have a call in which the caller sends sound and picture, and the callee sound alone."""
    at_alice, at_bob = media(), media(video=False)
    call, incoming = await ringing(alice, bob, **at_alice)
    answered = await incoming.accept(**at_bob)
    await until(call, e2ecall.Connected)
    await until(answered, e2ecall.Connected)
    return call, answered, at_alice["output"], at_bob["output"]


async def test_no_control_waits_for_a_camera(people):
    """CALL-31: while a camera takes long to open, the microphone is muted and the call held at
    once, and a camera that was turned off meanwhile does not go on.
    """
    async with people() as (alice, bob):
        camera, at_bob = SlowCamera(), media(video=False)
        call, incoming = await ringing(alice, bob, audio=speech_like_sound(1), video=camera)
        answered = await incoming.accept(**at_bob)
        await until(call, e2ecall.Connected)
        await call.camera(False)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call.camera)
                await camera.wait_opening()
                with anyio.fail_after(PATIENCE):
                    await call.mute()
                    while not (await until(answered, e2ecall.MediaState)).muted:
                        pass
                    await call.hold()
                    await call.resume()
                    tasks.start_soon(call.camera, False)
                    while call._turned_off[Stream.CAMERA] < 2:  # noqa: ASYNC110 - no event
                        await anyio.sleep(0.01)
                camera.go_on.set()
        finally:
            camera.go_on.set()
        assert camera.opened.read() is None  # closed
        assert not call.controls.camera
        await call.unmute()
        await call.camera()
        assert call.controls.camera
        await more(at_bob["output"], Stream.CAMERA, 5)
        await call.hangup()


async def test_an_audio_call_becomes_a_video_call_and_back(people):
    """CALL-34: each end turns on its own camera, asked or not, and off again."""
    async with people() as (alice, bob):
        at_bob = media(video=False)
        call, incoming = await ringing(alice, bob, **media(video=False))
        answered = await incoming.accept(**at_bob)
        await until(answered, e2ecall.Connected)
        await answered.ask_video()
        assert await until(call, e2ecall.VideoAsked) == e2ecall.VideoAsked(video=True)
        assert not call.controls.camera
        assert call.media.stats().sent[Stream.CAMERA].frames == 0
        camera = moving_picture(1)
        await call.camera(True, camera)
        assert (await until(answered, e2ecall.MediaState)).camera
        await frames(at_bob["output"], Stream.CAMERA, 10)
        await call.camera(False)
        assert not (await until(answered, e2ecall.MediaState)).camera
        assert camera.read() is None  # closed
        sent = call.media.stats().sent[Stream.CAMERA].frames
        await more(at_bob["output"], Stream.MICROPHONE)
        assert call.media.stats().sent[Stream.CAMERA].frames == sent
        with pytest.raises(e2ecall.LocalProtocolError, match="needs a source"):
            await call.camera()
        await call.camera(True, moving_picture(2))
        await more(at_bob["output"], Stream.CAMERA)
        assert call.media.stats().refused == answered.media.stats().refused == 0
        await call.hangup()


async def test_a_camera_goes_on_again(people, tmp_path):
    """CALL-34: a camera that was turned off is opened once more by turning it on."""
    film = tmp_path / "film.mp4"
    picture = np.full((540, 640), 128, dtype=np.uint8)
    write_movie(film, ((n / 30, picture) for n in range(60)), np.zeros((960, 2), np.int16), 0.0)
    async with people() as (alice, bob):
        at_bob = media(video=False)
        first = FileVideo(film, loop=True)
        call, incoming = await ringing(alice, bob, video=first)
        await incoming.accept(**at_bob)
        await until(call, e2ecall.Connected)
        for _ in range(2):
            await more(at_bob["output"], Stream.CAMERA)
            await call.camera(False)
            assert first.read() is None  # closed
            await call.camera(True)
            assert call.controls.camera
        await more(at_bob["output"], Stream.CAMERA)
        await call.hangup()


async def test_another_camera_goes_on_under_the_same_key(people, monkeypatch):
    """CALL-35: over a change of source no counter of a frame key comes twice."""
    used = []
    encrypt = SFrameSender.encrypt

    def watched(self, frame, prefix):
        protected = encrypt(self, frame, prefix)
        kid, counter, _ = parse_header(protected, prefix)
        used.append((kid, counter))
        return protected

    monkeypatch.setattr(SFrameSender, "encrypt", watched)
    async with people() as (alice, bob):
        call, answered, _, at_bob = await with_pictures(alice, bob)
        await frames(at_bob, Stream.CAMERA, 10)
        former = moving_picture(3)
        await call.switch_camera(former)
        await more(at_bob, Stream.CAMERA)
        await call.switch_camera(small_pictures())
        assert former.read() is None  # closed
        await more(at_bob, Stream.CAMERA)
        assert answered.media.stats().refused == 0
        await call.hangup()
    assert len({kid for kid, _ in used}) == 3  # two microphones and one camera
    assert len(set(used)) == len(used)


async def test_a_screen_is_a_stream_of_its_own(people):
    """A screen is shared besides the camera, under keys of its own, and ends when it is ended."""
    async with people() as (alice, bob):
        call, answered, _, at_bob = await with_pictures(alice, bob)
        await call.share_screen(moving_picture(5))
        assert await until(answered, e2ecall.MediaState) == e2ecall.MediaState(
            muted=False, camera=True, screen=True
        )
        await frames(at_bob, Stream.SCREEN, 10)
        await more(at_bob, Stream.CAMERA)
        await call.share_screen(None)
        assert not (await until(answered, e2ecall.MediaState)).screen
        sent = call.media.stats().sent[Stream.SCREEN].frames
        await more(at_bob, Stream.CAMERA)
        assert call.media.stats().sent[Stream.SCREEN].frames == sent
        assert answered.media.stats().refused == 0
        await call.hangup()


async def test_hold_and_resume(people):
    """CALL-31: on hold neither end hears or sees the other, and afterwards both do again."""
    async with people() as (alice, bob):
        call, answered, at_alice, at_bob = await with_pictures(alice, bob)
        await frames(at_bob, Stream.CAMERA, 5)
        await call.hold()
        assert (await until(answered, e2ecall.MediaState)).held
        await more(at_bob, Stream.MICROPHONE, 25)  # what was on its way is played by then
        assert max(loudness(frame) for frame in await more(at_bob, Stream.MICROPHONE)) < 50
        assert max(loudness(frame) for frame in await more(at_alice, Stream.MICROPHONE)) == 0
        await call.resume()
        assert await until(answered, e2ecall.MediaState) == e2ecall.MediaState(
            muted=False, camera=True
        )
        assert max(loudness(f) for f in await more(at_bob, Stream.MICROPHONE, 50)) > 200
        assert max(loudness(f) for f in await more(at_alice, Stream.MICROPHONE, 50)) > 200
        await more(at_bob, Stream.CAMERA)
        await call.hangup()


async def test_muting_the_other_person_is_told_to_nobody(people):
    """Who mutes the other person hears silence, and the other person learns nothing."""
    async with people() as (alice, bob):
        call, answered, at_alice, at_bob = await with_pictures(alice, bob)
        await call.mute_peer()
        await more(at_alice, Stream.MICROPHONE, 5)
        assert max(loudness(frame) for frame in await more(at_alice, Stream.MICROPHONE)) == 0
        assert max(loudness(f) for f in await more(at_bob, Stream.MICROPHONE, 50)) > 200
        await call.mute_peer(False)
        assert max(loudness(f) for f in await more(at_alice, Stream.MICROPHONE, 50)) > 200
        await call.write("done")  # and this is the first that the other end is told
        async for event in answered.events():
            assert not isinstance(event, e2ecall.MediaState)
            if isinstance(event, e2ecall.Text):
                break
        await call.hangup()


async def test_texts_in_a_call(people):
    """CALL-33: texts go both ways in a call, and into no message box."""
    async with people() as (alice, bob):
        call, answered = await talking(alice, bob)
        await call.write("Grüße, 世界")
        await answered.write("x" * 1_000)
        assert await until(answered, e2ecall.Text) == e2ecall.Text("Grüße, 世界")
        assert await until(call, e2ecall.Text) == e2ecall.Text("x" * 1_000)
        await call.hangup()
        with pytest.raises(e2ecall.LocalProtocolError):
            await call.write("too late")


async def test_mute_before_the_answer_is_told_after_it(people):
    """CALL-31: what was chosen while it rang holds from the first frame on, and is told."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob, audio=speech_like_sound(1))
        await call.mute()
        at_bob = media(video=False)
        answered = await incoming.accept(**at_bob)
        assert (await until(answered, e2ecall.MediaState)).muted
        heard = await more(at_bob["output"], Stream.MICROPHONE, 30)
        assert max(loudness(frame) for frame in heard) < 50
        await call.hangup()


@pytest.mark.parametrize(
    ("said", "reason"),
    [(LeaveReason.OTHER_CALL, EndReason.BUSY), (LeaveReason.CALL_BACK, EndReason.CALL_BACK)],
)
async def test_hanging_up_with_a_reason(people, said, reason):
    """CALL-14: the reason that one gives for hanging up reaches the other person."""
    async with people() as (alice, bob):
        call, answered = await talking(alice, bob)
        await call.hangup(said)
        assert await ended(answered) == (reason, True)
        assert await ended(call) == (EndReason.HANGUP, False)


async def test_who_is_recorded_knows(people, tmp_path):
    """CALL-32: a sink that keeps what it gets makes the other end say that it is recorded."""
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob, **media())
        answered = await incoming.accept(output=RecorderSink(tmp_path / "call.mp4"))
        assert (await until(call, e2ecall.MediaState)).recording
        await until(answered, e2ecall.FirstVideo)
        with anyio.fail_after(PATIENCE):
            while answered.media.stats().received[Stream.CAMERA].decoded < 10:  # noqa: ASYNC110 - counted by another thread
                await anyio.sleep(0.01)
        await call.hangup()
        await answered.closed.wait()
        assert (tmp_path / "call.mp4").stat().st_size > 1_000


@pytest.mark.parametrize("what", ["mute", "hold"])
async def test_who_is_cancelled_has_muted_or_not(people, what):
    """CALL-31: cancelled while media is busy, the microphone is what is said of it."""
    async with people() as (alice, bob):
        call, answered = await talking(alice, bob)
        call.media._peer._thread.soon(time.sleep, 0.5)
        with anyio.move_on_after(0.05):
            await getattr(call, what)()
        says_so = call.controls.muted or call.controls.held
        assert says_so == (call._machine.controls != Controls())
        with anyio.fail_after(PATIENCE):
            while call.media._peer._session._outgoing[Stream.MICROPHONE].muted != says_so:  # noqa: ASYNC110 - another thread
                await anyio.sleep(0.01)
        told = await until(answered, e2ecall.MediaState) if says_so else None
        assert told is None or told.muted or told.held


async def test_a_camera_that_is_turned_off_is_off(people):
    """CALL-31: cancelled while media is busy, a camera goes off all the same, and is told of."""
    async with people() as (alice, bob):
        call, answered, _, _ = await with_pictures(alice, bob)
        call.media._peer._thread.soon(time.sleep, 0.5)
        with anyio.move_on_after(0.05):
            await call.camera(False)
        assert not call.controls.camera
        assert not (await until(answered, e2ecall.MediaState)).camera
        assert call.media._peer._session._outgoing[Stream.CAMERA]._source is None
