"""What every storage backend does alike, with a clock of the test (spec/wire.md, Storage).

Each test runs on two nodes: on two that share a database, or twice on the only one.
"""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import trio
from msgspec.structs import replace as struct_replace
from nacl.signing import SigningKey

from relay.errors import FencedError, RefusedError
from relay.io.postgres_mailbox import PostgresMailbox
from relay.io.server import sweep_once
from relay.io.sqlite import SQLiteStorage
from relay.io.sqlite_mailbox import SQLiteMailbox
from relay.io.storage import Totals
from relay.services.clock import PATIENCE as CLOCK_PATIENCE
from relay.services.clock import ClockGuard
from relay.services.delivery import Claim, Readers
from relay.services.directory import Account, CodeUse, read_list, updated
from relay.services.mailbox import (
    BOX_GRACE,
    BOX_IDLE_LIFETIME,
    MAIL_LIFETIME,
    MAX_TRIES,
    TOMBSTONE_LIFETIME,
    BoxMailbox,
    DeviceMailbox,
    Stored,
)
from relay.services.quota import Rate
from relay.wire.messages import ErrorCode, Invitation, Policy, PrekeyCounts
from relay.wire.records import PreKeyKind

pytestmark = pytest.mark.trio

NOW = 1_800_000_000.0
DEVICE = DeviceMailbox("somebody", 1)
PATIENCE = 10.0


def account(speak, username="somebody"):
    identity = speak.Identity(username, "relay.example")
    signed = identity.device_list(expires=int(NOW) + 86_400 * 18)
    return identity, Account(username, signed, read_list(signed), 1, Policy.EVERYONE)


@pytest.fixture
def storage(nodes):
    return nodes[0].storage


@pytest.fixture
def crowded(storage):
    """Give the mailboxes of a relay that has room for three reply boxes."""
    if isinstance(storage, SQLiteStorage):
        return SQLiteMailbox(storage.writer, storage.presence, max_boxes=3)
    return PostgresMailbox(storage.pool, max_boxes=3)


async def put(storage, mailbox, envelope=b"sealed", now=NOW, message_id=None, shown=None):
    return await storage.mailbox.put(mailbox, message_id or os.urandom(16), envelope, shown, now)


async def read(storage, mailbox, now=NOW, after=0, limit=99):
    claim = await storage.presence.claim(mailbox)
    return await storage.mailbox.read(claim, after, limit, now)


class Reader:
    """A connection: it notes what it is told."""

    def __init__(self):
        self.told = []
        self._news = trio.Event()

    def _note(self, what, mailbox):
        self.told.append((what, mailbox))
        self._news.set()

    def hint(self, mailbox):
        self._note("hint", mailbox)

    def lost(self, mailbox):
        self._note("lost", mailbox)

    def expired(self, mailbox):
        self._note("expired", mailbox)

    def low(self):
        self._note("low", None)

    async def hears(self, what, mailbox):
        with trio.fail_after(PATIENCE):
            while (what, mailbox) not in self.told:
                await self._news.wait()
                self._news = trio.Event()


async def reads(node, mailbox):
    """Claim a mailbox at a node for a new connection."""
    reader, claim = Reader(), await node.storage.presence.claim(mailbox)
    node.readers.attach(claim, reader)
    return reader, claim


async def test_mail_expires(storage, speak):
    """WIRE-35: mail waits 14 days, and no longer."""
    await storage.directory.create(account(speak)[1])
    assert await put(storage, DEVICE) is Stored.NEW
    end = NOW + MAIL_LIFETIME
    assert len(await read(storage, DEVICE, end - 1)) == 1
    await storage.mailbox.sweep(end - 1)
    assert len(await read(storage, DEVICE, end - 1)) == 1
    assert await read(storage, DEVICE, end) == []
    await storage.mailbox.sweep(end)
    assert await read(storage, DEVICE, NOW) == []


