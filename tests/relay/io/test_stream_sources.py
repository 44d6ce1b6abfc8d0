"""Who connects over TCP and TLS, and how often (spec/turn.md TURN-74, TURN-75)."""

from relay.io.stream_sources import StreamSources
from relay.turn.five_tuple import Transport, listener_number
from tests.relay.io.remembered import tables_with

TCP = listener_number(Transport.TCP, 0)


def client(address, port=1000):
    return (TCP, (address, port, 0, 0) if ":" in address else (address, port))


def test_connections_of_one_network():
    """T7, WIRE-52: whoever has all networks of a /48 gets the share of 16 (TURN-74)."""
    sources, near = StreamSources(), [client(f"2001:db8:7:{n:x}::1") for n in range(17)]
    for one in near[:16]:
        assert sources.has_room(one, 1)
        sources.enter(one)
        assert not sources.has_room(one, 1)
    assert not sources.has_room(near[16], 1)
    assert sources.has_room(client("2001:db8:8::1"), 1)
    assert sources.has_room(client("192.0.2.1"), 1)
    for one in near[:16]:
        sources.leave(one)
    assert sources.has_room(near[16], 1)
    assert len(sources) == 0


def test_connections_of_one_network_in_a_minute():
    """WIRE-52: a /48 begins no more connections a minute than 16 of its networks (TURN-75)."""
    sources = StreamSources()
    began = [sources.is_seldom(client(f"2001:db8:7:{n:x}::1"), 3, 0.0) for n in range(50)]
    assert began == [True] * 48 + [False] * 2
    own = [sources.is_seldom(client("192.0.2.1"), 3, 0.0) for _ in range(4)]
    assert own == [True, True, True, False]
    assert sources.is_seldom(client("2001:db8:8::1"), 3, 0.0)


def test_who_connected_is_forgotten():
    """WIRE-62: a minute later nothing is left of an address (TURN-75)."""
    sources, address = StreamSources(), client("2001:db8:5eed::1")
    assert sources.is_seldom(address, 3, 0.0)
    sources.forget(19.0)
    assert tables_with("20010db85eed")
    sources.forget(20.0)
    assert not tables_with("20010db85eed")
