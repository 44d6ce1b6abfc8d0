"""Who may reach an account: policy and delivery tokens (spec/wire.md, Reaching somebody).

Only the relay's half of the rules: what it cannot see, such as audio or video, the callee's client
enforces. It never learns who sends.
"""

import hashlib
import hmac
from collections.abc import Iterable

from relay.wire.messages import Policy


def token_hash(token: bytes | None) -> bytes | None:
    """Return the form in which a delivery token is kept and compared: its SHA-256."""
    return None if token is None else hashlib.sha256(token).digest()


def admits(policy: Policy, accepted: Iterable[bytes], shown: bytes | None) -> bool:
    """Tell whether an account takes something from who shows a token with the hash ``shown``."""
    if policy is Policy.EVERYONE:
        return True
    found = False
    for candidate in accepted:
        # Every stored hash is compared, so that timing tells nothing about which one matched.
        found |= hmac.compare_digest(candidate, shown or b"")
    return found
