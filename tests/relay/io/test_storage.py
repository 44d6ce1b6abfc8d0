"""What every storage backend does alike for connections and nodes (spec/wire.md, Storage).

Each test runs on two nodes: on two that share a database, or twice on the only one.
"""

import dataclasses
from types import SimpleNamespace

import pytest
import trio

from relay.config import LimitsSection
from relay.errors import FencedError, RefusedError
from relay.io.node import HOUR, Quotas
from relay.io.server import sweep_once
from relay.services.clock import PATIENCE as CLOCK_PATIENCE
from relay.services.clock import ClockGuard
from relay.services.delivery import Claim, Readers
from relay.services.mailbox import (
    MAIL_LIFETIME,
    BoxMailbox,
    DeviceMailbox,
    Stored,
)
from relay.services.quota import Pace, Rate
from relay.services.source import source_key
from relay.services.volume import Volume
from relay.wire.messages import ErrorCode
from tests.relay.io.remembered import tables_with
from tests.relay.io.storing import DEVICE, NOW, Reader, put, reads

pytestmark = pytest.mark.trio


def limits(storage):
    """Return the rates that a relay has by default."""
    return Quotas.of(LimitsSection(), storage, per_address=True)


def node_at(storage, wall, *, quotas, readers=None, can_store=True):
    """Return what a sweep needs of a node whose clock shows ``wall``."""
    return SimpleNamespace(
        mailbox=storage.mailbox,
        directory=storage.directory,
        readers=readers or Readers(),
        clock=lambda: wall,
        can_store=can_store,
        volume=Volume(10**9),
        quotas=quotas,
    )


async def test_low_prekeys_at_another_node(nodes):
    """WIRE-18: a device learns at whatever node it is that its prekeys run out."""
    reader, _ = await reads(nodes[1], DEVICE)
    nodes[0].storage.bus.low(DEVICE)
    await reader.hears("low", None)
    nodes[1].storage.bus.low(DEVICE)
    nodes[1].storage.bus.low(DeviceMailbox("nobody", 1))


async def test_a_hint_reaches_the_reader(nodes):
    """STORAGE-06: mail that one node stores is hinted to the reader at another."""
    box = BoxMailbox(bytes(32))
    await nodes[0].storage.mailbox.open_box(box, NOW)
    reader, claim = await reads(nodes[1], box)
    assert await put(nodes[0].storage, box) is Stored.NEW
    nodes[0].storage.bus.hint(box)
    await reader.hears("hint", box)
    (mail,) = await nodes[1].storage.mailbox.read(claim, 0, 9, NOW)
    assert mail.envelope == b"sealed"


async def test_the_latest_claim_wins(nodes):
    """STORAGE-04, STORAGE-05: the reader before is told, and fenced off before it is told."""
    box = BoxMailbox(bytes(32))
    await nodes[0].storage.mailbox.open_box(box, NOW)
    await put(nodes[0].storage, box)
    before, old = await reads(nodes[0], box)
    after, new = await reads(nodes[1], box)
    assert new.epoch > old.epoch
    with pytest.raises(FencedError) as caught:
        await nodes[0].storage.mailbox.read(old, 0, 9, NOW)
    assert caught.value.is_taken
    assert len(await nodes[1].storage.mailbox.read(new, 0, 9, NOW)) == 1
    await before.hears("lost", box)
    await nodes[0].storage.presence.release([old])
    assert len(await nodes[1].storage.mailbox.read(new, 0, 9, NOW)) == 1
    assert ("lost", box) not in after.told


async def test_concurrent_claims(nodes):
    """STORAGE-05: of many claims on a mailbox at once exactly one, the highest, may read."""
    box = BoxMailbox(bytes(32))
    await nodes[0].storage.mailbox.open_box(box, NOW)
    claims: list[tuple[object, Claim]] = []

    async def claim(node):
        claims.append((node, await node.storage.presence.claim(box)))

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(claim, nodes[number % 2])
    allowed = []
    for node, held in claims:
        try:
            await node.storage.mailbox.read(held, 0, 9, NOW)
            allowed.append(held.epoch)
        except FencedError:
            continue
    assert allowed == [max(held.epoch for _, held in claims)]


async def test_a_released_claim(nodes):
    """STORAGE-05: a claim that was given back reads nothing."""
    box = BoxMailbox(bytes(32))
    await nodes[0].storage.mailbox.open_box(box, NOW)
    claim = await nodes[0].storage.presence.claim(box)
    await nodes[0].storage.presence.release([claim])
    with pytest.raises(FencedError):
        await nodes[0].storage.mailbox.read(claim, 0, 9, NOW)


