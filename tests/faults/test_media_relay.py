"""The media relay dies and comes back, or will not serve: what a client sees (spec/turn.md)."""

import contextlib
import os
import secrets
import signal
import sys
import time

import pytest

from tests.bench.media.clients import Clients, RefusedError, open_socket
from tests.bench.media.servers import our_relay

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux has all of 127.0.0.0/8 as its own"
)

PAIRS = 100
RECOVERY = 10.0
UNAUTHENTICATED, FORBIDDEN, MISMATCH, QUOTA = 401, 403, 437, 486


@pytest.fixture
def clients():
    """Return a maker of clients of a server; their sockets are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda address: Clients(stack.enter_context(open_socket()), address)


@pytest.fixture
def relay():
    with our_relay(None) as server:
        yield server


def refusal(function, *arguments):
    """Return the code with which the server refuses."""
    with pytest.raises(RefusedError) as caught:
        function(*arguments)
    return caught.value.code


def connected(clients, tickets):
    """Return clients for the tickets that have passed data both ways."""
    added = clients.add(tickets)
    clients.allocate(added)
    clients.bind(added)
    clients.exchange(added)
    return added


def test_restart(clients):
    """Killed and started again under 100 pairs: a client with the same ticket at the same address
    learns by 437 that its allocation is gone, and within 10 s of the kill all have allocated,
    bound and passed data in both directions again.
    """
    secret = secrets.token_hex(32)
    with our_relay(None, secret=secret) as relay:
        several = clients(relay.address)
        pairs = connected(several, relay.tickets(PAIRS))
        before = {client.relayed for client in pairs}
        killed = time.monotonic()
        os.kill(relay.pids[0], signal.SIGKILL)
        with pytest.raises(TimeoutError):
            while time.monotonic() - killed < RECOVERY:  # the workers end a moment later
                several.exchange(pairs, within=0.5)
    listen = "{}:{}".format(*relay.address)
    with our_relay(None, listen=listen, secret=secret):
        assert refusal(several.bind, pairs[:1]) == MISMATCH
        several.allocate(pairs)
        several.bind(pairs)
        several.exchange(pairs)
        assert time.monotonic() - killed < RECOVERY
        assert before.isdisjoint(client.relayed for client in pairs)


def test_ticket_of_another_relay(relay, clients):
    """A ticket of a relay with another secret is answered 401, also with a nonce; whoever has a
    ticket of this one is served.
    """
    with our_relay(None) as other:
        foreign = other.tickets(1)
    several = clients(relay.address)
    strangers = several.add(foreign)
    assert refusal(several.allocate, strangers) == UNAUTHENTICATED
    connected(several, relay.tickets(1))


def test_used_up_quota(relay, clients):
    """T6: the third allocation of a side is 486; the two that exist, the other side and other
    tickets go on, and what one releases can be had again.
    """
    several = clients(relay.address)
    tickets = relay.tickets(2)
    pair = connected(several, tickets[:1])
    second, _ = several.add(tickets[:1])
    several.allocate([second])
    third, _ = several.add(tickets[:1])
    assert refusal(several.allocate, [third]) == QUOTA
    several.exchange(pair)
    connected(several, tickets[1:])
    several.release([second])
    several.allocate([third])


def test_other_side_never_comes(relay, clients):
    """An allocation whose peer has none stands alone: a channel to it is 403 whatever address is
    named, what is sent on one is dropped, and it can be released.
    """
    several = clients(relay.address)
    alone, absent = several.add(relay.tickets(1))
    others = connected(several, relay.tickets(1))
    several.allocate([alone])
    for address in (("198.18.0.1", 50_000), ("127.0.0.1", 9), others[0].relayed):
        absent.relayed = address
        assert refusal(several.bind, [alone]) == FORBIDDEN
    with pytest.raises(TimeoutError):
        several.exchange([alone], within=0.5)
    several.exchange(others)
    several.release([alone])
