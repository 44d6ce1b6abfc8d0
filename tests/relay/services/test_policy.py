"""Who may reach an account (spec/wire.md, Reaching somebody)."""

import hashlib

import pytest

from relay.services.policy import admits, token_hash
from relay.wire.messages import Policy


@pytest.mark.parametrize(
    ("policy", "without", "with_token"),
    [
        (Policy.EVERYONE, True, True),
        (Policy.CONTACTS, False, True),
        (Policy.NOBODY, False, False),
        (None, False, False),
    ],
)
def test_policies(policy, without, with_token):
    """WIRE-21: contacts needs a token, everyone none, and nobody admits no token either."""
    assert admits(policy, knows_token=False) is without
    assert admits(policy, knows_token=True) is with_token


def test_token_hash():
    """WIRE-21: a token is kept as its SHA-256."""
    assert token_hash(bytes(16)) == hashlib.sha256(bytes(16)).digest()
    assert token_hash(None) is None
