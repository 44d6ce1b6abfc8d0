"""What is sent: constant packets, key frames on request, a rate that follows estimates, a pace."""

from itertools import pairwise

import anyio
import av
import numpy as np
import pytest
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    pack_remb_fci,
)

from e2ecall.errors import MediaError
from e2ecall.media import bitrate, outgoing
from e2ecall.media.bitrate import BitrateControl
from e2ecall.media.encoders import vp8
from e2ecall.media.encoders.opus import OpusEncoder
from e2ecall.media.encoders.vp8 import VP8Encoder, check_picture
from e2ecall.media.ladder import Ladder, useful
from e2ecall.media.outgoing import OutgoingVideo, round_trip
from e2ecall.media.pacer import MAX_LAG, Pacer
from e2ecall.media.repair import Missing, RepairBudget
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


# Pictures.


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
        assert track._control.bit_rate == bitrate.START_RATE
        await track.close()

    anyio.run(main)


# Rate and pace.


def test_the_rate_falls_with_congestion_and_rises_slowly():
    """An estimate below what is sent lowers the rate; it takes time and room to rise again."""
    control = BitrateControl()
    assert control.bit_rate == bitrate.START_RATE == 400_000
    control.estimate(300_000, 400_000, 10.0)
    assert control.bit_rate == 300_000
    control.estimate(160_000, 250_000, 10.5)
    assert control.bit_rate == 300_000
    control.estimate(160_000, 250_000, 11.0)
    assert control.bit_rate == 160_000
    control.estimate(0, 150_000, 12.0)
    assert control.bit_rate == bitrate.MIN_RATE == 100_000
    control.estimate(105_000, 100_000, 14.0)  # no headroom
    assert control.bit_rate == 100_000
    control.estimate(5_000_000, 100_000, 14.0)
    control.estimate(5_000_000, 100_000, 14.5)
    assert control.bit_rate == 108_000
    for second in range(60):
        control.estimate(5_000_000, 2_000_000, 15.0 + second)
    assert control.bit_rate == bitrate.MAX_RATE == 2_500_000


def test_a_call_begins_with_little_and_soon_has_more():
    """MEDIA-33: reports without trouble take the rate to 800 kbit/s, each by no more than 1.3."""
    control = BitrateControl()
    rates = []
    for second in range(6):
        control.loss(0.05, float(second))
        control.loss(0.05, second + 0.1)
        rates.append(control.bit_rate)
    assert rates == [400_000, 520_000, 676_000, 800_000, 800_000, 800_000]


@pytest.mark.parametrize("trouble", ["loss", "estimate"])
def test_the_first_trouble_ends_the_quick_rise(trouble):
    """MEDIA-33: after a queue or much loss the rate rises by estimates alone."""
    control = BitrateControl()
    if trouble == "loss":
        control.loss(0.3, 0.0)
    else:
        control.estimate(238_000, 400_000, 0.0)
    assert control.bit_rate == 238_000
    for second in range(1, 10):
        control.loss(0.0, float(second))
    assert control.bit_rate == 238_000


def test_a_measured_rate_need_not_wait_after_a_loss():
    """MEDIA-23: what the receiver estimated takes the rate down also right after losses did."""
    control = BitrateControl()
    control.loss(0.4, 0.0)
    assert control.bit_rate == 204_000
    control.estimate(150_000, 240_000, 0.1)
    assert control.bit_rate == 150_000
    control.estimate(100_000, 240_000, 0.2)
    assert control.bit_rate == 150_000


def test_what_is_asked_for_again_tells_of_a_narrow_path():
    """MEDIA-35: of 30 packets in half a second 15 asked for again take the rate to under a half,
    once a second, and are not sent again; 9, or more than were sent, change nothing.
    """
    control, missing = BitrateControl(), Missing()
    assert not control.missing(missing.share(range(9), 30, 0.0), 0.0)
    assert not control.missing(missing.share(range(9, 40), 30, 0.1), 0.1)
    assert control.bit_rate == 400_000
    assert control.missing(missing.share(range(100, 115), 30, 1.0), 1.0)
    assert control.bit_rate == 170_000
    assert control.missing(missing.share(range(105, 115), 30, 1.3), 1.3)
    assert control.bit_rate == 170_000
    assert missing.share(range(105, 112), 30, 2.0) == 0.0


