"""Allocate, Refresh, CreatePermission, ChannelBind and Binding as RFC 8656 and RFC 8489 say."""

import os

import aioice.stun
import pytest

from relay.turn.attributes import IPV4_FAMILY, IPV6_FAMILY
from relay.turn.attributes import AttributeType as Type
from relay.turn.stun import MessageClass, Method, encode_message, parse_message

UDP = (Type.REQUESTED_TRANSPORT, bytes((17, 0, 0, 0)))
TCP = (Type.REQUESTED_TRANSPORT, bytes((6, 0, 0, 0)))
EVEN = (Type.EVEN_PORT, b"\x00")
EVEN_AND_NEXT = (Type.EVEN_PORT, b"\x80")
TOKEN = (Type.RESERVATION_TOKEN, bytes(8))
DONT_FRAGMENT = (0x001A, b"")


def family(number):
    return (Type.REQUESTED_ADDRESS_FAMILY, bytes((number, 0, 0, 0)))


def additional(number):
    return (Type.ADDITIONAL_ADDRESS_FAMILY, bytes((number, 0, 0, 0)))


def lifetime(seconds):
    return (Type.LIFETIME, seconds.to_bytes(4))


# Binding.


@pytest.mark.parametrize("address", [("192.0.2.7", 4711), ("2001:db8::7", 4711, 0, 0)])
def test_binding(world, address):
    """A Binding request tells the client its own address, IPv4 or IPv6 (TURN-10)."""
    client = world.client(address=address)
    request = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    ((_, reply),) = client.send(bytes(request))
    response = aioice.stun.parse_message(reply)
    assert response.message_class is aioice.stun.Class.RESPONSE
    assert response.attributes == {"XOR-MAPPED-ADDRESS": address[:2]}
    assert len(reply) <= 44


def test_binding_with_fingerprint(world):
    """FINGERPRINT is answered with FINGERPRINT (TURN-03)."""
    request = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    request.add_fingerprint()
    ((_, reply),) = world.client().send(bytes(request))
    assert parse_message(reply).has_fingerprint


def test_binding_link_local_scope(world):
    """The scope of a link-local client stays on this machine (TURN-10)."""
    client = world.client(address=("fe80::1%lo", 9, 0, 1))
    request = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    ((_, reply),) = client.send(bytes(request))
    mapped = aioice.stun.parse_message(reply).attributes["XOR-MAPPED-ADDRESS"]
    assert mapped == ("fe80::1", 9)


# Unknown attributes: attack line T4.


def unknown_of(reply):
    value = parse_message(reply).first(Type.UNKNOWN_ATTRIBUTES)
    return [int.from_bytes(value[i : i + 2]) for i in range(0, len(value), 2)]


def test_unknown_required_attributes_in_binding(world):
    """T4: comprehension-required attributes nobody knows are a 420 listing each once (TURN-05)."""
    attributes = [(0x7777, b"x"), (0x0003, bytes(4)), (0x8888, b""), (0x7777, b"")]
    data = encode_message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), attributes)
    ((_, reply),) = world.client().send(data)
    assert aioice.stun.parse_message(reply).error_code == 420
    assert unknown_of(reply) == [0x7777, 0x0003]


def test_unknown_required_attributes_in_turn_requests(world):
    """T4: the same in an authenticated request, signed, and nothing was done (TURN-05)."""
    client = world.client()
    response = client.allocate((0x0044, b""), DONT_FRAGMENT)
    assert response.error_code == 420
    assert unknown_of(response.raw) == [0x0044, 0x001A]
    assert world.core.counters.allocations == 0


def test_authentication_comes_before_unknown_attributes(world):
    """T4: to whom is not authenticated it is a 401 (RFC 8489 section 6.3)."""
    data = encode_message(
        Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), [UDP, (0x7777, b"")]
    )
    assert world.client().answer(data).error_code == 401


def test_optional_attributes_are_ignored(world):
    """Comprehension-optional attributes that nobody knows change nothing (TURN-05)."""
    assert world.client().allocate((0x8022, b"software"), (0xC057, bytes(4))).error_code is None


def test_known_attributes_out_of_place(world):
    """An attribute of another method is ignored where it does not belong."""
    assert world.client().allocate((Type.CHANNEL_NUMBER, bytes(4))).error_code is None


# Allocate.


def test_allocate(world):
    """The success response names the virtual relayed address, lifetime and mapped address.

    TURN-11.
    """
    client = world.client()
    response = client.allocate()
    host, port = response.attributes["XOR-RELAYED-ADDRESS"]
    assert host.startswith(("198.18.", "198.19."))
    assert port >= 49_152
    assert response.attributes["LIFETIME"] == 600
    assert response.attributes["XOR-MAPPED-ADDRESS"] == client.five_tuple[1]


