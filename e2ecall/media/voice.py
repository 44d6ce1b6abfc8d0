"""A speech-like sound that never repeats: syllables of vowels and hisses, from a seed alone.

Pitch glides, formants move, phrases pause, as in speech, and two seeds sound unrelated; there are
no words in it. It produces numpy arrays; frames of a codec library are `generated`'s business.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

RATE: Final = 48_000
"""Samples a second, mono."""

Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.int16]

_PEAK: Final = 11_000.0
_HIGHEST_HARMONIC: Final = 5_200.0
_HISS_SHARE: Final = 0.6
"""How many syllables begin with a hiss."""

# First three formants of seven vowels, Hz (Peterson and Barney 1952, averages of men).
_VOWELS: Final = (
    (730.0, 1090.0, 2440.0),
    (530.0, 1840.0, 2480.0),
    (270.0, 2290.0, 3010.0),
    (570.0, 840.0, 2410.0),
    (300.0, 870.0, 2240.0),
    (660.0, 1720.0, 2410.0),
    (490.0, 1350.0, 1690.0),
)
_FORMANT_WIDTHS: Final = (70.0, 110.0, 160.0)
_FORMANT_LEVELS: Final = (1.0, 0.55, 0.25)


class Voice:
    """The voice of one seed; any stretch of it can be asked for, in any order.

    Memory grows with the latest sample asked for: 2 bytes each.
    """

    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng([seed, 0x701CE])
        self._pitch = self._draw.uniform(100.0, 210.0)
        self._tract = self._draw.uniform(0.9, 1.15)
        self._vowel = _VOWELS[0]
        self._left_in_phrase = 0
        self._parts: list[Samples] = []
        self._ready = np.zeros(0, np.int16)
        self._length = 0

    def samples(self, start: int, count: int) -> Samples:
        """Return ``count`` samples from sample number ``start`` on."""
        while self._length < start + count:
            self._append(self._phrase_pause() if self._left_in_phrase == 0 else self._syllable())
        if self._parts:
            self._ready = np.concatenate([self._ready, *self._parts])
            self._parts.clear()
        return self._ready[start : start + count]

    def _append(self, sound: Array) -> None:
        self._parts.append(np.rint(np.clip(sound, -2.5, 2.5) * _PEAK).astype(np.int16))
        self._length += len(sound)

    def _phrase_pause(self) -> Array:
        self._left_in_phrase = int(self._draw.integers(4, 9))
        return np.zeros(self._duration(0.12, 0.45))

    def _syllable(self) -> Array:
        self._left_in_phrase -= 1
        parts = [self._vowel_sound()]
        if self._draw.random() < _HISS_SHARE:
            parts.insert(0, self._hiss())
        parts.append(np.zeros(self._duration(0.01, 0.07)))
        return np.concatenate(parts)

    def _vowel_sound(self) -> Array:
        """Sum the harmonics of a gliding pitch under formants that move to the next vowel."""
        count = self._duration(0.10, 0.26)
        course = np.linspace(0.0, 1.0, count)
        first, last = self._pitch * self._draw.uniform(0.85, 1.3, 2)
        pitch = first + (last - first) * course + self._draw.uniform(1, 5) * np.sin(course * 9.0)
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        before, self._vowel = self._vowel, _VOWELS[int(self._draw.integers(len(_VOWELS)))]
        numbers = np.arange(1.0, _HIGHEST_HARMONIC // max(first, last))
        gains = [self._gain(numbers * (first + last) / 2, vowel) for vowel in (before, self._vowel)]
        moved = np.clip(course * 1.8, 0.0, 1.0)
        sound = np.zeros(count)
        for number, start, end in zip(numbers, *gains, strict=True):
            sound += (start + (end - start) * moved) * np.sin(number * phase)
        sound += 0.02 * self._draw.standard_normal(count)
        return _shaped(sound, self._draw.uniform(0.45, 1.0), attack=0.02, release=0.05)

    def _gain(self, frequency: Array, vowel: tuple[float, ...]) -> Array:
        """Return the tract's gain at each harmonic, over a source that falls by 6 dB an octave."""
        gain = np.full_like(frequency, 0.01)
        for formant, width, level in zip(vowel, _FORMANT_WIDTHS, _FORMANT_LEVELS, strict=True):
            gain += level / (1.0 + ((frequency - formant * self._tract) / width) ** 2)
        return gain * (frequency / 200.0) ** -0.5

    def _hiss(self) -> Array:
        """Return band-shaped noise, as of s, sh and f."""
        count = self._duration(0.05, 0.12)
        spectrum = np.fft.rfft(self._draw.standard_normal(count))
        frequency = np.fft.rfftfreq(count, 1 / RATE)
        centre, width = self._draw.uniform(2_200.0, 6_500.0), self._draw.uniform(600.0, 1_500.0)
        sound = np.fft.irfft(spectrum * np.exp(-(((frequency - centre) / width) ** 2)), count)
        return _shaped(sound, self._draw.uniform(0.12, 0.35), attack=0.02, release=0.02)

    def _duration(self, shortest: float, longest: float) -> int:
        """Draw a length in samples between two lengths in seconds."""
        return int(self._draw.uniform(shortest, longest) * RATE)


def _shaped(sound: Array, level: float, *, attack: float, release: float) -> Array:
    """Scale a sound to a peak of ``level`` and give it raised-cosine edges (seconds)."""
    shaped = sound * (level / float(np.abs(sound).max()))
    rise, fall = int(attack * RATE), int(release * RATE)
    shaped[:rise] *= 0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, rise))
    shaped[-fall:] *= 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, fall))
    return shaped
