"""What every storage backend does alike with prekeys (spec/wire.md, Prekeys).

Each test runs on two nodes: on two that share a database, or twice on the only one.
"""

import pytest
import trio

from relay.errors import RefusedError
from relay.io.sqlite import SQLiteStorage
from relay.wire.messages import ErrorCode, PrekeyCounts
from relay.wire.records import PreKeyKind
from tests.relay.io.storing import NOW, account

pytestmark = pytest.mark.trio


async def rows_of_prekeys(storage):
    """Return how many prekeys and key ids a backend remembers."""
    run = storage.writer.run if isinstance(storage, SQLiteStorage) else storage.pool.run
    return (await run(lambda db: db.execute("SELECT count(*) FROM prekeys").fetchone()))[0]


async def test_expired_prekeys(storage, speak):
    """WIRE-16: an expired prekey is neither counted nor handed out, and later forgotten."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    kind = PreKeyKind.ONE_TIME_X25519
    day = int(NOW) + 86_400
    keys = [identity.prekey(kind, 1, expires=day), identity.prekey(kind, 2, expires=day + 99)]
    basic = [
        identity.prekey(kind, 9, expires=day * 2)
        for kind in (PreKeyKind.SIGNED_X25519, PreKeyKind.SEALING, PreKeyKind.LAST_RESORT_MLKEM1024)
    ]
    await storage.directory.add_prekeys("somebody", 1, [*keys, *basic])
    assert await storage.directory.count_prekeys("somebody", 1, NOW) == PrekeyCounts(2, 0)
    assert await storage.directory.count_prekeys("somebody", 1, day) == PrekeyCounts(1, 0)
    handed_out = await storage.directory.take_bundle("somebody", None, None, day)
    assert handed_out.bundle.one_time_prekey == keys[1]
    assert handed_out.left == PrekeyCounts(0, 0)
    await storage.mailbox.sweep(day * 2)
    assert await storage.directory.take_bundle("somebody", None, None, NOW) is None


async def test_prekeys_are_handed_out_once(nodes, speak):
    """W4, STORAGE-02: of 100 concurrent takers at two nodes no two get the same one-time prekey."""
    identity, somebody = account(speak)
    storage = nodes[0].storage
    await storage.directory.create(somebody)
    far = int(NOW) + 86_400
    keys = [identity.prekey(kind, 999, expires=far) for kind in PreKeyKind]
    for kind in (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024):
        keys += [identity.prekey(kind, number, expires=far) for number in range(1, 80)]
    await storage.directory.add_prekeys("somebody", 1, keys)
    taken, kem = [], []

    async def take(node):
        handed_out = await node.storage.directory.take_bundle("somebody", None, None, NOW)
        taken.append(handed_out.bundle.one_time_prekey)
        kem.append(handed_out.bundle.kem_prekey)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(take, nodes[number % 2])
    one_time = [key.key_id for key in taken if key is not None]
    one_time_kem = [key.key_id for key in kem if key.kind is PreKeyKind.ONE_TIME_MLKEM1024]
    assert len(one_time) == len(set(one_time)) == 80
    assert len(one_time_kem) == len(set(one_time_kem)) == 80
    last_resort = [key for key in kem if key.kind is PreKeyKind.LAST_RESORT_MLKEM1024]
    assert len(last_resort) == 20
    await storage.directory.add_prekeys("somebody", 1, keys)
    assert await storage.directory.count_prekeys("somebody", 1, NOW) == PrekeyCounts(0, 0)


async def test_drained_for_hours(nodes, speak):
    """W5, WIRE-55: however many prekeys are handed out, one id of a kind is remembered; what lies
    below it stays taken until the last of them expires, and the owner can always publish.
    """
    identity, somebody = account(speak)
    first = nodes[0].storage.directory
    await first.create(somebody)
    far, kinds = int(NOW) + 86_400, (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024)
    basic = [identity.prekey(kind, 1, expires=far * 2) for kind in PreKeyKind if kind not in kinds]
    await first.add_prekeys("somebody", 1, basic)
    published, seen = [], []

    async def take(node):
        handed_out = await node.storage.directory.take_bundle("somebody", None, None, NOW)
        bundle = handed_out.bundle
        seen.extend((key.kind, key.key_id) for key in (bundle.kem_prekey, bundle.one_time_prekey))

    for start in range(10, 70, 20):
        batch = [
            identity.prekey(kind, start + number, expires=far + (99 if start == 10 else 0))
            for number in range(20)
            for kind in kinds
        ]
        await first.add_prekeys("somebody", 1, batch)
        published += batch
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(take, nodes[number % 2])
    assert sorted(seen) == sorted((key.kind, key.key_id) for key in published)
    await first.add_prekeys(
        "somebody", 1, [identity.prekey(kind, 90, expires=far) for kind in kinds]
    )
    await take(nodes[0])
    assert await rows_of_prekeys(nodes[0].storage) == len(basic) + len(kinds)
    for now in (NOW, far):  # by then the latest has expired, and an earlier one has not
        await nodes[0].storage.mailbox.sweep(now)
        await first.add_prekeys("somebody", 1, published)
        assert await first.count_prekeys("somebody", 1, NOW) == PrekeyCounts(0, 0)
    await first.add_prekeys("somebody", 1, [identity.prekey(kinds[0], 91, expires=far + 9)])
    assert await first.count_prekeys("somebody", 1, NOW) == PrekeyCounts(1, 0)


async def test_owners_are_told_of_takers_at_once(nodes, speak):
    """W5, WIRE-18: however many take bundles at the same time, at whatever node, one of them sees
    each number of which the owner is to be told.
    """
    identity, somebody = account(speak)
    directory = nodes[0].storage.directory
    await directory.create(somebody)
    far, one_time = int(NOW) + 86_400, PreKeyKind.ONE_TIME_X25519
    kinds = [kind for kind in PreKeyKind if kind is not PreKeyKind.ONE_TIME_MLKEM1024]
    basic = [identity.prekey(kind, 1, expires=far) for kind in kinds if kind is not one_time]
    keys = [identity.prekey(one_time, number, expires=far) for number in range(10, 50)]
    await directory.add_prekeys("somebody", 1, basic + keys)
    told = []

    async def take(node):
        taken = await node.storage.directory.take_bundle("somebody", None, None, NOW)
        if taken.needs_refill:
            told.append(taken.left.x25519)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(take, nodes[number % 2])
    assert sorted(told) == [0, 8, 16, 24]


async def test_too_many_prekeys(storage, speak):
    """WIRE-14: a batch beyond the cap of a kind is refused as a whole."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    kind = PreKeyKind.ONE_TIME_X25519
    far = int(NOW) + 86_400
    keys = [identity.prekey(kind, number, expires=far) for number in range(1, 252)]
    await storage.directory.add_prekeys("somebody", 1, keys[:250])
    with pytest.raises(RefusedError) as caught:
        await storage.directory.add_prekeys("somebody", 1, keys)
    assert caught.value.code is ErrorCode.TOO_MANY
    assert await storage.directory.count_prekeys("somebody", 1, NOW) == PrekeyCounts(250, 0)
