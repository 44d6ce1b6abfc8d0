"""Who may begin a handshake, by the addresses that connect (spec/wire.md, Limits)."""

from types import SimpleNamespace

import pytest
import trio

from relay.config import LimitsSection
from relay.io.listener import Gate, Share
from relay.io.signalling import Signalling
from relay.services.source import SITE
from tests.relay.io.remembered import tables_with

PER_MINUTE = 2


def test_networks_within_a_site():
    """WIRE-46, WIRE-52: whoever has all networks of a /48 begins no more handshakes a minute than
    sixteen sources; another /48 is none of that, and a minute later there is room again.
    """
    now = 0.0
    gate = Gate(lambda _peer: Share(1_000, PER_MINUTE), lambda: now)
    passed = sum(gate.enter(f"2001:db8:0:{number:x}::1") for number in range(100))
    assert passed == SITE * PER_MINUTE
    assert gate.turned_away == 100 - passed
    assert gate.enter("2001:db8:1::1")
    now = 60.0
    assert gate.enter("2001:db8:0:64::1")


@pytest.mark.trio
async def test_who_came_is_forgotten(autojump_clock, nursery):
    """WIRE-62: a minute later a relay that runs knows of no address that came to its gate."""
    node = SimpleNamespace(per_address=True, trusted_proxies=(), limits=LimitsSection())
    signalling = Signalling(node)
    signalling.start(nursery, [], certificates=None, origins=())
    for _ in range(node.limits.handshakes_per_address_and_minute):
        assert signalling.gate.enter("2001:db8:5eed::1")
        signalling.gate.leave("2001:db8:5eed::1")
    await trio.sleep(30)
    assert tables_with("2001:db8:5eed:")
    await trio.sleep(60)
    assert not tables_with("2001:db8:5eed:")
    nursery.cancel_scope.cancel()


def test_addresses_of_ipv4():
    """WIRE-46: an address of IPv4 has its share and no part in its neighbours'."""
    gate = Gate(lambda _peer: Share(1_000, PER_MINUTE), lambda: 0.0)
    assert [gate.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert all(gate.enter(f"192.0.2.{number}") for number in range(2, 200))
