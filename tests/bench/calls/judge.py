"""What the callee saw and heard of a call, in figures.

The ear plays each 20 ms as soon as it is there and what was before it has been played. So it comes
to keep in reserve what was needed once; of more than 100 ms it leaves out the rest, which is a gap.
The delay from mouth to ear has the 20 ms in it that a frame takes to be spoken, and no device.

The eye has the same patience: a picture is due 100 ms after the time at which pictures usually
come. What is not there by then is not seen at its moment, but the one before it. A picture that was
taken more than a second before it is shown is none of a conversation, and not counted as one.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from e2ecall.media import counter
from e2ecall.media.counter import Plane
from e2ecall.media.sources import SAMPLE_RATE, SAMPLES_PER_FRAME, VIDEO_CLOCK, Samples
from tests.bench.calls.material import RATE, Material
from tests.bench.calls.witness import KEPT_EVERY, Seen, Sent

FRAME: Final = SAMPLES_PER_FRAME / SAMPLE_RATE
RESERVE: Final = 0.1
"""Seconds of sound that the ear keeps at most, and for which the eye waits for what is late."""

OLD: Final = 1.0
"""Seconds after it was taken from which on a picture is not counted any more when it is shown."""

LEAST: Final = 25
"""Frames of sound by which it can be found in what was said."""

MOMENTS: Final = 10
"""At how many moments a picture that stands is compared."""

_WRAP: Final = (1 << 32) / VIDEO_CLOCK
"""Seconds after which the time stamps of pictures begin again."""
_PEAK: Final = 255.0
_STEP: Final = 8
"""Sound is laid over what was sent at 6 kHz: finer than needed to name a frame."""
_CLEAR: Final = 10.0
"""By how many standard deviations the best place of a sound stands out from the others."""


@dataclass(frozen=True)
class Figures:
    """One call as the callee had it."""

    psnr: float
    """Of what was on the screen against what was due at that moment, in dB, mean over time: a
    picture that stands is compared with all those that should have been seen meanwhile."""
    psnr_late: float
    """The same if what came late, but not `OLD`, had been seen in time: what never came, or was of
    no use any more, makes others stand."""
    frames_a_second: float
    """Pictures that were shown within `OLD` of the moment at which they were taken."""
    freeze: float
    """The longest time for which one picture stood, in seconds."""
    gaps: float
    """The share of the time in which the ear had nothing to play, in percent."""
    mouth_to_ear: float
    """Milliseconds, median."""
    lens_to_eye: float
    """Milliseconds, median: from the moment at which a picture is taken until it is decoded."""

    @property
    def lip_sync(self) -> float:
        """By how much pictures come after the sound that belongs to them, in milliseconds."""
        return self.lens_to_eye - self.mouth_to_ear

    @property
    def out_of_sync(self) -> float:
        """The same, whichever is first."""
        return abs(self.lip_sync)


def judge(material: Material, sent: Sent, seen: Seen, start: float, end: float) -> Figures:
    """Return the figures of the time between ``start``, when both ends were connected, and ``end``.

    Of what never came the picture has 0 dB, and the delay is as long as the call.

    Raises:
        ValueError: something else was heard than what was said.
    """
    numbers = _numbers(seen)
    delays = [
        at - sent.pictures[number]
        for (at, _), number in zip(seen.pictures, numbers, strict=True)
        if 0 < number < len(sent.pictures)
    ]
    lens_to_eye = float(np.median(delays)) if delays else end - start
    due = [at + lens_to_eye + RESERVE for at in sent.pictures]
    shown = [at for at, _ in seen.pictures]
    old = [
        not 0 <= number < len(sent.pictures) or at - sent.pictures[number] > OLD
        for at, number in zip(shown, numbers, strict=True)
    ]
    # In the place of which picture on each one is on the screen.
    turns = [max(n, bisect_left(due, at)) for at, n in zip(shown, numbers, strict=True)]
    forgiven = [turn if aged else n for turn, n, aged in zip(turns, numbers, old, strict=True)]
    within = [start <= at <= end for at in shown]
    fresh = sum(one and not aged for one, aged in zip(within, old, strict=True))
    moments = [start, *(at for at in shown if start <= at <= end), end]
    delay, gaps = _hear(material, sent, seen, start, end)
    return Figures(
        psnr=_psnr(material, seen, list(accumulate(turns, max)), bisect_left(due, end)),
        psnr_late=_psnr(material, seen, forgiven, len(sent.pictures)),
        frames_a_second=fresh / (end - start),
        freeze=max(later - earlier for earlier, later in pairwise(moments)),
        gaps=100 * gaps / (end - start),
        mouth_to_ear=1000 * delay,
        lens_to_eye=1000 * lens_to_eye,
    )


def _numbers(seen: Seen) -> list[int]:
    """Return each picture's number: its strip's, or by the sender's clock from one with a strip.

    Who takes a picture that is older than the one before for one after 2^32 ticks is put right.
    """
    numbers, anchor = [], None
    known = {place: counter.read(luma) for place, luma in seen.kept.items()}
    first = next((place for place in sorted(known) if known[place] is not None), None)
    if first is None:
        return [0] * len(seen.pictures)
    for place, (_, sent) in enumerate(seen.pictures):
        if (number := known.get(place)) is not None:
            anchor = (number, sent)
        base, at = anchor or (known[first] or 0, seen.pictures[first][1])
        since = (sent - at + _WRAP / 2) % _WRAP - _WRAP / 2
        numbers.append(base + round(since * RATE))
    return numbers


def _psnr(material: Material, seen: Seen, turns: Sequence[int], count: int) -> float:
    """Return the mean PSNR; each picture is on the screen from its turn to the next one's."""
    total, weight = 0.0, 0
    order = sorted(range(len(turns)), key=turns.__getitem__)
    ends = [*(turns[place] for place in order), count][1:]
    for place, after in zip(order, ends, strict=True):
        turn = turns[place]
        luma, stood = seen.kept.get(place), after - turn
        if luma is None or stood < 1:
            continue
        wanted = {turn + round(lag) for lag in np.linspace(0, stood - 1, min(stood, MOMENTS))}
        # Those that did not stand long are a third of their kind; the others are all there.
        share = stood * (1 if stood > KEPT_EVERY else KEPT_EVERY)
        total += share * float(np.mean([_likeness(material, one, luma) for one in wanted]))
        weight += share
    return total / weight if weight else 0.0


def _likeness(material: Material, number: int, luma: Plane) -> float:
    """Return the PSNR of a picture against one that was sent."""
    right = material.picture(number)[: counter.HEIGHT].astype(np.float32)
    return float(10 * np.log10(_PEAK**2 / max(float(np.mean((right - luma) ** 2)), 1e-3)))


def _hear(
    material: Material, sent: Sent, seen: Seen, start: float, end: float
) -> tuple[float, float]:
    """Return the median delay from mouth to ear, and for how long there was nothing to play."""
    if len(seen.sounds) < LEAST:
        return end - start, end - start
    first, lag = _place(material.sound, seen)
    delays, gaps, free = [], 0.0, start
    for at, clock, samples in seen.sounds:
        play = max(at, free) if at >= start else at
        if play > end:
            break
        if play - at > RESERVE:
            gaps += FRAME if play >= start else 0.0
            continue
        if play >= start:
            gaps += play - free
            number = first + round(clock / FRAME)
            if 0 < number < len(sent.sounds):
                delays.append(play - (sent.sounds[number] - FRAME - lag))
        free = max(free, play + len(samples) / SAMPLE_RATE)
    return float(np.median(delays)) if delays else end - start, gaps + max(0.0, end - free)


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
