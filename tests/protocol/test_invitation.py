"""The links of invitations (spec/reach.md)."""

import pytest

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.invitation import InvitationLink
from relay.wire.names import Address

LINK = InvitationLink(Address("alice", "relay.example:4567"), bytes(16), 1_800_000_000, bytes(64))


def test_round_trip():
    """REACH-08: a link reads as what it was made of, also with spaces around it."""
    assert InvitationLink.decode(f" {LINK.encode()}\n") == LINK


@pytest.mark.parametrize("count", range(len(LINK.encode())))
def test_every_prefix_is_refused(count):
    """REACH-08, M1: what was not copied to its end is no link."""
    with pytest.raises(LocalProtocolError, match="no invitation"):
        InvitationLink.decode(LINK.encode()[:count])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("alice", "Alice"),
        ("x=1", "x=999999"),
        ("t=AAAAAAAAAAAAAAAAAAAAAA", "t=AAAAAAAAAAAAAAAAAAAAAB"),
        ("relay.", "relay_"),
    ],
)
def test_other_spellings(old, new):
    """REACH-08: a link is refused where its address, a number or unused bits are not canonical."""
    text = LINK.encode().replace(old, new)
    assert text != LINK.encode()
    with pytest.raises(LocalProtocolError, match="no invitation"):
        InvitationLink.decode(text)


def test_the_token_is_not_shown():
    """S4: a token does not come out in a repr."""
    assert "token" not in repr(LINK)
