"""What is sent: constant packets, key frames on request, a rate that follows estimates, a pace."""

import anyio
import av
import numpy as np
import pytest
from aiortc.rtp import RTCP_PSFB_APP, RTCP_PSFB_FIR, RTCP_PSFB_PLI, RtcpPsfbPacket, pack_remb_fci

from e2ecall.errors import MediaError
from e2ecall.media import bitrate, outgoing
from e2ecall.media.bitrate import RATES, BitrateControl
from e2ecall.media.encoders import vp8
from e2ecall.media.encoders.opus import PACKET_BYTES, OpusEncoder
from e2ecall.media.encoders.vp8 import VP8Encoder, check_picture
from e2ecall.media.outgoing import OutgoingVideo
from e2ecall.media.pacer import MAX_LAG, Pacer
from e2ecall.media.sources import (
    AudioSource,
    GeneratedAudio,
    GeneratedVideo,
    VideoSource,
    audio_frame,
    black,
    silence,
)
from e2ecall.media.video_jitter import is_key_frame


def noise(frame, loudness=9000):
    return np.random.default_rng(frame).normal(0, loudness, 960).astype(np.int16)


def gradient(frame, width=320, height=180):
    rows = np.full((height * 3 // 2, width), 128, np.uint8)
    rows[:height] = (np.arange(width) + 5 * frame) % 200
    return av.VideoFrame.from_ndarray(rows, format="yuv420p")


# Sound.


@pytest.mark.parametrize("sound", ["silence", "noise", "both", "clipped"])
def test_every_opus_packet_has_the_same_size(sound):
    """MEDIA-03: 80 bytes whatever is said, from the first packet on."""
    encoder = OpusEncoder()
    for number in range(100):
        loud = {"silence": False, "noise": True, "both": number % 7 < 3, "clipped": True}[sound]
        samples = noise(number, 60_000 if sound == "clipped" else 9000)
        packet = encoder.encode(audio_frame(samples) if loud else silence())
        assert len(packet) == PACKET_BYTES == 80


def test_opus_can_be_decoded():
    """A tone comes out of the decoder with its loudness."""
    encoder, decoder = OpusEncoder(), av.CodecContext.create("libopus", "r")
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
        OpusEncoder().encode(frame)


# Pictures.


def test_the_first_picture_and_those_asked_for_are_key_frames():
    """MEDIA-14: a key frame comes first and on request, and only then."""
    encoder = VP8Encoder(30, 500_000)
    kinds = [is_key_frame(encoder.encode(gradient(n), key_frame=n == 5)) for n in range(10)]
    assert [n for n, key in enumerate(kinds) if key] == [0, 5]


def test_a_new_size_and_a_new_rate_begin_with_a_key_frame():
    """The encoder goes on with pictures of another size or at another rate."""
    encoder = VP8Encoder(30, 500_000)
    encoder.encode(gradient(0), key_frame=False)
    assert is_key_frame(encoder.encode(gradient(1, 640, 360), key_frame=False))
    encoder.set_bit_rate(250_000)
    assert is_key_frame(encoder.encode(gradient(2, 640, 360), key_frame=False))
    assert encoder.bit_rate == 250_000


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


def request(fmt, fci=b""):
    return RtcpPsfbPacket(fmt=fmt, ssrc=1, media_ssrc=2, fci=fci)


@pytest.fixture
def now(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(outgoing.time, "monotonic", lambda: clock[0])
    return clock


class Clear:
    """Stands for the key, to look into what would be encrypted."""

    def encrypt(self, frame, clear_prefix):
        return frame


@pytest.mark.parametrize("fmt", [RTCP_PSFB_PLI, RTCP_PSFB_FIR])
def test_key_frame_requests_are_answered_but_not_each(now, fmt):
    """MEDIA-14: many requests within half a second make one key frame."""

    async def main():
        track = OutgoingVideo(GeneratedVideo(lambda n: gradient(n).to_ndarray()), "camera")
        track.change_key(Clear())
        keys = []
        for number in range(40):
            track.feedback(request(fmt))
            keys.append(is_key_frame(track._produce()))
            now[0] = 1000 + (number + 1) / 30
        await track.close()
        assert [n for n, key in enumerate(keys) if key] == [0, 15, 30]

    anyio.run(main)


def test_nonsense_feedback_is_ignored(now):
    """Feedback that is no request and no estimate changes nothing."""

    async def main():
        track = OutgoingVideo(GeneratedVideo(lambda n: gradient(n).to_ndarray()), "camera")
        track.feedback(request(RTCP_PSFB_APP, b"XXXX"))
        track.feedback(request(RTCP_PSFB_APP, pack_remb_fci(1, [2])))
        track.feedback(request(2))
        assert track._control.bit_rate in RATES
        await track.close()

    anyio.run(main)


# Rate and pace.


def test_the_rate_falls_with_congestion_and_rises_slowly():
    """An estimate below what is sent lowers the rate; it takes time and room to rise again."""
    control = BitrateControl()
    assert control.bit_rate == RATES[-1] == 1_000_000
    control.estimate(300_000, 1_000_000, 10.0)
    assert control.bit_rate == 250_000
    control.estimate(160_000, 250_000, 10.5)
    assert control.bit_rate == 250_000
    control.estimate(160_000, 250_000, 11.0)
    assert control.bit_rate == 150_000
    control.estimate(0, 150_000, 12.0)
    assert control.bit_rate == RATES[0]
    control.estimate(5_000_000, 150_000, 12.0 + bitrate.UP_INTERVAL)
    assert control.bit_rate == 250_000
    control.estimate(5_000_000, 150_000, 13.0 + bitrate.UP_INTERVAL)
    assert control.bit_rate == 250_000


def test_an_estimate_of_a_quiet_sender_is_no_congestion():
    """A receiver cannot estimate more than it sees: a still picture keeps its rate."""
    control = BitrateControl()
    for second in range(20):
        control.estimate(120_000, 90_000, float(second))
    assert control.bit_rate == RATES[-1]


def test_the_pace_is_steady_and_survives_a_stall():
    """Short delays are caught up, long ones move the schedule; timestamps follow the clock."""
    pacer = Pacer(clock=48_000, ticks_per_frame=960)
    assert pacer.next(100.0) == (0.0, 0)
    assert pacer.next(100.0) == (pytest.approx(0.02), 960)
    assert pacer.next(100.3) == (0.0, 1920)
    assert pacer.next(100.3) == (0.0, 2880)
    wait, timestamp = pacer.next(100.08 + MAX_LAG + 1)
    assert wait == 0.0
    assert timestamp == pytest.approx((0.08 + MAX_LAG + 1) * 48_000, abs=2)
    assert pacer.next(100.08 + MAX_LAG + 1)[0] == pytest.approx(0.02, abs=1e-4)


# Sources.


def test_generated_sources_are_sources_and_end():
    """A function is a source; with a number of frames it ends, and after close too."""
    audio, video = (
        GeneratedAudio(noise, frames=2),
        GeneratedVideo(lambda n: np.zeros((2, 2, 3), np.uint8), pixel_format="rgb24", frames=1),
    )
    assert isinstance(audio, AudioSource)
    assert isinstance(video, VideoSource)
    assert not isinstance(audio, VideoSource)
    assert audio.read().samples == 960
    assert audio.read() is not None
    assert audio.read() is None
    assert (video.read().width, video.read()) == (2, None)
    endless = GeneratedAudio(noise)
    endless.close()
    assert endless.read() is None


@pytest.mark.parametrize("rate", [0, 61])
def test_impossible_frame_rates_are_refused(rate):
    """A frame rate is 1 to 60."""
    with pytest.raises(ValueError, match="frame rate"):
        GeneratedVideo(lambda n: None, frame_rate=rate)


def test_black_is_black():
    """The picture of a muted camera."""
    rgb = black(64, 48).to_ndarray(format="rgb24")
    assert rgb.max() <= 2


def test_frames_of_the_wrong_length_are_refused():
    """An audio frame is 960 samples."""
    with pytest.raises(ValueError, match="960"):
        audio_frame(np.zeros(480, np.int16))
