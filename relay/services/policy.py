"""Who may reach an account: policy and delivery tokens (spec/wire.md, Reaching somebody).

Only the relay's half of the rules: what it cannot see, such as audio or video, the callee's client
enforces. It never learns who sends.
"""

import hashlib

from relay.wire.messages import Policy


def token_hash(token: bytes | None) -> bytes | None:
    """Return the form in which a delivery token is kept and compared: its SHA-256.

    Tokens are looked up by it. How long a look-up takes may depend on the hash, of which nobody can
    choose a part without knowing the whole token.
    """
    return None if token is None else hashlib.sha256(token).digest()


def admits(policy: Policy | None, *, knows_token: bool) -> bool:
    """Tell whether an account takes something; None is the policy of one that does not exist."""
    match policy:
        case Policy.EVERYONE:
            return True
        case Policy.CONTACTS:
            return knows_token
        case Policy.NOBODY | None:
            return False