def test_a_path_that_overflows_is_not_filled_with_repairs(now):
    """MEDIA-35: what the receiver asks for again stays in the packet unless it is too much."""

    async def main():
        track = OutgoingVideo(GeneratedVideo(lambda n: gradient(n).to_ndarray()), "camera")
        track._recent.extend((now[0] - n / 100, 1_000) for n in range(30))
        few = RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=5, lost=list(range(5)))
        track.feedback(few)
        many = RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=5, lost=list(range(20)))
        track.feedback(many)
        await track.close()
        return len(few.lost), len(many.lost), track._control.bit_rate

    assert anyio.run(main) == (5, 0, pytest.approx(400_000 / 3 * 0.85, abs=1))


def test_an_estimate_of_a_quiet_sender_is_no_congestion():
    """A receiver cannot estimate more than it sees: a still picture keeps its rate."""
    control = BitrateControl()
    for second in range(20):
        control.estimate(120_000, 90_000, float(second))
    assert control.bit_rate == bitrate.START_RATE


def test_loss_lowers_the_rate_and_keeps_it_from_rising():
    """MEDIA-23: above 10% the rate falls once a second; above 2% no estimate raises it."""
    control = BitrateControl()
    for second in range(4):
        control.loss(0.0, float(second))
    assert control.bit_rate == 800_000
    control.loss(0.2, 5.0)
    control.loss(0.2, 5.5)
    assert control.bit_rate == 720_000
    control.loss(0.05, 5.9)
    control.estimate(5_000_000, 1_000_000, 8.0)
    assert control.bit_rate == 720_000
    for second in range(8, 60):
        control.loss(0.2, float(second))
    assert control.bit_rate == bitrate.LOSS_FLOOR == 400_000
    for second in range(60, 90):
        control.loss(0.5, float(second))
    assert control.bit_rate == bitrate.MIN_RATE
    control.loss(0.0, 90.0)
    control.estimate(5_000_000, 100_000, 92.0)
    assert control.bit_rate > bitrate.MIN_RATE


def test_moderate_loss_does_not_hold_a_low_rate():
    """MEDIA-23: a path that always loses 15% comes back to 400 kbit/s, and no further."""
    control = BitrateControl()
    control.estimate(100_000, 400_000, 0.0)
    for second in range(1, 60):
        control.loss(0.15, float(second))
        control.estimate(5_000_000, 400_000, float(second))
    assert 400_000 <= control.bit_rate < 440_000


def test_what_is_sent_again_is_bounded():
    """MEDIA-14: repairs take half of the rate, in bursts of half a second of it."""
    budget, numbers = RepairBudget(), iter(range(10_000))

    def take(count, rate, now):
        return len(budget.take([next(numbers) for _ in range(count)], rate, 0.01, now))

    assert take(128, 1_040_000, 10.0) == 25
    assert take(128, 1_040_000, 10.0) == 0
    assert take(128, 1_040_000, 10.11) == 5
    assert take(3, 1_040_000, 20.0) == 3
    assert take(128, 1_040_000, 20.0) == 22
    assert len(RepairBudget().take(range(5), 100, None, 0.0)) == 1


@pytest.mark.parametrize(("trip", "wait"), [(0.01, 0.03), (0.1, 0.1), (None, 0.05), (2.0, 0.3)])
def test_a_packet_is_sent_again_once_in_a_round_trip(trip, wait):
    """MEDIA-36: asked for every 20 ms, a packet is sent again no sooner than it can have come."""
    budget = RepairBudget()
    sent = [ms / 1000 for ms in range(0, 1000, 5) if budget.take([7], 10**7, trip, ms / 1000)]
    assert sent[0] == 0.0
    assert min(b - a for a, b in pairwise(sent)) == pytest.approx(wait, abs=0.0051)


def test_a_repair_that_may_be_lost_is_sent_twice():
    """MEDIA-36: where more than 10% are lost a packet is sent again twice, and counts twice."""
    budget = RepairBudget()
    assert budget.take([1, 2], 1_040_000, 0.01, 10.0, times=2) == [1, 2, 1, 2]
    assert budget.take([1, 2], 1_040_000, 0.01, 10.01, times=2) == []
    assert len(budget.take(range(100, 200), 1_040_000, 0.01, 10.01, times=2)) == 20
    control = BitrateControl()
    control.loss(0.1, 0.0)
    assert not control.loses_much
    control.loss(0.2, 1.0)
    assert control.loses_much


