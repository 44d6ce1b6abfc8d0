"""What the encoders give: sound of constant size, and pictures at a rate."""

import av
import numpy as np
import pytest

from e2ecall.errors import MediaError
from e2ecall.media.encoders import vp8
from e2ecall.media.encoders.opus import OpusEncoder
from e2ecall.media.encoders.vp8 import VP8Encoder, check_picture
from e2ecall.media.sources import (
    audio_frame,
    silence,
)
from e2ecall.media.video_jitter import is_key_frame


def noise(frame, loudness=9000):
    return np.random.default_rng(frame).normal(0, loudness, 960).astype(np.int16)


def gradient(frame, width=320, height=180):
    rows = np.full((height * 3 // 2, width), 128, np.uint8)
    rows[:height] = (np.arange(width) + 5 * frame) % 200
    return av.VideoFrame.from_ndarray(rows, format="yuv420p")


@pytest.mark.parametrize(("bit_rate", "size"), [(24_000, 60), (32_000, 80), (64_000, 160)])
@pytest.mark.parametrize("sound", ["silence", "noise", "both", "clipped"])
def test_every_opus_packet_has_the_same_size(sound, bit_rate, size):
    """MEDIA-03: at one rate it is one size whatever is said, from the first packet on."""
    encoder = OpusEncoder(bit_rate)
    for number in range(100):
        loud = {"silence": False, "noise": True, "both": number % 7 < 3, "clipped": True}[sound]
        samples = noise(number, 60_000 if sound == "clipped" else 9000)
        packet = encoder.encode(audio_frame(samples) if loud else silence())
        assert len(packet) == size == encoder.packet_bytes


def test_opus_can_be_decoded():
    """A tone comes out of the decoder with its loudness."""
    encoder, decoder = OpusEncoder(32_000), av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = 48_000, "stereo", "s16"
    at = np.arange(48_000).reshape(50, 960)
    tone = (9000 * np.sin(at * 2 * np.pi * 440 / 48_000)).astype(np.int16)
    out = [decoder.decode(av.Packet(encoder.encode(audio_frame(part))))[0] for part in tone]
    level = np.abs(out[-1].to_ndarray().astype(float)).max()
    assert level == pytest.approx(9000, rel=0.1)


@pytest.mark.parametrize("wrong", ["short", "stereo", "rate", "float"])
def test_sound_of_another_kind_is_refused(wrong):
    """Only 20 ms of mono s16 at 48 kHz can keep the size constant."""
    layout = "stereo" if wrong == "stereo" else "mono"
    frame = av.AudioFrame(
        format="flt" if wrong == "float" else "s16",
        layout=layout,
        samples=480 if wrong == "short" else 960,
    )
    frame.sample_rate = 44_100 if wrong == "rate" else 48_000
    with pytest.raises(MediaError):
        OpusEncoder(32_000).encode(frame)


def test_the_first_picture_and_those_asked_for_are_key_frames():
    """MEDIA-14: a key frame comes first and on request, and only then."""
    encoder = VP8Encoder(30, 500_000)
    kinds = [is_key_frame(encoder.encode(gradient(n), key_frame=n == 5)) for n in range(10)]
    assert [n for n, key in enumerate(kinds) if key] == [0, 5]


def test_a_new_size_begins_with_a_key_frame():
    """The encoder goes on with pictures of another size."""
    encoder = VP8Encoder(30, 500_000)
    encoder.encode(gradient(0), key_frame=False)
    assert is_key_frame(encoder.encode(gradient(1, 640, 360), key_frame=False))


def textured(number):
    """Return a picture of 640 x 360 with grain that no picture before it has."""
    rows = np.full((540, 640), 128, np.uint8)
    grain = np.random.default_rng(number).normal(0, 12, (360, 640))
    rows[:360] = np.clip(grain + (np.arange(640) + 3 * number) % 120 + 60, 0, 255)
    return av.VideoFrame.from_ndarray(rows, format="yuv420p")


@pytest.mark.parametrize("rates", [(1_500_000, 500_000, 2_500_000), (500_000, 2_500_000, 600_000)])
def test_the_rate_changes_without_a_key_frame(rates):
    """MEDIA-22: another rate is kept to within 15% a second later, without a key frame."""
    encoder = VP8Encoder(30, rates[0])
    key_frames = 0
    for number, rate in enumerate(rates):
        encoder.aim(rate, 30)
        packets = [encoder.encode(textured(number * 60 + n), key_frame=False) for n in range(60)]
        key_frames += sum(map(is_key_frame, packets))
        assert sum(map(len, packets[30:])) * 8 == pytest.approx(rate, rel=0.15)
    assert key_frames == 1


def test_pictures_of_any_format_and_odd_size_are_sent():
    """RGB of 321 x 181 becomes yuv420p of 320 x 180."""
    frame = av.VideoFrame.from_ndarray(np.zeros((181, 321, 3), np.uint8), format="rgb24")
    data = VP8Encoder(30, 500_000).encode(frame, key_frame=False)
    check_picture(data)
    assert int.from_bytes(data[6:8], "little") == 320


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\x00\x00\x9d\x01\x2a\x10", id="truncated"),
        pytest.param(b"\x00\x00\x00\x9d\x01\x2b\x10\x00\x10\x00", id="bad_start_code"),
        pytest.param(b"\x00\x00\x00\x9d\x01\x2a\x00\x00\x10\x00", id="no_width"),
        pytest.param(b"\x00\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f", id="huge"),
    ],
)
def test_a_key_frame_that_claims_nonsense_is_refused(data):
    """P7: no decoder allocates for a picture of 16 383 x 16 383."""
    with pytest.raises(ValueError, match=r"frame|picture"):
        check_picture(data)
    check_picture(b"\x01")
    check_picture(b"\x00\x00\x00\x9d\x01\x2a" + (640).to_bytes(2, "little") + b"\x68\x01")
    assert vp8.MAX_PIXELS >= 1920 * 1080