@pytest.mark.parametrize(
    ("asked", "granted"), [(0, 600), (1, 600), (600, 600), (1000, 1000), (2**32 - 1, 3600)]
)
def test_allocate_lifetime(world, asked, granted):
    """A lifetime is at least the default and at most the maximum (TURN-41)."""
    assert world.client().allocate(lifetime(asked)).attributes["LIFETIME"] == granted


@pytest.mark.parametrize("asked", [[], [lifetime(0)], [lifetime(3600)]])
def test_lifetime_ends_with_the_credential(world, asked):
    """No allocation outlives the credential it was made with (TURN-42)."""
    client = world.client(expires_in=100)
    assert client.allocate(*asked).attributes["LIFETIME"] == 100
    assert client.refresh(600).attributes["LIFETIME"] == 100


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([], 400),
        ([TCP], 442),
        ([(Type.REQUESTED_TRANSPORT, b"\x11")], 400),
        ([UDP, (Type.LIFETIME, b"\0\0")], 400),
        ([UDP, DONT_FRAGMENT], 420),
        ([UDP, EVEN_AND_NEXT], 508),
        ([UDP, (Type.EVEN_PORT, b"")], 400),
        ([UDP, TOKEN], 508),
        ([UDP, TOKEN, EVEN], 400),
        ([UDP, TOKEN, family(IPV4_FAMILY)], 400),
        ([UDP, family(IPV6_FAMILY)], 440),
        ([UDP, family(7)], 440),
        ([UDP, additional(IPV4_FAMILY)], 400),
        ([UDP, additional(IPV6_FAMILY), family(IPV4_FAMILY)], 400),
        ([UDP, additional(IPV6_FAMILY), EVEN_AND_NEXT], 400),
    ],
)
def test_allocate_refusals(world, attributes, code):
    """What is not offered is refused as RFC 8656 section 7.2 says, and nothing is allocated.

    TURN-12.
    """
    client = world.client()
    assert client.request(Method.ALLOCATE, *attributes).error_code == code
    assert world.core.counters.allocations == 0
    assert client.allocate().error_code is None


def test_even_port(world):
    """EVEN-PORT without a reservation gives an even port (TURN-12)."""
    for number in range(20):
        client = world.client(ticket=f"t{number}")
        client.allocate(EVEN)
        assert client.relayed[1] % 2 == 0


def test_requested_ipv4(world):
    """Asking for the family there is, is granted (TURN-12)."""
    assert world.client().allocate(family(IPV4_FAMILY)).error_code is None


def test_additional_family(world):
    """An additional IPv6 address is refused inside a success response (TURN-12)."""
    response = world.client().allocate(additional(IPV6_FAMILY), EVEN)
    assert response.error_code is None
    value = parse_message(response.raw).first(Type.ADDRESS_ERROR_CODE)
    assert value[:4] == bytes((IPV6_FAMILY, 0, 4, 40))


def test_retransmitted_allocate(world):
    """The same Allocate again gets the same bytes again, and no second allocation (TURN-13)."""
    client = world.client()
    request = client.signed(Method.ALLOCATE, [UDP])
    assert client.send(request) == client.send(request)
    assert world.core.counters.allocations_created == 1


def test_second_allocate_on_a_five_tuple(world):
    """Another Allocate on a five-tuple that has an allocation is a 437 (TURN-13)."""
    client = world.client()
    client.allocate()
    relayed = client.relayed
    assert client.allocate().error_code == 437
    assert client.relayed == relayed


def test_retransmission_with_another_credential(world):
    """T5: an Allocate with another's transaction id but an own credential is a 437 (TURN-13)."""
    owner = world.client(side="a")
    transaction_id = os.urandom(12)
    owner.allocate(transaction_id=transaction_id)
    other = world.client(side="b", address=owner.five_tuple[1])
    assert other.allocate(transaction_id=transaction_id).error_code == 437


# Refresh.


def test_refresh(world):
    """Refresh extends the lifetime from now (TURN-14)."""
    client = world.client()
    client.allocate()
    world.pass_time(500)
    assert client.refresh(600).attributes["LIFETIME"] == 600
    world.pass_time(599)
    assert world.core.counters.allocations == 1
    world.pass_time(1)
    assert world.core.counters.allocations == 0


def test_refresh_to_zero(world):
    """Lifetime 0 deletes the allocation; the next Refresh is a 437, a new Allocate works.

    TURN-14.
    """
    client = world.client()
    client.allocate()
    assert client.refresh(0).attributes["LIFETIME"] == 0
    assert world.core.counters.allocations == 0
    assert client.refresh(0).error_code == 437
    assert client.allocate().error_code is None


def test_refresh_of_another_family(world):
    """A Refresh for a family the allocation does not have is a 443 (RFC 8656 section 8.2)."""
    client = world.client()
    client.allocate()
    assert client.request(Method.REFRESH, family(IPV6_FAMILY)).error_code == 443
    assert client.request(Method.REFRESH, family(IPV4_FAMILY)).error_code is None


# Somebody else's allocation: attack line T5.


