"""Sizes and lifetimes of the signalling protocol (spec/wire.md), shared by relay and client.

Says what is allowed; it enforces nothing.
"""

from typing import Final

MAX_FRAME: Final = 65_536
"""Bytes of one WebSocket message: a largest envelope (32 KiB class) and a prekey batch both fit."""

MAX_ENVELOPE: Final = 40_000
"""Bytes of one envelope: the 32 KiB padding class, HPKE and framing."""

MAX_PREKEY_BATCH: Final = 49_152
"""Bytes of one PublishPrekeys request, below MAX_FRAME with room for framing."""

MAX_DEVICES: Final = 8
MAX_DEVICE_ID: Final = 0xFFFF
"""Device ids are never reused; 65 535 enrolments outlast an account."""

MAX_KEY_ID: Final = 0xFFFF_FFFF
MAX_MESSAGE_TEXT: Final = 512
"""Characters of a human-readable error text."""

CHALLENGE_BYTES: Final = 32
MESSAGE_ID_BYTES: Final = 16
TOKEN_BYTES: Final = 16
CODE_BYTES: Final = 16
MAX_INVITATIONS: Final = 32
"""Invitations of one account that are open at a time."""
MAX_TOKENS: Final = 1_024
"""Delivery-token hashes of one account: two each of 512 contacts."""
BOX_BYTES: Final = 32

MAX_BUNDLE_FIELDS: Final = 128
"""Entries of any array on the wire; the widest is a prekey batch."""
