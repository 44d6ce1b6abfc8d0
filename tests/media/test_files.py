"""Media files: what a user gives is fitted and numbered, what was received can be watched."""

from fractions import Fraction

import av
import numpy as np
import pytest

from e2ecall.errors import MediaError
from e2ecall.media import counter
from e2ecall.media.counter import HEIGHT, WIDTH
from e2ecall.media.files import FilePictures, FileSounds, thumbnail, write_movie, write_png
from e2ecall.media.scene import Scene
from e2ecall.media.voice import Voice


def _movie(path, width=320, height=240, rate=15, count=15):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(count):
            level = np.full((height * 3 // 2, width), 60 + 8 * number, np.uint8)
            level[height:] = 128
            frame = av.VideoFrame.from_ndarray(level, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _call(path, seconds=2):
    scene, voice = Scene(1), Voice(1)
    sound = np.repeat(voice.samples(0, seconds * 48_000)[:, None], 2, axis=1)
    pictures = ((0.25 + n / 30, scene.frame(n)) for n in range(30 * seconds))
    write_movie(path, pictures, sound, 0.0)


def test_a_movie_of_a_call_plays_with_picture_and_sound(tmp_path):
    """The written file holds every picture at its time and the whole sound."""
    path = tmp_path / "callee.mp4"
    _call(path)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 60
    assert frames[0].time == pytest.approx(0.25, abs=0.02)
    assert [counter.read(frame.to_ndarray()[:HEIGHT]) for frame in frames] == list(range(60))
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples >= 96_000


def test_a_video_file_is_shown_thirty_times_a_second_and_looped(tmp_path):
    """One second at 15 a second gives 30 pictures, then the first again, each with its number."""
    path = tmp_path / "film.mp4"
    _movie(path)
    pictures = FilePictures(path)
    first, middle = pictures.frame(0), pictures.frame(15)
    again = pictures.frame(29)
    levels = [int(picture[100, 320]) for picture in (first, middle, again)]
    assert levels[0] < levels[1] < levels[2]
    assert int(pictures.frame(30)[100, 320]) == levels[0]
    assert counter.read(pictures.frame(31)[:HEIGHT]) == 31


def test_a_video_file_is_not_distorted(tmp_path):
    """A 4:3 picture stands in the middle of 16:9 between black bars."""
    path = tmp_path / "film.mp4"
    _movie(path)
    picture = FilePictures(path).frame(0)
    assert picture[100, 10] == 16
    assert picture[100, 320] > 50
    assert picture[100, 630] == 16


def test_what_was_sent_of_a_file_can_be_made_again(tmp_path):
    """Pictures and sounds of a file are the same bytes each time they are asked for."""
    path = tmp_path / "call.mp4"
    _call(path)
    one, other = FilePictures(path), FilePictures(path)
    assert np.array_equal([one.frame(n) for n in range(20)][19], other.frame(19))
    assert np.array_equal(one.frame(5), other.frame(5))  # 5 is before 19: decoded anew
    sound = FileSounds(path)
    assert np.array_equal(sound.samples(1000, 960), FileSounds(path).samples(1000, 960))
    assert np.abs(sound.samples(0, 96_000).astype(int)).max() > 3_000


def test_a_sound_file_is_looped(tmp_path):
    """After its end a file begins again, without a gap."""
    path = tmp_path / "call.mp4"
    _call(path, 1)
    sound = FileSounds(path)
    long = sound.samples(0, 4 * 48_000)
    assert len(long) == 4 * 48_000
    assert np.abs(long[-48_000:].astype(int)).max() > 3_000


def test_a_file_that_is_no_media_is_refused_with_a_hint(tmp_path):
    """A text file and a missing one raise MediaError before anything is sent."""
    text = tmp_path / "notes.txt"
    text.write_text("no film")
    for path in (text, tmp_path / "missing.mp4"):
        with pytest.raises(MediaError, match="cannot be read") as refused:
            FilePictures(path)
        assert refused.value.hint
        with pytest.raises(MediaError, match="cannot be read"):
            FileSounds(path)


def test_a_film_without_sound_has_no_sound_to_send(tmp_path):
    """A video-only file as --audio is refused and named."""
    path = tmp_path / "silent.mp4"
    _movie(path)
    with pytest.raises(MediaError, match=r"silent\.mp4 has no audio stream"):
        FileSounds(path)


def test_a_png_shows_what_was_drawn(tmp_path):
    """A PNG file is read back to the same pixels, of even and odd sizes."""
    for height, width in ((40, 60), (41, 33)):
        image = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
        path = tmp_path / "image.png"
        write_png(path, image)
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        assert np.array_equal(frame.to_ndarray(format="rgb24"), image)


def test_a_thumbnail_keeps_the_colours():
    """Scaling to RGB gives the size asked for and no other hue: the sun is yellow."""
    small = thumbnail(Scene(1).frame(0), WIDTH // 2, HEIGHT // 2)
    assert small.shape == (180, 320, 3)
    red, green, blue = np.moveaxis(small.astype(int), 2, 0)
    yellow = (red > 220) & (green > 200) & (blue < 200)
    assert 300 < yellow.sum() < 3_000