async def test_a_shared_rate_and_clocks_that_differ(nodes):
    """STORAGE-07, WIRE-50: who asks two nodes in turns gains nothing by their clocks."""
    limiters = [node.storage.limiter("test", Rate(0.1, 4)) for node in nodes]
    if nodes[0].storage is nodes[1].storage:
        limiters[1] = limiters[0]
        slow = NOW  # of one node there is one clock
    else:
        slow = NOW - 5
    taken = 0
    for number in range(20):
        try:
            await limiters[number % 2].take("somebody", slow if number % 2 else NOW)
            taken += 1
        except RefusedError:
            pass
    assert taken == 4


async def test_eviction(nodes):
    """WIRE-13: the reader of a device that was removed is told at its node, and reads no more."""
    reader, claim = await reads(nodes[1], DEVICE)
    await nodes[0].storage.presence.evict(DEVICE)
    await reader.hears("lost", DEVICE)
    with pytest.raises(FencedError):
        await nodes[1].storage.mailbox.read(claim, 0, 9, NOW)


async def test_a_shared_rate(nodes):
    """STORAGE-07, WIRE-50: nodes that use the same limiter share its rate; a clock that was set
    back grants nothing, and keeps nobody out until it has caught up.
    """
    limiters = [node.storage.limiter("test", Rate(0.5, 4)) for node in nodes]
    if nodes[0].storage is nodes[1].storage:
        limiters[1] = limiters[0]
    for number in range(4):
        await limiters[number % 2].take("somebody", NOW)
    with pytest.raises(RefusedError) as caught:
        await limiters[0].take("somebody", NOW)
    assert (caught.value.code, caught.value.retry_after) == (ErrorCode.TOO_MANY, 2)
    await limiters[1].take("somebody else", NOW)
    await limiters[0].take("somebody", NOW + 2)
    with pytest.raises(RefusedError):
        await limiters[1].take("somebody", NOW + 2)
    for seconds in (-3600, -3599):
        with pytest.raises(RefusedError):
            await limiters[0].take("somebody", NOW + seconds)
    await limiters[1].take("somebody", NOW - 3597)


async def test_many_uses_at_once(storage):
    """STORAGE-07: many that ask at once use up no more of a rate than they are."""
    limiter = storage.limiter("test", Rate(20, 1_200))
    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(limiter.take, "somebody", NOW)
    for _ in range(800):
        await limiter.take("somebody", NOW)
    async with trio.open_nursery() as nursery:  # and who gives up holds nobody up
        for _ in range(9):
            nursery.start_soon(limiter.take, "somebody else", NOW)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    with trio.fail_after(30):
        await limiter.take("somebody else", NOW)
    limiter.forget(NOW + HOUR)
    assert not tables_with("somebody else")


async def test_who_asked_is_forgotten(storage):
    """WIRE-62: the sweep forgets each name and address that was counted, once its rate is free."""
    quotas = limits(storage)
    source, now, steady = source_key("2001:db8:5eed::1"), NOW, 0.0
    for field in dataclasses.fields(quotas):
        limiter = getattr(quotas, field.name)
        if isinstance(limiter, Pace):
            limiter.wait(source, steady)
        else:
            await limiter.take(source, now)
    assert tables_with("2001:db8:5eed:")
    node = node_at(storage, now + HOUR, quotas=quotas)
    await sweep_once(node, ClockGuard(), steady + HOUR)
    assert not tables_with("2001:db8:5eed:")


async def test_a_clock_that_jumps(storage):
    """STORAGE-13: mail that a wrong clock calls expired is still there when the clock is right; an
    hour after a jump, and while the node is told to be in step with the others, it goes.
    """
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    assert await put(storage, box) is Stored.NEW
    guard, readers, quotas = ClockGuard(), Readers(), limits(storage)
    end = NOW + MAIL_LIFETIME

    async def sweep(wall, steady, *, can_store=True):
        node = node_at(storage, wall, quotas=quotas, readers=readers, can_store=can_store)
        await sweep_once(node, guard, steady)

    reader, claim = Reader(), await storage.presence.claim(box)
    readers.attach(claim, reader)
    await sweep(NOW, 0)
    await sweep(end, 60)  # years ahead
    await sweep(NOW + 120, 120)
    assert len(await storage.mailbox.read(claim, 0, 9, NOW + 120)) == 1
    await sweep(end, 180)
    await sweep(end + CLOCK_PATIENCE, 180 + CLOCK_PATIENCE, can_store=False)
    assert len(await storage.mailbox.read(claim, 0, 9, NOW)) == 1
    await sweep(end + CLOCK_PATIENCE, 180 + CLOCK_PATIENCE)
    assert await storage.mailbox.read(claim, 0, 9, NOW) == []


async def test_it_can_be_probed(nodes):
    """STORAGE-09: a backend that works says so."""
    for node in nodes:
        await node.storage.probe()
