"""Data passes within a ticket and nowhere else: attack lines T1, T2 and T6."""

import os

import aioice.stun
import pytest

from relay.turn.attributes import AttributeType as Type
from relay.turn.counters import Drop
from relay.turn.stun import MessageClass, Method, encode_message

OUTSIDE = [
    ("127.0.0.1", 22),
    ("0.0.0.0", 80),
    ("10.0.0.1", 80),
    ("172.16.0.1", 80),
    ("192.168.1.1", 80),
    ("169.254.169.254", 80),
    ("169.254.0.1", 80),
    ("100.64.0.1", 80),
    ("192.0.2.1", 20_000),  # a client's own, real address
    ("203.0.113.5", 3478),
    ("224.0.0.1", 5353),
    ("255.255.255.255", 67),
    ("198.18.0.0", 49_152),  # the virtual network itself, where nobody is
    ("198.19.255.255", 65_535),
    ("::1", 80),
    ("::ffff:127.0.0.1", 80),
    ("::ffff:169.254.169.254", 80),
    ("::ffff:198.18.0.1", 49_152),
    ("fe80::1", 80),
    ("fd00:ec2::254", 80),
    ("64:ff9b::7f00:1", 80),
]


def drops(world):
    return {reason.name: count for reason, count in world.core.counters.drops.items() if count}


# Who can be reached.


@pytest.mark.parametrize("peer", OUTSIDE)
def test_outside_addresses(world, peer):
    """T1, T2: no address but a live allocation's can be permitted, bound or sent to (TURN-31)."""
    client, _ = world.pair()
    assert client.permit(peer).error_code == 403
    assert client.bind(peer, 0x4000).error_code == 403
    assert client.send_indication(peer, b"data") == []
    assert client.channel_data(0x4000, b"data") == []
    assert world.core.counters.forwarded == 0


def test_mapped_form_of_a_real_peer(world):
    """T1: the IPv6-mapped form of a peer that exists is not that peer (TURN-31)."""
    first, second = world.pair()
    mapped = (f"::ffff:{second.relayed[0]}", second.relayed[1])
    assert first.permit(mapped).error_code == 403
    assert first.bind(mapped, 0x4000).error_code == 403


def test_allocations_of_other_tickets(world):
    """T1, T2: another ticket's live allocation is answered like one that is not there (TURN-31)."""
    first, _ = world.pair(ticket="one")
    stranger, _ = world.pair(ticket="two")
    assert first.permit(stranger.relayed).error_code == 403
    assert first.bind(stranger.relayed, 0x4000).error_code == 403
    assert first.send_indication(stranger.relayed, b"data") == []
    replies = [first.bind(stranger.relayed, 0x4000), first.bind(("198.18.9.9", 50_000), 0x4000)]
    assert len({reply.raw[20:40] for reply in replies}) == 1


def test_other_port_of_a_peer(world):
    """T1: a channel to a peer's host, but another port, is refused; data to it is dropped.

    TURN-31.
    """
    first, second = world.pair()
    second.permit(first.relayed)
    other = (second.relayed[0], second.relayed[1] ^ 1)
    assert first.bind(other, 0x4000).error_code == 403
    assert first.permit(other).error_code is None
    assert first.send_indication(other, b"data") == []
    assert drops(world) == {"FOREIGN_PEER": 1}


def test_peer_that_has_gone(world):
    """T1: a deleted allocation can no longer be permitted, bound or sent to (TURN-31, TURN-32)."""
    first, second = world.bound_pair()
    assert len(first.channel_data(0x4000, b"data")) == 1
    gone = second.relayed
    second.refresh(0)
    assert first.permit(gone).error_code == 403
    assert first.bind(gone, 0x4000).error_code == 403
    assert first.channel_data(0x4000, b"data") == []
    assert first.send_indication(gone, b"data") == []
    assert drops(world) == {"FOREIGN_PEER": 2}


def test_successor_on_a_five_tuple_inherits_nothing(world):
    """T5: who allocates on a five-tuple again has none of the old channels (TURN-32)."""
    first, second = world.bound_pair()
    second.refresh(0)
    assert second.allocate().error_code is None
    assert first.channel_data(0x4000, b"data") == []
    assert second.channel_data(0x4001, b"data") == []


def test_other_side_never_comes(world):
    """Who waits alone has 403 for every peer and one allocation until the ticket ends (TURN-36)."""
    client = world.client(expires_in=3000)
    client.allocate()
    for _ in range(4):
        for peer in (("198.18.0.1", 50_000), client.five_tuple[1]):
            assert client.permit(peer).error_code == 403
            assert client.bind(peer, 0x4000).error_code == 403
            assert client.send_indication(peer, b"data") == []
        world.pass_time(599)
        assert client.refresh(600).error_code is None
        assert world.core.counters.allocations == 1
    world.pass_time(2400)
    assert world.core.counters.allocations == 0


