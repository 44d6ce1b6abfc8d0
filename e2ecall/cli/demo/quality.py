"""How good what arrived is, against what was sent: PSNR, delay, and likeness of sound.

Pictures are compared frame by frame, sound by its aligned log-mel spectrogram. Numbers from
arrays only: it reads no file and knows no codec.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from e2ecall.errors import MediaError

Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.int16]
Plane = npt.NDArray[np.uint8]

SAMPLE_RATE: Final = 48_000
PERFECT_DB: Final = 99.0
"""PSNR given to identical pictures, so that means stay finite."""

_HOP: Final = 480
_WINDOW: Final = 1200
_TRANSFORM: Final = 2048
_BANDS: Final = 40
_LOWEST_HZ: Final = 80.0
_HIGHEST_HZ: Final = 7_600.0
_RANGE_DB: Final = 50.0
"""What is quieter than the loudest cell by more than this counts as silence."""
_SUBSTEPS: Final = 4
"""Alignment is searched in steps of a quarter hop: 2.5 ms."""
_MIN_OVERLAP: Final = 0.7
_MAX_LAG: Final = 1_000
"""Rows: 10 s either way."""


@dataclass(frozen=True, slots=True)
class VideoQuality:
    """The received pictures: how many, how alike, how late, and which numbers are missing."""

    frames: int
    psnr_mean_db: float
    psnr_min_db: float
    latency_ms_p50: float
    latency_ms_p95: float
    gaps: int
    """Places where a picture's number is not its predecessor's plus one."""
    unreadable: int
    """Pictures whose number could not be read."""


@dataclass(frozen=True, slots=True)
class AudioQuality:
    """The received sound: its length and its likeness to what was sent and to another sound."""

    seconds: float
    similarity: float
    control_similarity: float


def psnr(sent: Plane, received: Plane) -> float:
    """Return the peak signal-to-noise ratio of two luma planes in dB.

    Raises:
        ValueError: the planes differ in size.
    """
    if sent.shape != received.shape:
        raise ValueError(f"planes of {sent.shape} and {received.shape} cannot be compared")
    difference = sent.astype(np.int16) - received
    error = float(np.mean(np.square(difference, dtype=np.int32)))
    return PERFECT_DB if error == 0 else min(PERFECT_DB, 10 * float(np.log10(255**2 / error)))


def count_gaps(numbers: list[int]) -> int:
    """Return at how many places ``numbers`` do not grow by exactly one."""
    return sum(1 for before, after in pairwise(numbers) if after != before + 1)


def compare_sound(sent: Samples, received: Samples, control: Samples) -> AudioQuality:
    """Compare a received mono sound of 48 kHz with what was sent, and with an unrelated sound.

    Raises:
        MediaError: less than a second was received, or nothing but silence.
    """
    heard = _trim(received)
    if len(heard) < SAMPLE_RATE:
        raise MediaError("less than a second of sound arrived")
    return AudioQuality(
        seconds=len(received) / SAMPLE_RATE,
        similarity=similarity(sent, heard),
        control_similarity=similarity(control, heard),
    )


def similarity(sent: Samples, received: Samples) -> float:
    """Return the best correlation of the log-mel spectrograms over all alignments, -1 to 1.

    The mean of every band is taken out first, so that a common colour of sound, a gain or a
    filter count for nothing: what correlates is what changes in time. The overlap is at least
    70% of the shorter sound and the lag at most 10 s.
    """
    reference = log_mel(sent)
    coarse = log_mel(received)
    lags = range(-min(len(coarse), _MAX_LAG), min(len(reference), _MAX_LAG) + 1)
    best, lag = _best_correlation(reference, coarse, lags)
    for offset in range(_HOP // _SUBSTEPS, _HOP, _HOP // _SUBSTEPS):
        near = range(lag - 1, lag + 3)
        best = max(best, _best_correlation(reference, log_mel(received[offset:]), near)[0])
    return best


def log_mel(samples: Samples) -> Array:
    """Return the log-mel spectrogram in dB: one row for each 10 ms, 40 bands to 7.6 kHz."""
    if len(samples) < _WINDOW:
        return np.zeros((0, _BANDS))
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(windows * np.hanning(_WINDOW), _TRANSFORM)
    power = np.square(np.abs(spectrum)) @ _mel_bands().T
    decibels = 10 * np.log10(np.maximum(power, 1e-3))
    floored: Array = np.maximum(decibels, decibels.max() - _RANGE_DB)
    return floored


def _best_correlation(one: Array, other: Array, lags: range) -> tuple[float, int]:
    """Slide ``other`` along ``one``; return the highest correlation and its lag in rows."""
    need = max(1, int(min(len(one), len(other)) * _MIN_OVERLAP))
    best, best_lag = -1.0, 0
    for lag in lags:
        start, end = max(lag, 0), min(lag + len(other), len(one))
        if end - start >= need:
            found = _correlation(one[start:end], other[start - lag : end - lag])
            if found > best:
                best, best_lag = found, lag
    return best, best_lag


def _correlation(one: Array, other: Array) -> float:
    first, second = one - one.mean(axis=0), other - other.mean(axis=0)
    scale = float(np.sqrt(np.vdot(first, first) * np.vdot(second, second)))
    return float(np.vdot(first, second)) / scale if scale > 0 else 0.0


def _mel_bands() -> Array:
    """Return triangular filters, evenly spaced on the mel scale: bands by frequency bins."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (_LOWEST_HZ, _HIGHEST_HZ))
    mels = np.linspace(low, high, _BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.fft.rfftfreq(_TRANSFORM, 1 / SAMPLE_RATE)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    bands: Array = np.clip(np.minimum(rising, falling), 0.0, None)
    return bands


def _trim(samples: Samples) -> Samples:
    """Cut the silence before the first and after the last sound."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _AUDIBLE)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


_AUDIBLE: Final = 100
"""Sample values up to this (-50 dB) are silence."""
