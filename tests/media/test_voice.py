"""Sound as it is sent: at a setting that the network alone chooses."""

import numpy as np
import pytest
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket

from e2ecall.media import outgoing_audio
from e2ecall.media.outgoing_audio import OutgoingAudio
from e2ecall.media.sources import GeneratedAudio
from e2ecall.media.voice import Voice
from e2ecall.media.voice_rate import BEST, GOOD, HOLD, LOSSY, NARROW, USUAL, VoiceRate
from e2ecall.protocol.sound import MAX_COPIES, unpack

OPUS = 96
SIZES = {NARROW: 125, LOSSY: 189, USUAL: 165, GOOD: 245, BEST: 325}
"""Bytes of a plain frame by its setting, as in the specification."""


@pytest.mark.parametrize(
    ("loss", "path_rate", "setting"),
    [
        (0.0, None, USUAL),
        (0.0, 1_000_000, USUAL),
        (0.0, 249_000, NARROW),
        (0.2, 249_000, NARROW),
        (0.09, 1_000_000, LOSSY),
        (0.2, None, LOSSY),
        (0.07, 1_400_000, GOOD),
        (0.0, 2_500_000, BEST),
    ],
)
def test_the_network_chooses_the_setting(loss, path_rate, setting):
    """MEDIA-31: narrow before lossy, more where there is room."""
    assert VoiceRate().choose(loss, path_rate, 0.0) == setting


def test_settings_change_seldom_and_not_about_one_border():
    """MEDIA-31: upwards at most once in 4 s, and back at another value than there."""
    rate = VoiceRate()
    assert rate.choose(0.09, None, 0.0) == LOSSY
    assert rate.choose(0.05, None, HOLD - 0.1) == LOSSY
    assert rate.choose(0.03, None, HOLD - 0.1) == USUAL
    assert rate.choose(0.09, None, HOLD + 0.1) == USUAL
    assert rate.choose(0.0, 240_000, HOLD + 0.2) == NARROW
    assert rate.choose(0.0, 320_000, 3 * HOLD) == NARROW
    assert rate.choose(0.0, 330_000, 3 * HOLD + 1) == USUAL
    assert rate.choose(0.0, 2_500_000, 3 * HOLD + 2) == USUAL
    assert rate.choose(0.0, 2_500_000, 4 * HOLD + 2) == BEST


def sounding(source, path_rate=lambda: None):
    track = OutgoingAudio(source, "microphone", OPUS, path_rate)
    track.ssrc = 7
    return track


def report(share):
    info = RtcpReceiverInfo(
        ssrc=7, fraction_lost=int(share * 256), packets_lost=0, highest_sequence=0,
        jitter=0, lsr=0, dlsr=0,
    )  # fmt: skip
    return RtcpRrPacket(ssrc=1, reports=[info])


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_frame_has_the_size_of_its_setting_whatever_is_said(monkeypatch):
    """MEDIA-03, MEDIA-31: speech, silence, mute and the end of a source have one size, and each
    change of it follows a report of the network.
    """
    now, path = [0.0], [1_000_000]
    monkeypatch.setattr(outgoing_audio.time, "monotonic", lambda: now[0])
    voice = Voice(3)
    parts = (
        lambda n: voice.samples(n * 960, 960),
        lambda n: np.zeros(960, np.int16),
    )
    source = GeneratedAudio(lambda n: parts[n // 7 % 2](n), frames=900)
    track = sounding(source, lambda: path[0])
    sizes = []
    for loss, rate, setting in (
        (0.0, 1_000_000, USUAL),
        (0.15, 1_000_000, LOSSY),
        (0.15, 200_000, NARROW),
        (0.0, 1_500_000, GOOD),
        (0.0, 2_500_000, BEST),
    ):
        now[0], path[0] = now[0] + HOLD, rate
        track.feedback(report(loss))
        frames = [track._encode() for _ in range(100)]
        track.muted = True
        frames += [track._encode() for _ in range(40)]
        track.muted = False
        frames += [track._encode() for _ in range(60)]
        settled = {len(frame) for frame in frames[MAX_COPIES:]}
        assert settled == {SIZES[setting]}
        sizes.append(len(frames[0]))
    assert source.read() is None  # what came last was silence in the place of an ended source
    assert sizes[0] == SIZES[USUAL]
    await track.close()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_sound_goes_on_where_the_rate_changes():
    """MEDIA-31: another rate is no break: a tone keeps its loudness across the change."""
    import av

    at = np.arange(960 * 60)
    tone = (9000 * np.sin(at * 2 * np.pi * 440 / 48_000)).astype(np.int16)
    track = sounding(GeneratedAudio(lambda n: tone[n * 960 : n * 960 + 960]))
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = 48_000, "stereo", "s16"
    heard = []
    for number in range(60):
        if number == 30:
            track.feedback(report(0.2))
        own = unpack(track._encode(), OPUS)[-1].data
        heard.append(decoder.decode(av.Packet(own))[0].to_ndarray().astype(float))
    peaks = [np.abs(part).max() for part in heard[10:]]
    assert len(own) == 60
    assert min(peaks) > 8000
    assert max(peaks) < 10_500
    await track.close()