def test_own_side_is_in_the_ticket(world):
    """Two allocations of one side reach one another: the ticket is the bound (TURN-30)."""
    first, other = world.client(), world.client()
    first.allocate()
    other.allocate()
    first.bind(other.relayed, 0x4000)
    other.bind(first.relayed, 0x4000)
    assert len(first.channel_data(0x4000, b"data")) == 1


# What passes: attack line T6.


def test_channels_both_ways(world):
    """Between bound channels data goes as ChannelData, under the receiver's number (TURN-34)."""
    first, second = world.bound_pair()
    assert first.channel_data(0x4000, b"there") == [(second.five_tuple, b"\x40\x01\0\5there")]
    assert second.channel_data(0x4001, b"back") == [(first.five_tuple, b"\x40\x00\0\4back")]
    assert world.core.counters.forwarded == 2


def test_send_and_data_indications(world):
    """With permissions alone data goes as Send and Data indications (TURN-34)."""
    first, second = world.pair()
    assert first.permit(second.relayed).error_code is None
    assert second.permit(first.relayed).error_code is None
    ((target, data),) = first.send_indication(second.relayed, b"payload")
    message = aioice.stun.parse_message(data)
    assert target == second.five_tuple
    assert message.message_method is aioice.stun.Method.DATA
    assert message.message_class is aioice.stun.Class.INDICATION
    assert message.attributes == {"XOR-PEER-ADDRESS": first.relayed, "DATA": b"payload"}


def test_channel_to_permission(world):
    """A channel on the sender's side alone gives the receiver a Data indication, and back.

    TURN-34.
    """
    first, second = world.pair()
    first.bind(second.relayed, 0x4000)
    second.permit(first.relayed)
    ((_, data),) = first.channel_data(0x4000, b"there")
    assert aioice.stun.parse_message(data).attributes["DATA"] == b"there"
    ((_, data),) = second.send_indication(first.relayed, b"back")
    assert data == b"\x40\x00\0\4back"


def test_data_without_permission(world):
    """T6: without a permission of the sender, or of the receiver, data is dropped (TURN-33)."""
    first, second = world.pair()
    assert first.send_indication(second.relayed, b"data") == []
    assert drops(world) == {"NO_PERMISSION": 1}
    first.permit(second.relayed)
    assert first.send_indication(second.relayed, b"data") == []
    first.bind(second.relayed, 0x4000)
    assert first.channel_data(0x4000, b"data") == []
    assert drops(world) == {"NO_PERMISSION": 1, "PEER_NOT_READY": 2}


def test_data_without_allocation(world):
    """T6: without an allocation nothing is forwarded and nothing answered (TURN-33)."""
    first, second = world.bound_pair()
    stranger = world.client()
    assert stranger.channel_data(0x4000, b"data") == []
    assert stranger.send_indication(second.relayed, b"data") == []
    assert drops(world) == {"NO_ALLOCATION": 2}
    assert first.channel_data(0x4002, b"data") == []
    assert drops(world) == {"NO_ALLOCATION": 2, "NO_CHANNEL": 1}


def test_source_other_than_the_clients(world):
    """N1: ChannelData from another address or socket is not the client's (TURN-33)."""
    first, _ = world.bound_pair()
    datagram = b"\x40\x00\0\4data"
    host, port = first.five_tuple[1]
    for five_tuple in [(0, (host, port + 1)), (0, ("192.0.2.9", port)), (1, (host, port))]:
        assert world.core.receive(world.now, five_tuple, datagram) == []
    assert world.core.counters.forwarded == 0


@pytest.mark.parametrize("missing", [Type.XOR_PEER_ADDRESS, Type.DATA])
def test_incomplete_send_indications(world, missing):
    """M4: a Send indication without address or data is dropped (TURN-34)."""
    first, second = world.pair()
    first.permit(second.relayed)
    values = {Type.XOR_PEER_ADDRESS: b"\0\1" + bytes(6), Type.DATA: b"data"}
    del values[missing]
    data = encode_message(Method.SEND, MessageClass.INDICATION, os.urandom(12), values.items())
    assert first.send(data) == []
    assert drops(world) == {"MALFORMED": 1}


