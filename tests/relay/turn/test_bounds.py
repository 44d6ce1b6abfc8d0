"""Lifetimes, quotas and floods: attack lines T3, T6 and N1, and what memory they may take."""

import os
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.turn.allocation import generate_relayed_address
from relay.turn.attributes import AttributeType as Type
from relay.turn.bandwidth import BURST_SECONDS, Bandwidth
from relay.turn.counters import Drop
from relay.turn.deadlines import Deadlines
from relay.turn.stun import MessageClass, Method, encode_message

UDP = (Type.REQUESTED_TRANSPORT, bytes((17, 0, 0, 0)))


# Quotas.


def test_two_allocations_for_each_side(world):
    """T6: the third allocation of a side is a 486; the other side and others are free (TURN-40)."""
    clients = [world.client() for _ in range(3)]
    assert [client.allocate().error_code for client in clients] == [None, None, 486]
    assert world.client(side="b").allocate().error_code is None
    assert world.client(ticket="other").allocate().error_code is None
    clients[0].refresh(0)
    assert clients[2].allocate().error_code is None


def test_expired_allocations_do_not_count(world):
    """A quota is for what is live, even before the sweep (TURN-40)."""
    clients = [world.client() for _ in range(3)]
    clients[0].allocate()
    clients[1].allocate()
    world.now += 600
    assert clients[2].allocate().error_code is None
    assert clients[1].allocate().error_code is None
    assert clients[0].allocate().error_code == 486


def test_all_allocations(turn):
    """Above the server's total an Allocate is a 508 (TURN-40)."""
    world = turn.World(allocations=3)
    clients = [world.client(ticket=f"t{number}") for number in range(4)]
    assert [client.allocate().error_code for client in clients] == [None, None, None, 508]
    clients[0].refresh(0)
    assert clients[3].allocate().error_code is None


@pytest.mark.parametrize(
    ("addresses", "codes"),
    [
        (["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"], [None, None, 508, None]),
        (
            ["2001:db8::1", "2001:db8::ffff:0:2", "2001:db8::3", "2001:db8:0:1::1"],
            [None, None, 508, None],
        ),
    ],
)
def test_allocations_of_one_source(turn, addresses, codes):
    """T6: one source, an IPv4 address or a /64, has its share, others have theirs (TURN-47)."""
    world = turn.World(allocations_per_address=2)
    clients = [
        world.client(ticket=f"t{number}", address=(address, 1000 + number))
        for number, address in enumerate(addresses)
    ]
    assert [client.allocate().error_code for client in clients] == codes
    clients[0].refresh(0)
    assert clients[2].allocate().error_code is None
    world.pass_time(600)
    assert clients[0].allocate().error_code is None


def test_allocations_of_one_network(turn):
    """T6, WIRE-52: whoever has all networks of a /48 gets no more than 16 of them (TURN-47)."""
    world = turn.World(allocations_per_address=1)
    addresses = [f"2001:db8:7:{number:x}::1" for number in range(17)] + ["2001:db8:8::1"]
    clients = [
        world.client(ticket=f"t{number}", address=(address, 1000))
        for number, address in enumerate(addresses)
    ]
    codes = [client.allocate().error_code for client in clients]
    assert codes == [None] * 16 + [508, None]
    clients[0].refresh(0)
    assert clients[16].allocate().error_code is None


def test_flood_on_one_credential(world):
    """T6: a flood of Allocates on one credential leaves two allocations, others go on (TURN-40)."""
    first, second = world.bound_pair()
    flooding = [world.client(ticket="flood") for _ in range(200)]
    codes = [client.allocate().error_code for client in flooding]
    assert codes == [None, None] + [486] * 198
    assert world.core.counters.allocations == 4
    assert first.channel_data(0x4000, b"data")[0][0] == second.five_tuple


def test_channels_and_permissions_are_bounded(turn):
    """Peers that come and go do not fill an allocation beyond its limit: 508 (TURN-43)."""
    world = turn.World(peers_per_allocation=3)
    first = world.client()
    first.allocate()
    codes = []
    for number in range(4):
        peer = world.client(side="b")
        peer.allocate()
        codes.append(first.bind(peer.relayed, 0x4000 + number).error_code)
        last = peer.relayed
        permitted = first.permit(last).error_code
        if number < 3:
            peer.refresh(0)
    assert codes == [None, None, None, 508]
    assert permitted == 508
    world.pass_time(300)
    first.refresh(3600)
    world.pass_time(299)
    assert first.permit(last).error_code == 508
    world.pass_time(1)
    assert first.permit(last).error_code == 403  # its own allocation has expired as well