def test_requests_without_an_allocation(world):
    """T5: Refresh, CreatePermission and ChannelBind without an allocation are a 437 (TURN-15)."""
    peer = world.client(side="b")
    peer.allocate()
    client = world.client(side="a")
    assert client.refresh(600).error_code == 437
    assert client.permit(peer.relayed).error_code == 437
    assert client.bind(peer.relayed, 0x4000).error_code == 437


def test_requests_on_another_five_tuple(world):
    """T5: with another credential on a five-tuple that has an allocation they are a 441.

    TURN-15.
    """
    owner, peer = world.pair()
    thief = world.client(ticket="other", address=owner.five_tuple[1])
    assert thief.refresh(0).error_code == 441
    assert thief.permit(peer.relayed).error_code == 441
    assert thief.bind(peer.relayed, 0x4000).error_code == 441
    assert world.core.counters.allocations == 2
    assert owner.refresh(600).error_code is None


# CreatePermission and ChannelBind.


def test_permission_needs_an_address(world):
    """CreatePermission without, or with a malformed, XOR-PEER-ADDRESS is a 400 (TURN-16)."""
    first, _ = world.pair()
    assert first.permit().error_code == 400
    malformed = (Type.XOR_PEER_ADDRESS, b"\0\1\0")
    assert first.request(Method.CREATE_PERMISSION, malformed).error_code == 400


def test_permissions_are_all_or_none(world):
    """One forbidden address among several installs none (TURN-16)."""
    first, second = world.pair()
    assert second.permit(first.relayed).error_code is None
    assert first.permit(second.relayed, ("10.0.0.1", 1)).error_code == 403
    assert first.send_indication(second.relayed, b"data") == []


def test_permission_ignores_the_port(world):
    """A permission is for an IP address; the port of the request does not matter (TURN-16)."""
    first, second = world.pair()
    second.permit(first.relayed)
    assert first.permit((second.relayed[0], 1)).error_code is None
    assert len(first.send_indication(second.relayed, b"data")) == 1


@pytest.mark.parametrize("number", [0, 0x3FFF, 0x5000, 0x7FFF, 0xFFFF])
def test_channel_numbers(world, number):
    """Numbers outside 0x4000-0x4FFF are a 400 (TURN-17)."""
    first, second = world.pair()
    assert first.bind(second.relayed, number).error_code == 400


@pytest.mark.parametrize("number", [0x4000, 0x4FFF])
def test_channel_number_bounds(world, number):
    """The first and the last channel number work in both directions (TURN-17)."""
    first, second = world.pair()
    assert first.bind(second.relayed, number).error_code is None
    assert second.bind(first.relayed, number).error_code is None
    ((target, data),) = first.channel_data(number, b"data")
    assert (target, data[:2]) == (second.five_tuple, number.to_bytes(2))


def test_channel_needs_both_attributes(world):
    """ChannelBind without number or address is a 400 (TURN-17)."""
    first, _ = world.pair()
    assert first.request(Method.CHANNEL_BIND).error_code == 400
    number = (Type.CHANNEL_NUMBER, b"\x40\0\0\0")
    assert first.request(Method.CHANNEL_BIND, number).error_code == 400


def test_channel_rules(world):
    """One number for each peer and one peer for each number, refreshed by the same pair.

    TURN-17.
    """
    first, second = world.pair()
    third = world.client(side="b")
    third.allocate()
    assert first.bind(second.relayed, 0x4000).error_code is None
    assert first.bind(second.relayed, 0x4000).error_code is None
    assert first.bind(second.relayed, 0x4001).error_code == 400
    assert first.bind(third.relayed, 0x4000).error_code == 400
    assert first.bind(third.relayed, 0x4001).error_code is None


# Everything else.


@pytest.mark.parametrize("message_class", [MessageClass.SUCCESS, MessageClass.ERROR])
@pytest.mark.parametrize("method", list(Method))
def test_responses_are_dropped(world, method, message_class):
    """A response is never answered, so two servers cannot be set on each other (TURN-23)."""
    data = encode_message(method, message_class, os.urandom(12), [])
    assert world.client().send(data) == []


@pytest.mark.parametrize("method", [2, 5, Method.SEND, Method.DATA, 0xA, 0xFFF])
def test_unknown_requests_are_dropped(world, method):
    """Requests of unknown methods, or of methods that have none, are dropped (TURN-23)."""
    bits = (method & 0xF80) << 2 | (method & 0x70) << 1 | method & 0xF
    data = encode_message(bits, MessageClass.REQUEST, os.urandom(12), [])
    assert world.client().send(data) == []


@pytest.mark.parametrize("method", [m for m in Method if m is not Method.SEND])
def test_other_indications_are_dropped(world, method):
    """Indications other than Send are dropped (TURN-23)."""
    data = encode_message(method, MessageClass.INDICATION, os.urandom(12), [UDP])
    assert world.client().send(data) == []
