"""Who connects, and what proxies say of it (spec/wire.md, Limits)."""

from ipaddress import ip_network

import pytest

from relay.services.source import ForwardedError, Tally, client_address, site_key, source_key

TRUSTED = [ip_network("10.0.0.0/24"), ip_network("127.0.0.1"), ip_network("2001:db8:1::/64")]
XFF = "x-forwarded-for"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_source_key(address, key):
    """W1: one source is an IPv4 address, also a mapped one, or a /64 of IPv6."""
    assert source_key(address) == key


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        ("10.0.1.1", ["198.51.100.1"], "10.0.1.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1, 10.0.0.2, 127.0.0.1"], "198.51.100.1"),
        ("10.0.0.1", ["garbage, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("2001:db8:1::5", ["2001:db8::1"], "2001:db8::1"),
    ],
)
def test_x_forwarded_for(peer, values, client):
    """WIRE-43, W7: only what trusted proxies wrote counts, read from the right."""
    assert client_address(peer, XFF, values, TRUSTED) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=198.51.100.1", "198.51.100.1"),
        ("For=198.51.100.1;proto=https", "198.51.100.1"),
        ('proto=https; for="[2001:db8::1]:4711" ;by=10.0.0.1', "2001:db8::1"),
        ("for=203.0.113.9, for=198.51.100.1", "198.51.100.1"),
        ("for=203.0.113.9, for=198.51.100.1;host=x, for=10.0.0.2", "198.51.100.1"),
        ('for=198.51.100.1;host="a;for=203.0.113.9;b"', "198.51.100.1"),
        ('for=198.51.100.1;host="a\\",for=203.0.113.9"', "198.51.100.1"),
    ],
)
def test_forwarded(value, client):
    """WIRE-43, W7: of Forwarded only the parameter `for` of the last unknown hop counts."""
    assert client_address("10.0.0.1", "forwarded", [value], TRUSTED) == client


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (XFF, ""),
        (XFF, "unknown"),
        (XFF, "198.51.100.1,"),
        (XFF, "198.51.100.1.5"),
        (XFF, "198.51.100.1 10.0.0.2"),
        ("forwarded", ""),
        ("forwarded", "proto=https"),
        ("forwarded", "for=unknown"),
        ("forwarded", "for=_hidden"),
        ("forwarded", "for=198.51.100.1;for=203.0.113.9"),
        ("forwarded", 'for="203.0.113.9, for=198.51.100.1'),
        ("forwarded", "for=203.0.113.9 for=198.51.100.1"),
        ("forwarded", "for=198.51.100.1, proto=https"),
    ],
)
def test_not_understood(header, value):
    """WIRE-43: what a trusted proxy wrote and nobody can read is refused, not guessed."""
    with pytest.raises(ForwardedError):
        client_address("10.0.0.1", header, [value], TRUSTED)


def test_long_headers_take_no_time():
    """W7: a header of any kind is read in time that grows with its length only."""
    for value in (" " * 8000, "for=" + " " * 8000, "a=b;" * 2000, 'a="' + "\\x" * 4000, "," * 8000):
        with pytest.raises(ForwardedError):
            client_address("10.0.0.1", "forwarded", [value], TRUSTED)


def test_tally():
    """WIRE-52: connections are counted per source and, with sixteen times as many, per /48."""
    tally = Tally()
    near = [source_key(f"2001:db8:7:{number:x}::1") for number in range(17)]
    tally.enter(near[0])
    assert not tally.is_beyond(near[0], 1)
    tally.enter(near[0])
    assert tally.is_beyond(near[0], 1)
    tally.leave(near[0])
    for source in near[1:16]:
        tally.enter(source)
    assert not tally.is_beyond(near[15], 1)
    tally.enter(near[16])
    assert tally.is_beyond(near[16], 1)
    assert not tally.is_beyond(source_key("2001:db8:8::1"), 1)
    assert not tally.is_beyond("192.0.2.1", 1)
    for source in near:
        tally.leave(source)
    assert len(tally) == 0


def test_sites():
    """WIRE-52: the sources of one /48 of IPv6 have it in common, and those of IPv4 have nothing."""
    sources = [source_key(f"2001:db8:7:{number:x}::1") for number in (0, 1, 0xFFFF)]
    assert len(set(sources)) == 3
    assert {site_key(source) for source in sources} == {"2001:db8:7::/48"}
    assert site_key(source_key("2001:db8:8::1")) == "2001:db8:8::/48"
    assert site_key(source_key("192.0.2.1")) is None
    assert site_key(source_key("::ffff:192.0.2.1")) is None
    assert site_key("no address") is None
