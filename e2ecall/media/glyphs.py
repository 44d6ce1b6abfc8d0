"""A five by seven bitmap font for pictures that carry their own labels.

Capitals, digits and a few signs as masks; it draws nothing by itself.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

WIDTH: Final = 5
HEIGHT: Final = 7
ADVANCE: Final = WIDTH + 1

# Seven rows a glyph, top first; the five low bits of each byte, leftmost pixel highest.
_ROWS: Final[dict[str, str]] = {
    "A": "0E11111F111111",
    "B": "1E11111E11111E",
    "C": "0E11101010110E",
    "D": "1E11111111111E",
    "E": "1F10101E10101F",
    "F": "1F10101E101010",
    "G": "0E11101711110F",
    "H": "1111111F111111",
    "I": "0E04040404040E",
    "J": "0702020202120C",
    "K": "11121418141211",
    "L": "1010101010101F",
    "M": "111B1515111111",
    "N": "11191513111111",
    "O": "0E11111111110E",
    "P": "1E11111E101010",
    "Q": "0E11111115120D",
    "R": "1E11111E141211",
    "S": "0F10100E01011E",
    "T": "1F040404040404",
    "U": "1111111111110E",
    "V": "11111111110A04",
    "W": "11111115151B11",
    "X": "11110A040A1111",
    "Y": "11110A04040404",
    "Z": "1F01020408101F",
    "0": "0E11131519110E",
    "1": "040C040404040E",
    "2": "0E11010608101F",
    "3": "1F02040201110E",
    "4": "02060A121F0202",
    "5": "1F101E0101110E",
    "6": "0608101E11110E",
    "7": "1F010204080808",
    "8": "0E11110E11110E",
    "9": "0E11110F01020C",
    " ": "00000000000000",
    ".": "00000000000C0C",
    ",": "000000000C0408",
    ":": "000C0C000C0C00",
    "-": "0000001F000000",
    "+": "0004041F040400",
    "/": "00010204081000",
    "%": "18190204081303",
    "#": "0A0A1F0A1F0A0A",
    "=": "00001F001F0000",
    "(": "02040808080402",
    ")": "08040202020408",
    "_": "0000000000001F",
}


def text_mask(text: str, scale: int = 1) -> Mask:
    """Return ``text`` as a mask of ``7 * scale`` rows; lower case is drawn as capitals.

    A character that the font lacks is drawn as a blank.
    """
    mask = np.zeros((HEIGHT, max(len(text) * ADVANCE - 1, 1)), np.bool_)
    for place, character in enumerate(text.upper()):
        rows = np.frombuffer(bytes.fromhex(_ROWS.get(character, _ROWS[" "])), np.uint8)
        pixels = np.unpackbits(rows[:, None], axis=1)[:, 8 - WIDTH :]
        mask[:, place * ADVANCE : place * ADVANCE + WIDTH] = pixels
    return mask.repeat(scale, axis=0).repeat(scale, axis=1)
