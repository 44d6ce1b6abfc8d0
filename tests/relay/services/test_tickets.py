"""Media tickets (spec/ticket-ids.md)."""

import base64
import hashlib
import hmac
import os
import string

import pytest

from relay.errors import TicketError
from relay.services import tickets
from relay.services.tickets import Identity, Side, issue, issue_for, open_id, password
from relay.wire.turn_servers import host_of, urls_for

NOW = 1_800_000_007.5
SECRET = b"a secret of the relay"


def test_opens_what_was_issued():
    """TICKET-01: a username stands for its ticket, side and expiry."""
    ticket_id = os.urandom(16)
    a, b = issue(SECRET, NOW, 3600, ticket_id)
    expires = tickets.expires_at(a)
    assert open_id(SECRET, a.username, NOW) == Identity(ticket_id, Side.A, expires)
    assert open_id(SECRET, b.username, NOW) == Identity(ticket_id, Side.B, expires)


def test_is_deterministic():
    """The same ticket gives the same usernames, so that vectors can be made."""
    assert issue(SECRET, NOW, 60, bytes(16)) == issue(SECRET, NOW, 60, bytes(16))


def test_username_form():
    """TICKET-02: ``<expiry>:<id>``, the id being 44 characters of the URL-safe alphabet."""
    a, _ = issue(SECRET, NOW, 60, os.urandom(16))
    expiry, _, sealed = a.username.partition(":")
    assert expiry.isdigit()
    assert len(sealed) == 44
    assert set(sealed) <= set(string.ascii_letters + string.digits + "-_")


def test_password_is_the_usual_one():
    """TICKET-03: any TURN server with a shared secret computes the same password."""
    a, _ = issue(SECRET, NOW, 60, os.urandom(16))
    expected = hmac.new(SECRET, a.username.encode(), hashlib.sha1).digest()
    assert a.password == password(SECRET, a.username) == base64.b64encode(expected).decode()


def test_sides_share_nothing_that_shows():
    """TICKET-04: without the secret, the two usernames of a ticket do not look related."""
    a, b = (c.username.partition(":")[2] for c in issue(SECRET, NOW, 60, bytes(16)))
    same = sum(x == y for x, y in zip(a, b, strict=True))
    assert same < 10


def test_expiry_is_rounded_up():
    """TICKET-05: tickets of the same minute have the same expiry."""
    a, _ = issue(SECRET, NOW, 61, bytes(16))
    b, _ = issue(SECRET, NOW + 1, 61, bytes(range(16)))
    assert tickets.expires_at(a) == tickets.expires_at(b)
    assert NOW + 61 <= tickets.expires_at(a) < NOW + 61 + 60


def test_ends():
    """TICKET-06: at its expiry a username stands for nobody."""
    a, _ = issue(SECRET, NOW, 60, bytes(16))
    open_id(SECRET, a.username, tickets.expires_at(a) - 1)
    with pytest.raises(TicketError):
        open_id(SECRET, a.username, tickets.expires_at(a))


def test_not_valid_for_years():
    """TICKET-06: a username that would hold longer than a day is refused."""
    a, _ = issue(SECRET, NOW, tickets.MAX_LIFETIME, bytes(16))
    open_id(SECRET, a.username, NOW)
    with pytest.raises(TicketError):
        open_id(SECRET, a.username, NOW - 86_400)


@pytest.mark.parametrize("position", range(55))
def test_every_character_counts(position):
    """T3: a username with any character changed is refused."""
    a, _ = issue(SECRET, NOW, 3600, bytes(range(16)))
    other = "1" if a.username[position] != "1" else "2"
    changed = a.username[:position] + other + a.username[position + 1 :]
    with pytest.raises(TicketError):
        open_id(SECRET, changed, NOW)


@pytest.mark.parametrize(
    "username",
    ["", ":", "1800003600:", "0:" + "A" * 44, "1800003600:" + "+" * 44, "x" * 500, "1:\ud800"],
)
def test_garbage(username):
    """T3: what has another form is refused."""
    with pytest.raises(TicketError):
        open_id(SECRET, username, NOW)


def test_foreign_secret():
    """T3: another relay's username is refused."""
    a, _ = issue(b"another secret", NOW, 60, bytes(16))
    with pytest.raises(TicketError):
        open_id(SECRET, a.username, NOW)


@pytest.mark.parametrize(("ttl", "size"), [(0, 16), (86_401, 16), (60, 15), (60, 17)])
def test_refuses_to_issue(ttl, size):
    """A ticket id has 16 bytes, a lifetime at most a day."""
    with pytest.raises(ValueError, match="ticket"):
        issue(SECRET, NOW, ttl, bytes(size))


def issued_for(urls, own_host):
    return issue_for(
        SECRET, NOW, 60, urls=urls, own_host=own_host, random_id=lambda: os.urandom(16)
    )


@pytest.mark.parametrize("servers", [1, 2, 3, 8])
def test_both_sides_at_one_server(servers):
    """TICKET-07: both usernames name one server: the own one where there is one, else any."""
    urls = [f"turn:host{number}.example:3478" for number in range(servers)]
    for url in urls:
        a, b = issued_for(urls, host_of(url))
        assert urls_for(urls, a.username) == urls_for(urls, b.username) == (url,)
    seen = set()
    for _ in range(40 * servers):
        a, b = issued_for(urls, "")
        assert urls_for(urls, a.username) == urls_for(urls, b.username)
        seen.add(urls_for(urls, a.username))
    assert len(seen) == servers


def test_a_server_that_is_not_there():
    """A host that is none of the servers is refused, not searched for ever."""
    with pytest.raises(ValueError, match="none of the servers"):
        issued_for(["turn:a.example"], "b.example")
