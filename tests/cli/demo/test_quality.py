"""The quality measures tell good from bad, and one sound from another."""

from fractions import Fraction

import av
import numpy as np
import pytest

from e2ecall.cli.demo.quality import (
    PERFECT_DB,
    compare_sound,
    count_gaps,
    log_mel,
    psnr,
    similarity,
)
from e2ecall.errors import MediaError
from e2ecall.media.voice import RATE, Voice


def _opus(samples):
    """Send mono samples through Opus at 32 kbit/s constant bitrate."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.bit_rate, encoder.time_base = 32_000, Fraction(1, RATE)
    encoder.options = {"vbr": "off", "application": "voip"}
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = RATE, "mono"
    decoded = []
    for start in range(0, len(samples) - 959, 960):
        block = samples[start : start + 960].reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        for packet in encoder.encode(frame):
            decoded += [part.to_ndarray().reshape(-1) for part in decoder.decode(packet)]
    return np.concatenate(decoded).astype(np.int16)


def test_psnr_of_known_errors():
    """Identical planes are perfect; an error of one everywhere is 48.13 dB."""
    plane = np.full((360, 640), 100, np.uint8)
    assert psnr(plane, plane) == PERFECT_DB
    assert psnr(plane, plane + 1) == pytest.approx(48.13, abs=0.01)
    assert psnr(plane, plane - 1) == psnr(plane, plane + 1)
    assert psnr(np.zeros_like(plane), np.full_like(plane, 255)) == 0
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(plane, plane[:10])


@pytest.mark.parametrize(
    ("numbers", "gaps"),
    [([], 0), ([7], 0), ([7, 8, 9], 0), ([1, 2, 4, 5], 1), ([1, 1, 2], 1), ([3, 2, 1], 2)],
)
def test_gaps_are_counted(numbers, gaps):
    """Missing, repeated and backward numbers each count."""
    assert count_gaps(numbers) == gaps


@pytest.mark.parametrize(("seed", "other"), [(1, 2), (7, 8), (40, 41)])
def test_a_voice_through_opus_is_like_itself_and_unlike_another(seed, other):
    """With unknown delay and gain: 0.9 or more to what was sent, under 0.5 to another voice."""
    sent = Voice(seed).samples(0, 5 * RATE)
    heard = _opus(sent[RATE // 3 :]) * 0.7
    received = np.concatenate([np.zeros(7_777, np.int16), heard.astype(np.int16)])
    found = compare_sound(sent, received, Voice(other).samples(0, 5 * RATE))
    assert found.similarity >= 0.95
    assert found.control_similarity < 0.5
    assert found.seconds == pytest.approx(5 - 1 / 3 + 7_777 / RATE, abs=0.05)


def test_white_noise_is_like_no_voice():
    """What an undecrypted stream sounds like does not pass for what was sent."""
    sent = Voice(3).samples(0, 4 * RATE)
    noise = np.random.default_rng(1).normal(0, 8_000, 3 * RATE).clip(-32_768, 32_767)
    assert similarity(sent, noise.astype(np.int16)) < 0.3


def test_too_little_sound_is_an_error():
    """Silence and a fraction of a second are not compared: any answer would be luck."""
    sent = Voice(3).samples(0, 2 * RATE)
    for received in (np.zeros(3 * RATE, np.int16), sent[: RATE // 2]):
        with pytest.raises(MediaError, match="less than a second"):
            compare_sound(sent, received, sent)


def test_a_log_mel_row_is_ten_milliseconds():
    """A second gives about a hundred rows of forty bands, and a tone lights up one band."""
    time = np.arange(RATE) / RATE
    rows = log_mel((8_000 * np.sin(2 * np.pi * 1_000 * time)).astype(np.int16))
    assert rows.shape == (98, 40)
    loudest = rows.mean(axis=0).argmax()
    assert (rows.argmax(axis=1) == loudest).all()
    assert log_mel(np.zeros(10, np.int16)).shape == (0, 40)
