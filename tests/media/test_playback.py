"""Files as sources, and the recorder: what was recorded plays again."""

import anyio
import av
import numpy as np
import pytest

from e2ecall.errors import MediaError
from e2ecall.media.playback import FileAudio, FileVideo
from e2ecall.media.recorder import RecorderSink
from e2ecall.media.sources import AudioSource, GeneratedAudio, GeneratedVideo, VideoSource
from e2ecall.protocol.messages import Stream
from tests.media.peers import picture, tone


async def _record(path, seconds=1.0, *, skip=range(0), video=True):
    """Record a tone and pictures as a call would deliver them."""
    # All of it comes at one moment: how long this machine takes is in no recording.
    picked = Stream.CAMERA if video else None
    sink = RecorderSink(path, video=picked, width=320, height=180, clock=lambda: 0.0)
    pictures, sounds = GeneratedVideo(picture), GeneratedAudio(tone)
    for number in range(int(seconds * 50)):
        sound = sounds.read().to_ndarray().repeat(2, axis=1)
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="stereo")
        frame.sample_rate = 48_000
        if number not in skip:
            await sink.write(Stream.MICROPHONE, frame, number * 960)
        if video and number % 5 != 4:
            shown = number // 5 * 4 + number % 5
            await sink.write(Stream.CAMERA, pictures.read(), shown * 2250)
        await sink.write(Stream.SCREEN, pictures.read(), 0)
    await sink.close()


@pytest.fixture
def movie(tmp_path):
    path = tmp_path / "call.mp4"
    anyio.run(_record, path, backend="asyncio")
    return path


def test_a_recording_has_picture_and_sound(movie):
    """One second of a call is one second of a film."""
    with av.open(str(movie)) as container:
        pictures = list(container.decode(video=0))
        assert len(pictures) == 40
        assert (pictures[0].width, pictures[0].height) == (320, 180)
        assert container.duration == pytest.approx(1_000_000, abs=80_000)
    with av.open(str(movie)) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert len(sound) == pytest.approx(48_000, abs=2_100)
    assert np.abs(sound[10_000:30_000]).max() == pytest.approx(8000 / 32768, rel=0.2)


def test_lost_sound_is_silence_in_its_place(tmp_path):
    """A gap keeps what follows at its time."""
    path = tmp_path / "gap.mp4"

    async def main():
        await _record(path, skip=range(10, 30), video=False)

    anyio.run(main, backend="asyncio")
    with av.open(str(path)) as container:
        assert not container.streams.video
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert len(sound) == pytest.approx(48_000, abs=2_100)
    assert np.abs(sound[14_000:24_000]).max() < 0.02
    assert np.abs(sound[34_000:44_000]).max() > 0.15


@pytest.mark.parametrize("how", ["hours in a second", "a flood", "one far jump"])
def test_a_recording_is_no_longer_than_it_took(tmp_path, how):
    """MEDIA-55: whatever a peer's clock says, and however fast its frames come, a recording is at
    most 10 s longer than it took; what comes after a jump is in it at its place.
    """
    path, passed = tmp_path / "call.mp4", 0.0

    async def main():
        nonlocal passed
        sink = RecorderSink(path, width=64, height=36, clock=lambda: 1_000.0 + passed)
        loud, pictures = _stereo(8_000), GeneratedVideo(picture)
        for number in range(1_000):
            at = {"hours in a second": 100.0 * number, "a flood": 0.02 * number}.get(how)
            if at is None:
                at = 0.02 * number + 3_600 * (number > 50)
                passed = 0.02 * number
            await sink.write(Stream.MICROPHONE, loud, int(at * 48_000))
            if number % 50 == 0:
                await sink.write(Stream.CAMERA, pictures.read(), int(at * 90_000))
        await sink.close()

    anyio.run(main, backend="asyncio")
    with av.open(str(path)) as container:
        length = container.duration / 1_000_000
    assert length == pytest.approx(passed if how == "one far jump" else 10, abs=0.1)
    with av.open(str(path)) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    # There is sound all the time: no silence of the peer's making.
    assert np.abs(sound[: len(sound) // 4_800 * 4_800].reshape(-1, 4_800)).max(axis=1).min() > 0.15


def test_a_long_pause_is_recorded_at_its_length(tmp_path):
    """MEDIA-55: where time went by without sound, all of it is silence in the file."""
    path, passed = tmp_path / "pause.mp4", 0.0

    async def main():
        nonlocal passed
        sink = RecorderSink(path, video=None, clock=lambda: 1_000.0 + passed)
        for number in range(60):
            at = 0.02 * number + (45 if number >= 10 else 0)
            passed = at
            await sink.write(Stream.MICROPHONE, _stereo(8_000), int(at * 48_000))
        await sink.close()

    anyio.run(main, backend="asyncio")
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(46_200_000, abs=200_000)


def _stereo(level):
    samples = (level * np.sin(np.arange(960) / 10)).astype(np.int16).repeat(2)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
    frame.sample_rate = 48_000
    return frame


def test_a_recorder_without_frames_writes_nothing(tmp_path):
    """No call, no file."""
    path = tmp_path / "none.mp4"
    anyio.run(RecorderSink(path).close, backend="asyncio")
    assert not path.exists()


def test_a_recorder_that_cannot_write_says_so(tmp_path):
    """The error comes out of `write`, where the engine drops the sink."""

    async def main():
        sink = RecorderSink(tmp_path / "no" / "such" / "folder.mp4")
        with pytest.raises((OSError, av.FFmpegError)):
            await sink.write(Stream.CAMERA, GeneratedVideo(picture).read(), 0)
        await sink.close()

    anyio.run(main, backend="asyncio")


def test_a_file_plays_as_sources(movie):
    """Frames come in the engine's form, end with the file, and stay ended."""
    sound, pictures = FileAudio(movie), FileVideo(movie)
    assert isinstance(sound, AudioSource)
    assert isinstance(pictures, VideoSource)
    frames = list(iter(sound.read, None))
    assert 48 <= len(frames) <= 52
    for frame in frames:
        assert (frame.samples, frame.sample_rate) == (960, 48_000)
        assert (frame.format.name, frame.layout.name) == ("s16", "mono")
    shown = list(iter(pictures.read, None))
    assert len(shown) == 40
    assert pictures.frame_rate in range(38, 43)
    assert shown[0].format.name == "yuv420p"
    for source in (sound, pictures):
        assert source.read() is None
        source.close()
        source.close()
        assert source.read() is None


def test_a_file_can_be_looped_and_closed_in_the_middle(movie):
    """A looped file goes on until it is closed."""
    sound, pictures = FileAudio(movie, loop=True), FileVideo(movie, loop=True)
    assert all(sound.read() is not None for _ in range(130))
    assert all(pictures.read() is not None for _ in range(100))
    for source in (sound, pictures):
        source.close()
        assert source.read() is None


def test_files_that_are_no_media_are_refused(tmp_path, movie):
    """The error names the file and what is wrong with it."""
    text = tmp_path / "notes.txt"
    text.write_text("not a film")
    silent = tmp_path / "silent.mp4"
    with av.open(str(silent), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match=r"notes\.txt"):
        FileAudio(text)
    with pytest.raises(MediaError, match=r"absent\.mp4"):
        FileVideo(tmp_path / "absent.mp4")
    with pytest.raises(MediaError, match="no audio"):
        FileAudio(silent)
