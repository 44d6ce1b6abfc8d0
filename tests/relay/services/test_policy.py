"""Who may reach an account (spec/wire.md, Reaching somebody)."""

import hashlib

import pytest

from relay.services.policy import admits, token_hash
from relay.wire.messages import Policy

TOKEN = bytes(range(16))
STORED = [hashlib.sha256(b"other").digest(), hashlib.sha256(TOKEN).digest()]


@pytest.mark.parametrize("token", [None, TOKEN, bytes(16)])
def test_everyone(token):
    """With EVERYONE no token is needed."""
    assert admits(Policy.EVERYONE, [], token_hash(token))


def test_contacts():
    """WIRE-21: with CONTACTS exactly the tokens whose hashes are stored are admitted."""
    assert admits(Policy.CONTACTS, STORED, token_hash(TOKEN))
    assert not admits(Policy.CONTACTS, STORED, token_hash(bytes(16)))
    assert not admits(Policy.CONTACTS, STORED, None)
    assert not admits(Policy.CONTACTS, [], token_hash(TOKEN))
