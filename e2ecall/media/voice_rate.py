"""At which rate sound is encoded, and how much of it is sent twice (spec/media.md, "Audio").

Sans-I/O. The network alone decides: what is said must not show in a size. What the setting means
for a frame is `e2ecall.protocol.sound`.
"""

from typing import Final, NamedTuple


class Setting(NamedTuple):
    """Bits a second of Opus, and how many packets before its own each frame brings along."""

    bit_rate: int
    copies: int

    @property
    def load(self) -> int:
        """Bits a second of all of it."""
        return self.bit_rate * (1 + self.copies)


NARROW: Final = Setting(24_000, 1)
LOSSY: Final = Setting(24_000, 2)
USUAL: Final = Setting(32_000, 1)
GOOD: Final = Setting(48_000, 1)
BEST: Final = Setting(64_000, 1)

HOLD: Final = 4.0
"""Seconds between changes, which show in the size of packets; less may be taken at once."""

_NARROW_RATE: Final = 250_000
_GOOD_RATE: Final = 1_300_000
_BEST_RATE: Final = 2_000_000
_MUCH_LOSS: Final = 0.08
_STILL_MUCH_LOSS: Final = 0.04
"""Where two copies are kept: a share that moves about one border must not change the size."""
_NARROW_MARGIN: Final = 1.3


class VoiceRate:
    """Keeps the setting; `choose` moves it."""

    def __init__(self) -> None:
        self.setting = USUAL
        self._changed_at = float("-inf")

    def choose(self, loss: float, path_rate: int | None, now: float) -> Setting:
        """Return the setting for a share of lost packets and for what pictures may take.

        ``path_rate`` is in bits a second, None where no picture tells of the path.
        """
        wanted = self._wanted(loss, path_rate)
        if wanted.load < self.setting.load or (
            wanted != self.setting and now - self._changed_at >= HOLD
        ):
            self.setting, self._changed_at = wanted, now
        return self.setting

    def _wanted(self, loss: float, path_rate: int | None) -> Setting:
        border = _STILL_MUCH_LOSS if self.setting == LOSSY else _MUCH_LOSS
        margin = _NARROW_MARGIN if self.setting == NARROW else 1.0
        if path_rate is not None and path_rate < _NARROW_RATE * margin:
            return NARROW
        if loss > border:
            return LOSSY
        if path_rate is None or path_rate < _GOOD_RATE:
            return USUAL
        return GOOD if path_rate < _BEST_RATE else BEST