def test_send_indication_with_malformed_address(world):
    """M4: a Send indication with half an address is dropped (TURN-34)."""
    values = [(Type.XOR_PEER_ADDRESS, b"\0\1\0"), (Type.DATA, b"data")]
    data = encode_message(Method.SEND, MessageClass.INDICATION, os.urandom(12), values)
    assert world.client().send(data) == []
    assert drops(world) == {"MALFORMED": 1}


def test_send_indication_with_unknown_attribute(world):
    """T4: a Send indication with an unknown required attribute is dropped, DONT-FRAGMENT too.

    TURN-05.
    """
    first, second = world.bound_pair()
    assert len(first.send_indication(second.relayed, b"data")) == 1
    assert first.send_indication(second.relayed, b"data", (0x001A, b"")) == []
    assert drops(world) == {"UNKNOWN_ATTRIBUTE": 1}


# The ChannelData format.


@pytest.mark.parametrize("data", [b"", b"x", b"xy", bytes(1200)])
def test_sizes(world, data):
    """ChannelData of any size arrives whole, with padding cut off (TURN-34)."""
    first, second = world.bound_pair()
    for padding in (b"", b"\0\0\0"):
        ((target, out),) = first.channel_data(0x4000, data, padding)
        assert (target, out[4:]) == (second.five_tuple, data)
        assert int.from_bytes(out[2:4]) == len(data)


@pytest.mark.parametrize("bound", [True, False])
def test_short_channel_data(world, bound):
    """M4: ChannelData shorter than its length field is dropped (TURN-34)."""
    first, _ = world.bound_pair() if bound else world.pair()
    datagram = b"\x40\x00\0\4data"
    for length in range(1, len(datagram)):
        assert first.send(datagram[:length]) == []
    assert drops(world) == {"MALFORMED": 7}


@pytest.mark.parametrize("first_byte", [0x50, 0x7F, 0x80, 0xFF])
def test_other_first_bytes(world, first_byte):
    """M4: what is neither STUN nor ChannelData, RTP and DTLS for instance, is dropped (TURN-02)."""
    first, _ = world.bound_pair()
    assert first.send(bytes((first_byte,)) + bytes(40)) == []
    assert first.send(b"") == []
    assert world.core.counters.drops[Drop.NOT_STUN] == 2


# Fast and slow path are one behaviour.


def test_routes_follow_every_change(world):
    """What the lookup forwards, the rules forward too, and never longer (TURN-35)."""
    first, second = world.bound_pair()
    routes = world.core._forwarding.routes.by_key
    assert len(routes) == 2
    fast = first.channel_data(0x4000, b"data")
    routes.clear()
    assert first.channel_data(0x4000, b"data") == fast
    second.refresh(600)
    assert len(routes) == 2
    second.refresh(0)
    assert routes == {}


def test_routes_are_remade_for_other_peers(world):
    """A number that is bound to another peer after its expiry leads to that peer (TURN-35)."""
    first, second = world.bound_pair()
    third = world.client(side="b")
    third.allocate()
    world.pass_time(500)
    for client in (first, second, third):
        client.refresh(3600)
    world.pass_time(100)
    assert first.channel_data(0x4000, b"data") == []
    first.bind(third.relayed, 0x4000)
    third.bind(first.relayed, 0x4005)
    assert first.channel_data(0x4000, b"data") == [(third.five_tuple, b"\x40\x05\0\4data")]
    assert second.channel_data(0x4001, b"data") == []
    second.refresh(0)
    assert len(world.core._forwarding.routes) == 2
    assert first.channel_data(0x4000, b"data")[0][0] == third.five_tuple


class Copy(dict):
    """An observer that keeps what it is told."""

    publish = dict.__setitem__
    withdraw = dict.__delitem__


def test_an_observer_has_the_routes_at_any_time(turn):
    """Who forwards by a copy of the routes is told of each change as it happens (TURN-35)."""
    world, copy = turn.World(), Copy()
    world.core.observe(copy)
    routes = world.core._forwarding.routes
    first, second = world.bound_pair()
    assert copy == routes.by_key
    assert len(copy) == 2
    until = min(route.until for route in copy.values())
    world.now += 100
    for client, peer, number in ((first, second, 0x4000), (second, first, 0x4001)):
        client.refresh(3600)
        client.bind(peer.relayed, number)
        assert copy == routes.by_key
    assert {route.until for route in copy.values()} == {until + 100}
    world.pass_time(600)
    assert copy == routes.by_key == {}
    first.bind(second.relayed, 0x4000)
    second.bind(first.relayed, 0x4001)
    assert len(copy) == 2
    first.refresh(0)
    assert copy == {}
