"""What is sent: key frames on request, what the peer asks for again, a pace, sources."""

import anyio
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

from e2ecall.media import bitrate, outgoing_video
from e2ecall.media.outgoing_video import OutgoingVideo
from e2ecall.media.pacer import MAX_LAG, Pacer
from e2ecall.media.sources import (
    AudioSource,
    GeneratedAudio,
    GeneratedVideo,
    VideoSource,
    audio_frame,
    black,
)
from e2ecall.media.video_jitter import is_key_frame
from tests.media.test_encoders import gradient, noise


@pytest.fixture
def now(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(outgoing_video.time, "monotonic", lambda: clock[0])
    return clock


def request(fmt, fci=b""):
    return RtcpPsfbPacket(fmt=fmt, ssrc=1, media_ssrc=2, fci=fci)


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
