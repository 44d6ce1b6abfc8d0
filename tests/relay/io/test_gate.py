"""Who may begin a handshake, by the addresses that connect (spec/wire.md, Limits)."""

from relay.io.listener import Gate, Share
from relay.services.source import SITE

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


def test_addresses_of_ipv4():
    """WIRE-46: an address of IPv4 has its share and no part in its neighbours'."""
    gate = Gate(lambda _peer: Share(1_000, PER_MINUTE), lambda: 0.0)
    assert [gate.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert all(gate.enter(f"192.0.2.{number}") for number in range(2, 200))
