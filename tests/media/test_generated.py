"""Generated pictures and sound: the same from the same seed, legible, and made for codecs."""

from fractions import Fraction

import av
import numpy as np
import pytest

from e2ecall.media import counter
from e2ecall.media.counter import HEIGHT, WIDTH
from e2ecall.media.generated import moving_picture, speech_like_sound, video_source
from e2ecall.media.glyphs import text_mask
from e2ecall.media.scene import Scene
from e2ecall.media.sources import AudioSource, VideoSource
from e2ecall.media.voice import RATE, Voice


def _vp8(scene, count, bit_rate=700_000):
    """Send pictures through a real-time VP8 encoder and decoder."""
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
    encoder.bit_rate = bit_rate
    encoder.options = {"deadline": "realtime", "cpu-used": "-8", "lag-in-frames": "0"}
    decoder = av.CodecContext.create("vp8", "r")
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(scene.frame(number), format="yuv420p")
        frame.pts = number
        for packet in encoder.encode(frame):
            for decoded in decoder.decode(packet):
                yield decoded.to_ndarray()


@pytest.mark.parametrize("number", [0, 1, 2, 0x55_5555, 0xAA_AAAA, counter.MAX_NUMBER])
def test_a_number_is_read_back_from_its_strip(number):
    """The strip of a number says that number."""
    picture = np.full((HEIGHT * 3 // 2, WIDTH), 90, np.uint8)
    counter.stamp(picture, number)
    assert counter.read(picture[:HEIGHT]) == number


def test_a_number_survives_noise_and_loss_of_contrast():
    """The strip is read through noise and a halved contrast."""
    picture = Scene(1).frame(4711).astype(np.float64)
    noise = np.random.default_rng(3).normal(0, 25, picture.shape)
    faded = np.clip(64 + picture / 2 + noise, 0, 255).astype(np.uint8)
    assert counter.read(faded[:HEIGHT]) == 4711


def test_a_damaged_strip_gives_no_number():
    """A strip with one block turned round fails its CRC, and a plain picture has no strip."""
    picture = Scene(1).frame(77)
    for block in range(40):
        damaged = picture.copy()
        area = damaged[counter.STRIP_TOP : HEIGHT, block * 16 : block * 16 + 16]
        area[:] = 252 - area
        assert counter.read(damaged[:HEIGHT]) is None
    assert counter.read(np.full((HEIGHT, WIDTH), 128, np.uint8)) is None


def test_a_number_beyond_24_bits_is_refused():
    """The strip never shows a number modulo something."""
    picture = Scene(1).frame(0)
    with pytest.raises(ValueError, match="24 bits"):
        counter.stamp(picture, counter.MAX_NUMBER + 1)
    with pytest.raises(ValueError, match="640 x 360"):
        counter.stamp(picture[:100], 1)


def test_a_picture_follows_from_seed_and_number_alone():
    """Two scenes of one seed show the same, in any order; another seed shows something else."""
    one, other = Scene(5), Scene(5)
    assert np.array_equal(one.frame(200), [other.frame(n) for n in (3, 200)][1])
    assert not np.array_equal(one.frame(200)[:300], Scene(6).frame(200)[:300])
    assert not np.array_equal(one.frame(200)[:300], one.frame(201)[:300])


def test_real_time_vp8_keeps_every_picture_legible_and_alike():
    """At 700 kbit/s each number is read and the mean PSNR is above 34 dB."""
    scene = Scene(8, "test")
    errors = []
    for number, picture in enumerate(_vp8(scene, 60)):
        assert counter.read(picture[:HEIGHT]) == number
        difference = picture[:HEIGHT].astype(float) - scene.frame(number)[:HEIGHT]
        errors.append(10 * np.log10(255**2 / np.mean(difference**2)))
    assert len(errors) == 60
    assert np.mean(errors) > 34


def test_the_sources_give_what_the_engine_asks_for():
    """A picture is 640 x 360 yuv420p at 30 a second, a sound 960 samples of 48 kHz mono s16."""
    video, audio = moving_picture(1), speech_like_sound(1)
    assert isinstance(video, VideoSource)
    assert isinstance(audio, AudioSource)
    picture, sound = video.read(), audio.read()
    assert (picture.width, picture.height, picture.format.name) == (640, 360, "yuv420p")
    assert video.frame_rate == 30
    assert (sound.samples, sound.sample_rate) == (960, 48_000)
    assert (sound.format.name, sound.layout.name) == ("s16", "mono")


def test_a_source_tells_which_picture_it_gives():
    """`on_frame` gets 0, 1, 2 ... as the engine reads."""
    taken = []
    source = video_source(Scene(1), on_frame=taken.append)
    pictures = [source.read().to_ndarray() for _ in range(3)]
    assert taken == [0, 1, 2]
    assert [counter.read(picture[:HEIGHT]) for picture in pictures] == taken


def test_a_voice_follows_from_its_seed_alone():
    """Any stretch is the same however it is asked for; another seed says something else."""
    whole = Voice(9).samples(0, 3 * RATE)
    pieces = Voice(9)
    parts = [pieces.samples(start, 960) for start in range(0, 3 * RATE, 960)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(pieces.samples(RATE, 500), whole[RATE : RATE + 500])
    assert not np.array_equal(whole, Voice(10).samples(0, 3 * RATE))


def test_a_voice_never_repeats_itself():
    """No second of ten correlates with another one, as a loop would."""
    sound = Voice(2).samples(0, 10 * RATE).astype(float)
    first = sound[:RATE]
    spectrum = np.fft.rfft(sound, 1 << 20) * np.conj(np.fft.rfft(first, 1 << 20))
    correlation = np.fft.irfft(spectrum)[RATE : 9 * RATE]
    assert np.abs(correlation).max() < 0.6 * np.vdot(first, first)


def test_a_voice_is_loud_enough_and_never_clips():
    """Peaks stay inside 16 bits with room, and there are pauses as in speech."""
    sound = np.abs(Voice(4).samples(0, 8 * RATE).astype(int))
    assert 8_000 < sound.max() < 30_000
    quiet = (sound.reshape(-1, 960).max(axis=1) < 50).mean()
    assert 0.05 < quiet < 0.5


def test_text_is_drawn_in_the_font():
    """A mask has seven rows a scale, six columns a character, and blanks for what is unknown."""
    assert text_mask("1").any()
    assert text_mask("ab", 3).shape == (21, 33)
    assert not text_mask("\N{SNOWMAN}").any()
    assert np.array_equal(text_mask("demo"), text_mask("DEMO"))