@pytest.mark.parametrize("way", ["route", "rules", "indication"])
def test_bandwidth(turn, way):
    """T6: data beyond an allocation's bandwidth is dropped and counted, others go on (TURN-46)."""
    world = turn.World(bandwidth=100_000)
    first, second = world.bound_pair()
    if way == "rules":
        world.core._forwarding.routes.by_key.clear()

    def passed():
        if way == "indication":
            return len(first.send_indication(second.relayed, bytes(1000)))
        return len(first.channel_data(0x4000, bytes(1000)))

    assert sum(passed() for _ in range(300)) == 50
    assert world.core.counters.drops[Drop.BANDWIDTH] == 250
    assert len(second.channel_data(0x4001, bytes(1000))) == 1
    world.now += 0.125
    assert sum(passed() for _ in range(300)) == 12


def test_all_ways_share_one_bandwidth(turn):
    """What was sent on a channel is not free for Send indications (TURN-46)."""
    world = turn.World(bandwidth=100_000)
    first, second = world.bound_pair()
    for _ in range(50):
        first.channel_data(0x4000, bytes(1000))
    assert first.send_indication(second.relayed, bytes(1000)) == []


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 4096)), max_size=200))
def test_bandwidth_is_bounded_over_any_span(sends):
    """Whatever the timing, a span of t seconds takes at most a second's worth more (TURN-46)."""
    rate, now, granted = 10_000, 0.0, []
    bandwidth = Bandwidth(now, rate)
    for pause, size in sends:
        now += pause
        if bandwidth.take(now, size, rate):
            granted.append((now, size))
    for begin in range(len(granted)):
        total = 0
        for when, size in granted[begin:]:
            total += size
            assert total <= rate * (when - granted[begin][0] + 2 * BURST_SECONDS) + 1e-6


# Lifetimes.


def test_permissions_last_five_minutes(world):
    """A permission ends 300 s after it was last asked for (TURN-44)."""
    first, second = world.pair()
    first.permit(second.relayed)
    second.permit(first.relayed)
    world.pass_time(299)
    assert len(first.send_indication(second.relayed, b"data")) == 1
    second.permit(first.relayed)
    world.pass_time(1)
    assert first.send_indication(second.relayed, b"data") == []
    assert len(second.send_indication(first.relayed, b"data")) == 0
    first.permit(second.relayed)
    assert len(first.send_indication(second.relayed, b"data")) == 1


def test_channels_last_ten_minutes_with_their_permission(world):
    """A channel, and the permission that it implies, ends 600 s after the last bind (TURN-33)."""
    first, second = world.pair()
    first.refresh(3600)
    second.refresh(3600)
    first.bind(second.relayed, 0x4000)
    second.bind(first.relayed, 0x4001)
    world.pass_time(599.5)
    assert len(first.channel_data(0x4000, b"data")) == 1
    first.bind(second.relayed, 0x4000)
    world.pass_time(0.5)
    assert first.channel_data(0x4000, b"data") == []
    second.bind(first.relayed, 0x4001)
    assert len(first.channel_data(0x4000, b"data")) == 1
    world.pass_time(599.5)
    assert first.channel_data(0x4000, b"data") == []


def test_permission_is_not_shortened(world):
    """A CreatePermission does not cut the permission that a channel implies (TURN-33)."""
    first, second = world.bound_pair()
    first.refresh(3600)
    second.refresh(3600)
    second.permit(first.relayed)
    world.pass_time(400)
    assert len(first.channel_data(0x4000, b"data")) == 1
    assert len(first.send_indication(second.relayed, b"data")) == 1


@pytest.mark.parametrize("sweep", [True, False])
def test_expiry_needs_no_sweep(world, sweep):
    """What has expired is unusable at once, whether it was swept or not (TURN-45)."""
    first, second = world.bound_pair()
    world.now += 599
    second.refresh(600)
    world.now += 1
    if sweep:
        world.core.expire(world.now)
    assert first.channel_data(0x4000, b"data") == []
    assert second.channel_data(0x4001, b"data") == []
    assert first.refresh(600).error_code == 437
    assert second.bind(first.relayed, 0x4001).error_code == 403
    assert first.allocate().error_code is None


def test_sweep_leaves_nothing(world):
    """After the last lifetime the sweep has forgotten everything (TURN-45)."""
    for number in range(20):
        first, second = world.pair(ticket=f"t{number}")
        first.bind(second.relayed, 0x4000)
        second.bind(first.relayed, 0x4000)
        second.refresh(1000 + number)
    world.pass_time(700)
    assert world.core.counters.allocations == 20
    world.pass_time(400)
    assert world.core.counters.allocations == 0
    table = world.core._table
    assert not table._by_five_tuple
    assert not table._by_relayed
    assert not table._by_ticket
    assert not table._by_source
    assert not len(table._deadlines)
    assert not table._deadlines._buckets
    assert not world.core._forwarding.routes.by_key


