"""What the callee saw and heard of a call, in figures.

The ear plays each 20 ms as soon as it is there and what was before it has been played. So it comes
to keep in reserve what was needed once; of more than 100 ms it leaves out the rest, which is a gap.
The delay from mouth to ear has the 20 ms in it that a frame takes to be spoken, and no device.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from e2ecall.media import counter
from e2ecall.media.sources import SAMPLE_RATE, SAMPLES_PER_FRAME, Samples
from tests.bench.calls.material import RATE, Material
from tests.bench.calls.witness import Seen, Sent

FRAME: Final = SAMPLES_PER_FRAME / SAMPLE_RATE
RESERVE: Final = 0.1
"""Seconds of sound that the ear keeps at most."""

_PEAK: Final = 255.0
_STEP: Final = 8
"""Sound is laid over what was sent at 6 kHz: finer than needed to name a frame."""
_CLEAR: Final = 10.0
"""By how many standard deviations the best place of a sound stands out from the others."""


@dataclass(frozen=True)
class Figures:
    """One call as the callee had it."""

    psnr: float
    """Of the pictures seen against those sent, in dB, mean."""
    frames_a_second: float
    freeze: float
    """The longest time for which one picture stood, in seconds."""
    gaps: float
    """The share of the time in which the ear had nothing to play, in percent."""
    mouth_to_ear: float
    """Milliseconds, median."""
    lip_sync: float
    """By how much pictures come after the sound that belongs to them, in ms, median."""


def judge(material: Material, sent: Sent, seen: Seen, end: float) -> Figures:
    """Return the figures from the first picture on until ``end``.

    Raises:
        ValueError: the callee saw nothing or heard nothing that was sent.
    """
    if len(seen.pictures) < 2 or len(seen.sounds) < RATE:
        raise ValueError("the callee saw or heard nothing")
    start = seen.pictures[0][0]
    numbers = _numbers(seen)
    delays = [
        at - sent.pictures[number]
        for (at, _), number in zip(seen.pictures, numbers, strict=True)
        if 0 < number < len(sent.pictures)
    ]
    shown = [at for at, _ in seen.pictures if at <= end]
    played, gaps, spoken = _play(material, sent, seen, start, end)
    return Figures(
        psnr=_psnr(material, seen, numbers),
        frames_a_second=len(shown) / (end - start),
        freeze=max(later - earlier for earlier, later in pairwise([*shown, end])),
        gaps=100 * gaps / (end - start),
        mouth_to_ear=1000 * float(np.median(np.array(played) - np.array(spoken))),
        lip_sync=1000 * (float(np.median(delays)) - float(np.median(np.subtract(played, spoken)))),
    )


def _numbers(seen: Seen) -> list[int]:
    """Return each picture's number: its strip's, or by the sender's clock from one with a strip."""
    numbers, anchor = [], None
    known = {place: counter.read(luma) for place, luma in seen.kept.items()}
    first = next(p for p in sorted(known) if known[p] is not None)
    for place, (_, sent) in enumerate(seen.pictures):
        if (number := known.get(place)) is not None:
            anchor = (number, sent)
        base, at = anchor or (known[first] or 0, seen.pictures[first][1])
        numbers.append(base + round((sent - at) * RATE))
    return numbers


def _psnr(material: Material, seen: Seen, numbers: list[int]) -> float:
    values = []
    for place, luma in seen.kept.items():
        right = material.picture(numbers[place])[: counter.HEIGHT].astype(np.float32)
        error = float(np.mean((right - luma) ** 2))
        values.append(10 * np.log10(_PEAK**2 / max(error, 1e-3)))
    return float(np.mean(values))


def _play(
    material: Material, sent: Sent, seen: Seen, start: float, end: float
) -> tuple[list[float], float, list[float]]:
    """Return when each sound was played, for how long there was none, and when it was spoken."""
    first, lag = _place(material.sound, seen)
    played, spoken, gaps, free = [], [], 0.0, None
    for at, clock, samples in seen.sounds:
        play = at if free is None else max(at, free)
        if play > end:
            break
        if play - at > RESERVE:
            gaps += FRAME if play >= start else 0.0
            continue
        if play >= start:
            gaps += play - free if free is not None and free >= start else 0.0
            number = first + round(clock / FRAME)
            if 0 < number < len(sent.sounds):
                played.append(play)
                spoken.append(sent.sounds[number] - FRAME - lag)
        free = play + len(samples) / SAMPLE_RATE
    if free is not None:
        gaps += max(0.0, end - free)
    return played, gaps, spoken


def _place(sound: Samples, seen: Seen) -> tuple[int, float]:
    """Return the number of the 20 ms at the receiver's time 0, and the codec's own delay."""
    length = int(seen.sounds[-1][1] * SAMPLE_RATE) + SAMPLES_PER_FRAME
    heard = np.zeros(length, np.float32)
    for _, clock, samples in seen.sounds:
        at = round(clock * SAMPLE_RATE)
        heard[at : at + len(samples)] = samples[: length - at]
    small, other = _small(heard), _small(sound)
    size = 1 << (len(small) + len(other)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(other, size) * np.conj(np.fft.rfft(small, size)), size)
    best = int(np.argmax(likeness))
    apart = np.abs(np.arange(size) - best) > SAMPLE_RATE // _STEP // 10
    if likeness[best] < _CLEAR * np.std(likeness[apart]):
        raise ValueError("what was heard is not what was said")
    # Heard sample h is sent sample h + shift; a codec's delay makes the shift smaller.
    shift = (best - size if best > size // 2 else best) * _STEP
    first = -(-shift // SAMPLES_PER_FRAME)
    return first, (first * SAMPLES_PER_FRAME - shift) / SAMPLE_RATE


def _small(sound: npt.NDArray[np.float32] | Samples) -> npt.NDArray[np.float32]:
    whole = sound[: len(sound) // _STEP * _STEP].astype(np.float32)
    mean: npt.NDArray[np.float32] = whole.reshape(-1, _STEP).mean(axis=1)
    return mean