async def test_expired_mail_makes_room(storage):
    """What expired no longer counts against a mailbox."""
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    for _ in range(box.capacity.envelopes):
        assert await put(storage, box) is Stored.NEW
    assert await put(storage, box) is Stored.FULL
    later = NOW + MAIL_LIFETIME
    await storage.mailbox.keep(later, [box])
    await storage.mailbox.sweep(later)
    assert await put(storage, box, now=later) is Stored.NEW


async def test_bytes_are_capped(storage):
    """W6: a mailbox is bounded in bytes as well as in envelopes."""
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    size = 40_000
    for _ in range(box.capacity.total_bytes // size):
        assert await put(storage, box, bytes(size)) is Stored.NEW
    assert await put(storage, box, bytes(size)) is Stored.FULL
    assert await put(storage, box, b"small") is Stored.NEW


async def test_idle_boxes_expire(storage):
    """WIRE-36: a box nobody reads or writes for two hours is gone; one in use stays."""
    idle, used = BoxMailbox(bytes(32)), BoxMailbox(bytes(range(32)))
    for box in (idle, used):
        await storage.mailbox.open_box(box, NOW)
    await put(storage, idle)
    await storage.mailbox.keep(NOW + BOX_IDLE_LIFETIME, [used])
    await storage.mailbox.sweep(NOW + BOX_IDLE_LIFETIME)
    assert await put(storage, idle) is Stored.REFUSED
    assert await put(storage, used) is Stored.NEW


async def test_idle_boxes_make_room(crowded, speak):
    """WIRE-47: where boxes are too many, an empty one goes that was idle, and no other."""
    boxes = [BoxMailbox(bytes([number]) * 32) for number in range(5)]
    full, read_by_somebody, idle, *late = boxes
    for box in (full, read_by_somebody, idle):
        await crowded.open_box(box, NOW)
    assert await crowded.put(full, bytes(16), b"sealed", None, NOW) is Stored.NEW
    soon, later = NOW + BOX_GRACE - 1, NOW + BOX_GRACE
    with pytest.raises(RefusedError):
        await crowded.open_box(late[0], soon)
    await crowded.keep(soon, [read_by_somebody])
    await crowded.sweep(soon)
    await crowded.open_box(late[0], later)
    with pytest.raises(RefusedError):
        await crowded.open_box(late[1], later)
    found = {
        box: await crowded.put(box, os.urandom(16), b"sealed", None, later) is Stored.NEW
        for box in boxes
    }
    assert found == {full: True, read_by_somebody: True, idle: False, late[0]: True, late[1]: False}


async def test_message_id_is_forgotten_later(storage):
    """WIRE-30: an acknowledged message id is remembered for an hour."""
    box, message_id = BoxMailbox(bytes(32)), os.urandom(16)
    await storage.mailbox.open_box(box, NOW)
    assert await put(storage, box, message_id=message_id) is Stored.NEW
    (mail,) = await read(storage, box, NOW)
    await storage.mailbox.remove([(box, mail.row)], NOW)
    assert await read(storage, box, NOW) == []
    assert await put(storage, box, message_id=message_id) is Stored.AGAIN
    await storage.mailbox.keep(NOW + TOMBSTONE_LIFETIME, [box])
    await storage.mailbox.sweep(NOW + TOMBSTONE_LIFETIME)
    assert await put(storage, box, message_id=message_id) is Stored.NEW


async def test_row_of_another_mailbox(storage):
    """A row is removed only together with the mailbox that it belongs to."""
    first, second = BoxMailbox(bytes(32)), BoxMailbox(bytes(range(32)))
    for box in (first, second):
        await storage.mailbox.open_box(box, NOW)
    await put(storage, first)
    (mail,) = await read(storage, first, NOW)
    await storage.mailbox.remove([(second, mail.row)], NOW)
    assert await read(storage, first, NOW) == [mail]


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


async def test_expired_device_list(storage, speak):
    """WIRE-16: no one-time prekey is spent on an account whose device list expired."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    far = int(NOW) * 2
    keys = [identity.prekey(kind, 1, expires=far) for kind in PreKeyKind]
    await storage.directory.add_prekeys("somebody", 1, keys)
    late = somebody.device_list.expires
    assert await storage.directory.take_bundle("somebody", None, None, late) is None
    assert await storage.directory.count_prekeys("somebody", 1, late) == PrekeyCounts(1, 1)


async def test_device_lists_in_order(storage, speak):
    """WIRE-13: a newer list may follow a lost one; what comes late or beside it is STALE."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    stored, lists = somebody.signed_list, []
    for _ in range(3):
        stored = identity.next_list(stored, expires=int(NOW) + 86_400)
        lists.append(replace(somebody, signed_list=stored, device_list=read_list(stored)))
    await storage.directory.replace_device_list(lists[1])
    identity.version, identity.previous = 4, bytes(64)
    fork = identity.device_list(expires=int(NOW) + 86_400)
    beside = replace(somebody, signed_list=fork, device_list=read_list(fork))
    for refused in (lists[0], lists[1], beside):
        with pytest.raises(RefusedError) as caught:
            await storage.directory.replace_device_list(refused)
        assert caught.value.code is ErrorCode.STALE
    await storage.directory.replace_device_list(lists[2])
    found = await storage.directory.account("somebody")
    assert found.device_list.version == 4


async def test_device_lists_beside_each_other(storage, speak):
    """WIRE-13: of two lists that followed the same one, the later one cannot use ids or give keys
    that only the earlier one rules out.
    """
    identity, somebody = account(speak)
    await storage.directory.create(somebody)

    def later(version, device_id):
        identity.version = version
        identity.devices[device_id] = SigningKey.generate()
        identity.records = {one: identity.record(one) for one in (1, device_id)}
        identity.records[1] = somebody.device_list.devices[0]
        signed = identity.device_list(previous=bytes(64), expires=int(NOW) + 86_400)
        return updated(somebody, signed, relay="relay.example", now=NOW)

    await storage.directory.replace_device_list(later(3, 9))
    for beside in (later(5, 2), later(5, 9)):
        with pytest.raises(RefusedError) as caught:
            await storage.directory.replace_device_list(beside)
        assert caught.value.code is ErrorCode.BAD_REQUEST
    found = await storage.directory.account("somebody")
    assert (found.device_list.version, found.newest_device_id) == (3, 9)
    alone = replace(
        found, device_list=struct_replace(found.device_list, version=7), newest_device_id=1
    )
    await storage.directory.replace_device_list(alone)
    assert (await storage.directory.account("somebody")).newest_device_id == 9


async def test_a_name_is_given_out_once(nodes, speak):
    """WIRE-10, WIRE-15: of many registrations of a name one succeeds; deleted, it stays taken."""
    first, second = nodes
    results = []

    async def create(storage):
        try:
            await storage.directory.create(account(speak)[1])
            results.append(None)
        except RefusedError as error:
            results.append(error.code)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(create, first.storage)
            nursery.start_soon(create, second.storage)
    taken = ErrorCode.USERNAME_TAKEN
    assert sorted(results, key=str) == [taken] * 7 + [None]
    await first.storage.directory.delete("somebody")
    await create(second.storage)
    assert results[-1] is taken


async def test_the_same_account_again(nodes, speak):
    """WIRE-10: the very same registration again is no error, at whatever node."""
    somebody = account(speak)[1]
    for node in nodes:
        await node.storage.directory.create(somebody)
    assert await nodes[1].storage.directory.account("somebody") == somebody


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


async def rows_of_prekeys(storage):
    """Return how many prekeys and key ids a backend remembers."""
    run = storage.writer.run if isinstance(storage, SQLiteStorage) else storage.pool.run
    return (await run(lambda db: db.execute("SELECT count(*) FROM prekeys").fetchone()))[0]


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


async def test_tokens_at_another_node(nodes, speak):
    """WIRE-21: policy and tokens hold at every node, from when their call returned."""
    first, second = (node.storage for node in nodes)
    await first.directory.create(account(speak)[1])
    token = os.urandom(32)
    await first.directory.set_policy("somebody", Policy.CONTACTS)
    assert await put(second, DEVICE, shown=token) is Stored.REFUSED
    await first.directory.put_tokens("somebody", [token, os.urandom(32)])
    assert await put(second, DEVICE, shown=token) is Stored.NEW
    await second.directory.put_tokens("somebody", [])
    assert await put(first, DEVICE, shown=token) is Stored.REFUSED


@pytest.mark.parametrize("policy", Policy)
async def test_policies(storage, speak, policy):
    """WIRE-21: what each policy lets through with a token, with another and with none."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    far = int(NOW) + 86_400
    keys = [identity.prekey(kind, 1, expires=far) for kind in PreKeyKind]
    await storage.directory.add_prekeys("somebody", 1, keys)
    token = os.urandom(32)
    await storage.directory.set_policy("somebody", policy)
    await storage.directory.put_tokens("somebody", [os.urandom(32), token])
    for shown in (token, os.urandom(32), None):
        allowed = policy is Policy.EVERYONE or (policy is Policy.CONTACTS and shown is token)
        stored = Stored.NEW if allowed else Stored.REFUSED
        assert await put(storage, DEVICE, shown=shown) is stored
        handed_out = await storage.directory.take_bundle("somebody", None, shown, NOW)
        assert (handed_out is not None) is allowed


async def test_invitations(nodes, speak):
    """WIRE-25: the token of an invitation is good at every node until it expires or is replaced."""
    first, second = (node.storage for node in nodes)
    await first.directory.create(account(speak)[1])
    await first.directory.set_policy("somebody", Policy.CONTACTS)
    token, other = os.urandom(32), os.urandom(32)
    end = int(NOW) + 60
    await first.directory.put_invitations("somebody", [Invitation(token, end)])
    assert await put(second, DEVICE, shown=token, now=end - 1) is Stored.NEW
    assert await put(second, DEVICE, shown=token, now=end) is Stored.REFUSED
    await second.directory.put_invitations("somebody", [Invitation(other, end)])
    assert await put(first, DEVICE, shown=token) is Stored.REFUSED
    assert await put(first, DEVICE, shown=other) is Stored.NEW
    await first.directory.set_policy("somebody", Policy.NOBODY)
    assert await put(second, DEVICE, shown=other) is Stored.REFUSED
    await first.directory.set_policy("somebody", Policy.CONTACTS)
    await first.mailbox.sweep(end)
    assert await put(second, DEVICE, shown=other, now=NOW) is Stored.REFUSED
    await first.directory.put_invitations("nobody", [Invitation(other, end)])


async def test_registration_codes(nodes, speak):
    """WIRE-19: of many who register with one code at once, at two nodes, one gets an account."""
    directory = nodes[0].storage.directory
    code = CodeUse(os.urandom(32), NOW)
    await directory.add_codes([code.hash], int(NOW) + 60)
    made, refused = [], []

    async def register(number):
        somebody = account(speak, f"name_{number}")[1]
        try:
            await nodes[number % 2].storage.directory.create(somebody, code)
            made.append(somebody)
        except RefusedError as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(register, number)
    assert refused == [ErrorCode.REGISTRATION_CLOSED] * 9
    await directory.create(made[0], code)  # the same once more: its reply was lost
    stored = [await directory.account(f"name_{number}") for number in range(10)]
    assert [other for other in stored if other is not None] == made


async def test_registration_that_is_repeated_at_once(nodes, speak):
    """WIRE-10, WIRE-19: a registration that is repeated while it goes on succeeds at both nodes."""
    directories = [node.storage.directory for node in nodes]
    for number in range(10):
        code, somebody = CodeUse(os.urandom(32), NOW), account(speak, f"somebody{number}")[1]
        await directories[0].add_codes([code.hash], int(NOW) + 60)
        async with trio.open_nursery() as nursery:
            for directory in directories:
                nursery.start_soon(directory.create, somebody, code)


async def test_registration_code_that_stays(storage, speak):
    """WIRE-19: a registration that is refused uses up no code; an expired code is none."""
    directory = storage.directory
    code = CodeUse(os.urandom(32), NOW)
    await directory.add_codes([code.hash], int(NOW) + 60)
    await directory.create(account(speak)[1])
    with pytest.raises(RefusedError) as caught:
        await directory.create(account(speak)[1], code)
    assert caught.value.code is ErrorCode.USERNAME_TAKEN
    late = replace(code, now=NOW + 60)
    for bad in (late, CodeUse(os.urandom(32), NOW)):
        for name in ("somebody", "another"):  # it tells nothing about the name
            with pytest.raises(RefusedError) as caught:
                await directory.create(account(speak, name)[1], bad)
            assert caught.value.code is ErrorCode.REGISTRATION_CLOSED
    await directory.create(account(speak, "another")[1], code)
    await directory.add_codes([code.hash], int(NOW) + 60)
    await storage.mailbox.sweep(NOW + 60)
    with pytest.raises(RefusedError):
        await directory.create(account(speak, "third")[1], code)


async def test_poisonous_envelope(storage, speak):
    """WIRE-37: what was first five times and never acknowledged is set aside; the rest comes."""
    await storage.directory.create(account(speak)[1])
    for envelope in (b"poison", b"second", b"third"):
        await put(storage, DEVICE, envelope)
    for _ in range(MAX_TRIES):
        mails = await read(storage, DEVICE)
        assert [mail.envelope for mail in mails] == [b"poison", b"second", b"third"]
    for mail in (await read(storage, DEVICE), await read(storage, DEVICE)):
        assert [other.envelope for other in mail] == [b"second", b"third"]
    await storage.mailbox.remove([(DEVICE, mail[0].row)], NOW)
    assert [mail.envelope for mail in await read(storage, DEVICE)] == [b"third"]
    assert await storage.mailbox.count_set_aside(DEVICE) == 1
    assert await storage.mailbox.count_set_aside(BoxMailbox(bytes(32))) == 0
    assert await storage.mailbox.count_set_aside() == 1


async def test_totals(storage, speak):
    """What there is of everything can be counted, names left out."""
    identity, stored = account(speak)
    await storage.directory.create(stored)
    await storage.directory.create(account(speak, "another")[1])
    await storage.directory.delete("another")
    keys = [identity.prekey(kind, 1, expires=int(NOW) + 60) for kind in PreKeyKind]
    await storage.directory.add_prekeys(stored.username, 1, keys)
    await storage.mailbox.open_box(BoxMailbox(bytes(32)), NOW)
    await put(storage, DEVICE, b"12345")
    assert await storage.directory.totals() == Totals(1, 1, 1, 2, 1, 1, 1, 5, 0)


async def test_tries_are_of_the_first(storage, speak):
    """WIRE-37: waiting behind others is no try, however often those are read."""
    await storage.directory.create(account(speak)[1])
    count = MAX_TRIES + 3
    for number in range(count):
        await put(storage, DEVICE, b"%d" % number)
    for number in range(count):
        mails = await read(storage, DEVICE)
        assert [mail.envelope for mail in mails] == [b"%d" % n for n in range(number, count)]
        claim = await storage.presence.claim(DEVICE)
        assert await storage.mailbox.read(claim, mails[0].row, 99, NOW) == mails[1:]
        await storage.mailbox.remove([(DEVICE, mails[0].row)], NOW)


async def test_low_prekeys_at_another_node(nodes):
    """WIRE-18: a device learns at whatever node it is that its prekeys run out."""
    reader, _ = await reads(nodes[1], DEVICE)
    nodes[0].storage.bus.low(DEVICE)
    await reader.hears("low", None)
    nodes[1].storage.bus.low(DEVICE)
    nodes[1].storage.bus.low(DeviceMailbox("nobody", 1))


async def test_removed_device(nodes, speak):
    """WIRE-13: a device that a newer list lacks loses prekeys and mail."""
    first, second = (node.storage for node in nodes)
    identity, somebody = account(speak)
    identity.devices[2] = identity.devices[1]
    identity.records[2] = identity.record(2)
    signed = identity.device_list(expires=int(NOW) + 86_400)
    both = replace(somebody, signed_list=signed, device_list=read_list(signed), newest_device_id=2)
    await first.directory.create(both)
    other = DeviceMailbox("somebody", 2)
    assert await put(second, other) is Stored.NEW
    del identity.records[2]
    shorter = identity.next_list(signed, expires=int(NOW) + 86_400)
    await first.directory.replace_device_list(
        replace(both, signed_list=shorter, device_list=read_list(shorter))
    )
    assert await put(second, other) is Stored.REFUSED
    assert await read(second, other) == []
    assert await put(second, DEVICE) is Stored.NEW


async def test_mail_is_in_order(nodes):
    """STORAGE-03: who reads on from the last row misses nothing that was stored meanwhile."""
    box = BoxMailbox(bytes(32))
    await nodes[0].storage.mailbox.open_box(box, NOW)
    _, claim = await reads(nodes[1], box)
    stored, seen = [], []

    async def send(node, number):
        envelope = b"%d" % number
        assert await put(node.storage, box, envelope) is Stored.NEW
        stored.append(envelope)

    async def follow():
        after = 0
        while len(seen) < 60:
            for mail in await nodes[1].storage.mailbox.read(claim, after, 8, NOW):
                seen.append(mail.envelope)
                after = mail.row

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            for number in range(60):
                nursery.start_soon(send, nodes[number % 2], number)
    assert sorted(seen) == sorted(stored)


async def test_a_repeated_message(nodes):
    """WIRE-30: of many Sends with one message id, at any node, one is stored."""
    box, message_id = BoxMailbox(bytes(32)), os.urandom(16)
    await nodes[0].storage.mailbox.open_box(box, NOW)
    results = []

    async def send(node):
        results.append(await put(node.storage, box, message_id=message_id))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(send, nodes[number % 2])
    assert results.count(Stored.NEW) == 1
    assert results.count(Stored.AGAIN) == 9
    assert len(await read(nodes[1].storage, box)) == 1


async def test_a_full_mailbox(nodes):
    """W6, WIRE-35: concurrent senders at two nodes cannot fill a mailbox beyond its capacity."""
    box = BoxMailbox(bytes(32))
    await nodes[0].storage.mailbox.open_box(box, NOW)
    results = []

    async def send(node):
        results.append(await put(node.storage, box))

    async with trio.open_nursery() as nursery:
        for number in range(box.capacity.envelopes + 10):
            nursery.start_soon(send, nodes[number % 2])
    assert results.count(Stored.FULL) == 10
    mails = await read(nodes[1].storage, box, limit=999)
    assert len(mails) == box.capacity.envelopes
    await nodes[0].storage.mailbox.remove([(box, mail.row) for mail in mails[:5]], NOW)
    assert await put(nodes[1].storage, box) is Stored.NEW


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


async def test_a_clock_that_jumps(storage):
    """STORAGE-13: mail that a wrong clock calls expired is still there when the clock is right; an
    hour after a jump, and while the node is told to be in step with the others, it goes.
    """
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    assert await put(storage, box) is Stored.NEW
    guard, readers = ClockGuard(), Readers()
    end = NOW + MAIL_LIFETIME

    async def sweep(wall, steady, *, can_store=True):
        node = SimpleNamespace(
            mailbox=storage.mailbox, readers=readers, clock=lambda: wall, can_store=can_store
        )
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
