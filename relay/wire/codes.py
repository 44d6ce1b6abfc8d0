"""Registration codes (spec/wire.md, Accounts): 16 random bytes, and how people write them.

Which codes are good is the relay's business, `relay.io.storage`.
"""

import base64
import binascii
import hashlib
from typing import Final

from relay.wire.errors import WireError
from relay.wire.limits import CODE_BYTES

_GROUP: Final = 5
_CHARACTERS: Final = 26
_PADDING: Final = "======"


def write_code(code: bytes) -> str:
    """Return a code as people pass it on: 26 letters and digits in groups of five."""
    text = base64.b32encode(code).decode("ascii").rstrip("=").lower()
    return "-".join(text[n : n + _GROUP] for n in range(0, len(text), _GROUP))


def read_code(text: str) -> bytes:
    """Read a code, however its letters are grouped, in whatever case.

    Raises:
        WireError: it is none.
    """
    plain = "".join(text.replace("-", " ").split()).upper()
    try:
        code = base64.b32decode(plain + _PADDING) if plain.isascii() else b""
    except binascii.Error as error:
        raise WireError("this is no registration code") from error
    if len(plain) != _CHARACTERS or len(code) != CODE_BYTES or _plain(code) != plain:
        raise WireError("this is no registration code")
    return code


def _plain(code: bytes) -> str:
    """Return the one spelling without groups."""
    return write_code(code).replace("-", "").upper()


def code_hash(code: bytes) -> bytes:
    """Return the form in which the relay keeps a code: its SHA-256."""
    return hashlib.sha256(code).digest()
