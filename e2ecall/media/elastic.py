"""Sound between two clocks: a buffer that gives a little less or more than it takes.

spec/media.md, "Devices". Sans-I/O, and not safe for threads: whoever shares it has a lock. The
clock of a sound device and that of the machine differ by some hundred millionths, so that a block
of 20 ms is too many, or missing, every minute or two. Here a block is made of one sample more or
less instead, which nobody hears.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

WINDOW: Final = 50
"""Blocks after which the level is looked at: a second. Its least counts, as sound comes in bursts
and what was always left over is what is too much."""

STEP: Final = 1
"""Samples by which a block is longer or shorter: of 960, a thousand millionths, a fiftieth of a
semitone."""


class ElasticBuffer:
    """Samples of shape (n, channels), put in and taken out at rates that are almost the same."""

    def __init__(self, channels: int, *, low: int, high: int, most: int) -> None:
        """Aim at ``low`` to ``high`` samples that are always left over; keep ``most`` at most."""
        self._low, self._high, self._most = low, high, most
        self._samples: Samples = np.zeros((0, channels), np.int16)
        self._left: list[int] = []
        self._step = 0
        self.dropped = 0
        """Samples that were dropped so far."""

    def __len__(self) -> int:
        """Return how many samples wait."""
        return len(self._samples)

    def put(self, samples: Samples) -> None:
        """Add samples, of shape (n, channels)."""
        joined = np.concatenate((self._samples, samples))
        excess = max(len(joined) - self._most, 0)
        self.dropped += excess
        self._samples = joined[excess:]

    def ready(self, count: int) -> bool:
        """Return whether so many samples can be taken."""
        return len(self._samples) >= count + self._step

    def take(self, count: int) -> Samples | None:
        """Return so many samples, or None if that many are not there."""
        if not self.ready(count):
            self._look(0)
            return None
        used = count + self._step
        taken, self._samples = self._samples[:used], self._samples[used:]
        self._look(len(self._samples))
        return taken if used == count else _of_length(taken, count)

    def _look(self, left: int) -> None:
        """Decide about the next blocks by what was left over after the last ones."""
        self._left.append(left)
        if len(self._left) >= WINDOW:
            least, self._left = min(self._left), []
            self._step = STEP if least > self._high else -STEP if least < self._low else 0


def _of_length(samples: Samples, count: int) -> Samples:
    """Return the same sound in another number of samples, by straight lines between them."""
    places = np.arange(count) * (len(samples) / count)
    columns = [np.interp(places, np.arange(len(samples)), one) for one in samples.T]
    return np.stack(columns, axis=1).round().astype(np.int16)