def test_deadlines_keep_one_entry_for_each_key():
    """Moving and removing leaves nothing behind, so that churn takes no memory (TURN-45)."""
    deadlines = Deadlines()
    for second in range(1000):
        deadlines.set("key", second)
        deadlines.set("other", second)
        deadlines.remove("other")
    assert len(deadlines) == len(deadlines._buckets) == 1
    assert deadlines.take_due(998.9) == []
    assert deadlines.take_due(999) == ["key"]
    assert deadlines.take_due(2000) == []


# Relayed addresses.


def test_relayed_addresses_cover_the_network():
    """Relayed addresses lie in 198.18.0.0/15, ports from 49152, and use all of both (TURN-11)."""
    source = random.Random(1)
    drawn = [
        generate_relayed_address(source.randbytes, even_port=even)
        for even in (False, True)
        for _ in range(2000)
    ]
    assert {address.ip[:2] for address in drawn} == {b"\xc6\x12", b"\xc6\x13"}
    assert len({address.ip for address in drawn}) > 3900
    assert min(address.port for address in drawn) < 49_300
    assert max(address.port for address in drawn) > 65_400
    assert all(address.port >= 49_152 for address in drawn)


def test_relayed_address_is_not_given_twice(turn):
    """Where randomness repeats itself, an Allocate is refused rather than an address shared.

    TURN-11.
    """
    world = turn.World()
    world.core = turn.make_core(generate=bytes)
    assert world.client(ticket="one").allocate().error_code is None
    assert world.client(ticket="two").allocate().error_code == 508


# Floods.


def memory_growth(action):
    action()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        action()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_spoofed_floods_leave_no_memory(world):
    """T3, N1: garbage and unauthenticated requests from everywhere take no memory (TURN-22)."""
    source = random.Random(2)
    bare = encode_message(Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), [UDP])
    guess = encode_message(
        Method.ALLOCATE,
        MessageClass.REQUEST,
        os.urandom(12),
        [UDP, (Type.USERNAME, b"9999999999:t-a"), (Type.REALM, b"e2ecall"), (Type.NONCE, b"n")],
        key=b"guess",
    )

    def flood():
        for _ in range(1500):
            client = (0, (f"203.0.113.{source.randrange(256)}", source.randrange(1, 65536)))
            for datagram in (bare, guess, source.randbytes(50), b"\x40\0" + source.randbytes(40)):
                replies = world.core.receive(world.now, client, datagram)
                assert sum(len(reply) for _, reply in replies) <= 100

    assert memory_growth(flood) < 20_000
    assert world.core.counters.unauthenticated == 6000
    assert world.core.counters.drops[Drop.NO_ALLOCATION] > 0


def test_churn_leaves_no_memory(world):
    """T6: allocating, binding and deleting again and again takes no memory (TURN-45)."""

    def churn():
        for _ in range(60):
            first, second = world.bound_pair()
            first.channel_data(0x4000, b"data")
            first.refresh(0)
            second.refresh(0)

    assert memory_growth(churn) < 20_000


def test_memory_of_an_allocation(turn):
    """An allocation with a channel takes at most 4 KB (TURN-40)."""
    world = turn.World()
    clients = [world.client(ticket=f"t{n // 2}", side="ab"[n % 2]) for n in range(400)]
    for client in clients:
        client.challenge()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for client in clients:
            client.allocate()
        for first, second in zip(clients[::2], clients[1::2], strict=True):
            first.bind(second.relayed, 0x4000)
            second.bind(first.relayed, 0x4000)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / len(clients) < 4096


# Hostile bytes, through the whole core.


def test_captured_messages_and_flips(world, captured):
    """M4: captured messages, cut and flipped, give at most one answer and never an exception.

    TURN-02.
    """
    first, _ = world.bound_pair()
    for data in captured.values():
        variants = [data[:length] for length in range(0, len(data), 3)]
        for bit in range(0, min(len(data), 200) * 8, 5):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            variants.append(bytes(flipped))
        for variant in variants:
            assert len(first.send(variant)) <= 1
    assert world.core.counters.allocations == 2


def test_signed_garbage(world):
    """M4: random attributes under a good credential are answered, and nothing breaks (TURN-02)."""
    source = random.Random(3)
    first, _ = world.bound_pair()
    kinds = [*Type, 0x001A, 0x8055, 0x7777]
    methods = [Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND, Method.ALLOCATE]
    for _ in range(500):
        attributes = [
            (source.choice(kinds), source.randbytes(source.choice([0, 1, 4, 8, 20])))
            for _ in range(source.randrange(5))
        ]
        attributes = [a for a in attributes if a[0] not in {Type.USERNAME, Type.REALM, Type.NONCE}]
        data = first.signed(source.choice(methods), attributes)
        assert len(first.send(data)) == 1
