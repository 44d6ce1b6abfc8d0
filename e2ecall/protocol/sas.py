"""What people compare (spec/sas.md): the spoken code of a call and identity fingerprints.

How a value is shown, not where it comes from: the 24 bits are derived in
`e2ecall.protocol.callkeys`. It remembers nothing about what was confirmed.
"""

from dataclasses import dataclass
from typing import Final

from e2ecall.crypto.kdf import labelled_hash
from e2ecall.errors import LocalProtocolError

SAS_BITS: Final = 24
"""One guess succeeds with 2^-24, and the commitment leaves an attacker one guess a call."""

_SYMBOL_BITS: Final = 6
_FINGERPRINT_GROUPS: Final = 12
_GROUP_BYTES: Final = 5

# The 64 emoji and their English names are those of the Matrix specification's
# data-definitions/sas-emoji.json (Apache-2.0): chosen there to be told apart on any screen,
# and already known to people who verify devices.
EMOJI: Final[tuple[tuple[str, str], ...]] = (
    ("🐶", "Dog"),
    ("🐱", "Cat"),
    ("🦁", "Lion"),
    ("🐎", "Horse"),
    ("🦄", "Unicorn"),
    ("🐷", "Pig"),
    ("🐘", "Elephant"),
    ("🐰", "Rabbit"),
    ("🐼", "Panda"),
    ("🐓", "Rooster"),
    ("🐧", "Penguin"),
    ("🐢", "Turtle"),
    ("🐟", "Fish"),
    ("🐙", "Octopus"),
    ("🦋", "Butterfly"),
    ("🌷", "Flower"),
    ("🌳", "Tree"),
    ("🌵", "Cactus"),
    ("🍄", "Mushroom"),
    ("🌏", "Globe"),
    ("🌙", "Moon"),
    ("☁️", "Cloud"),
    ("🔥", "Fire"),
    ("🍌", "Banana"),
    ("🍎", "Apple"),
    ("🍓", "Strawberry"),
    ("🌽", "Corn"),
    ("🍕", "Pizza"),
    ("🎂", "Cake"),
    ("❤️", "Heart"),
    ("😀", "Smiley"),
    ("🤖", "Robot"),
    ("🎩", "Hat"),
    ("👓", "Glasses"),
    ("🔧", "Spanner"),
    ("🎅", "Santa"),
    ("👍", "Thumbs Up"),
    ("☂️", "Umbrella"),
    ("⌛", "Hourglass"),
    ("⏰", "Clock"),
    ("🎁", "Gift"),
    ("💡", "Light Bulb"),
    ("📕", "Book"),
    ("✏️", "Pencil"),
    ("📎", "Paperclip"),
    ("✂️", "Scissors"),
    ("🔒", "Lock"),
    ("🔑", "Key"),
    ("🔨", "Hammer"),
    ("☎️", "Telephone"),
    ("🏁", "Flag"),
    ("🚂", "Train"),
    ("🚲", "Bicycle"),
    ("✈️", "Aeroplane"),
    ("🚀", "Rocket"),
    ("🏆", "Trophy"),
    ("⚽", "Ball"),
    ("🎸", "Guitar"),
    ("🎺", "Trumpet"),
    ("🔔", "Bell"),
    ("⚓", "Anchor"),
    ("🎧", "Headphones"),
    ("📁", "Folder"),
    ("📌", "Pin"),
)


@dataclass(frozen=True, slots=True)
class SAS:
    """The short authentication string of one call: 24 bits, shown in two ways.

    Both people see the same, or somebody is between them.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 0 <= self.bits < 1 << SAS_BITS:
            raise LocalProtocolError(f"a spoken code has {SAS_BITS} bits")

    @property
    def emoji(self) -> tuple[tuple[str, str], ...]:
        """Four pairs of emoji and name, most significant bits first (SAS-01)."""
        shifts = range(SAS_BITS - _SYMBOL_BITS, -1, -_SYMBOL_BITS)
        return tuple(EMOJI[self.bits >> shift & (1 << _SYMBOL_BITS) - 1] for shift in shifts)

    @property
    def digits(self) -> str:
        """The same bits as eight decimal digits, zero-padded (SAS-02)."""
        return f"{self.bits:08d}"

    def __str__(self) -> str:
        return " ".join(emoji for emoji, _ in self.emoji)


def identity_fingerprint(address: str, identity_key: bytes) -> str:
    """Return 60 digits, in twelve groups of five, that name one identity (SAS-03).

    Group i is bytes 5i to 5i+4 of H("identity fingerprint", address, identity key), big-endian,
    modulo 100 000.
    """
    digest = labelled_hash("identity fingerprint", address.encode(), identity_key)
    groups = (
        int.from_bytes(digest[i * _GROUP_BYTES : (i + 1) * _GROUP_BYTES]) % 100_000
        for i in range(_FINGERPRINT_GROUPS)
    )
    return " ".join(f"{group:05d}" for group in groups)