def test_the_round_trip_is_that_of_the_last_report():
    """RFC 3550, 6.4.1: what was sent, held by the peer for 5.25 s and came back took 1.125 s."""
    heard = RtcpReceiverInfo(0, 0, 0, 0, 0, lsr=0xB705_2000, dlsr=0x0005_4000)
    assert round_trip(heard, 0xB44D_B705_2000_0000 + (6_375 << 32) // 1000) == pytest.approx(1.125)
    assert round_trip(heard, 0xB44D_B705_0000_0000) is None
    assert round_trip(RtcpReceiverInfo(0, 0, 0, 0, 0, 0, 0), 1 << 40) is None


HD, SMALL = 1280 * 720 * 30, 640 * 360 * 30


def settled(ladder, rate, pixel_rate, start):
    """Return the rung after ten seconds at a rate."""
    return [ladder.choose(rate, pixel_rate, start + tenth / 10) for tenth in range(100)][-1]


@pytest.mark.parametrize(
    ("rate", "pixel_rate", "rung"),
    [
        (2_500_000, HD, (8, 1)),
        (1_000_000, HD, (6, 1)),
        (300_000, HD, (4, 1)),
        (150_000, HD, (4, 2)),
        (100_000, HD, (3, 2)),
        (1_000_000, SMALL, (8, 1)),
        (200_000, SMALL, (6, 1)),
        (100_000, SMALL, (4, 1)),
        (1, SMALL, (2, 2)),
    ],
)
def test_pictures_get_smaller_and_fewer_before_they_fall_apart(rate, pixel_rate, rung):
    """MEDIA-24: no rung but the last has less than 0.04 bits for a pixel."""
    assert settled(Ladder(), rate, pixel_rate, 0.0) == rung


def test_a_short_dip_changes_nothing_and_a_rise_takes_room_and_time():
    """MEDIA-24: each step costs a key frame, so rates around a threshold cause none."""
    ladder = Ladder()
    for tenth in range(100):
        rate = 270_000 if tenth % 5 else 290_000
        assert ladder.choose(rate, SMALL, tenth / 10) == (8, 1)
    assert settled(ladder, 250_000, SMALL, 20.0) == (6, 1)
    assert settled(ladder, 300_000, SMALL, 40.0) == (6, 1)
    assert settled(ladder, 400_000, SMALL, 60.0) == (8, 1)
    assert ladder.choose(100_000, SMALL, 80.0) == (8, 1)
    assert ladder.choose(100_000, SMALL, 81.0) == (4, 1)
    assert ladder.choose(1_000_000, SMALL, 82.0) == (4, 1)
    assert ladder.choose(1_000_000, SMALL, 86.0) == (6, 1)
    assert ladder.choose(1_000_000, SMALL, 87.0) == (6, 1)


def test_a_small_picture_does_not_waste_a_high_rate():
    """More than 0.2 bits for a pixel is not spent."""
    assert useful(2_500_000, HD) == 2_500_000
    assert useful(2_500_000, SMALL) == 1_382_400


def test_the_sender_follows_what_the_receiver_reports(now):
    """MEDIA-23, MEDIA-24: heavy loss of its own stream, not of another, makes the picture small."""

    async def main():
        source = GeneratedVideo(lambda n: gradient(n, 640, 360).to_ndarray())
        track = OutgoingVideo(source, "camera")
        track._encryptor = Clear()
        track.ssrc = 5

        def second(ssrc):
            report = RtcpReceiverInfo(ssrc, 128, 0, 0, 0, 0, 0)
            track.feedback(RtcpRrPacket(ssrc=1, reports=[report]))
            frames = []
            for _ in range(30):
                now[0] += 1 / 30
                frames.append(track._encode())
            return frames

        for _ in range(15):
            sizes = [key_frame_size(frame) for frame in second(ssrc=6) if is_key_frame(frame)]
        assert sizes == []
        sizes = []
        for _ in range(15):
            sizes += [key_frame_size(frame) for frame in second(ssrc=5) if is_key_frame(frame)]
        assert sizes[-1] == (320, 180)
        assert len(sizes) <= 2
        await track.close()

    anyio.run(main)


def key_frame_size(frame):
    return tuple(int.from_bytes(frame[at : at + 2], "little") & 0x3FFF for at in (6, 8))


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
