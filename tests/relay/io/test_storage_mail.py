"""What every storage backend does alike with mail (spec/wire.md, Mailboxes).

Each test runs on two nodes: on two that share a database, or twice on the only one.
"""

import os

import pytest
import trio

from relay.errors import RefusedError
from relay.io.postgres_mailbox import PostgresMailbox
from relay.io.sqlite import SQLiteStorage
from relay.io.sqlite_mailbox import SQLiteMailbox
from relay.io.tails import Tails
from relay.services.mailbox import (
    BOX_GRACE,
    BOX_IDLE_LIFETIME,
    MAIL_LIFETIME,
    MAX_TRIES,
    TOMBSTONE_LIFETIME,
    BoxMailbox,
    Letter,
    Stored,
)
from relay.services.policy import token_hash
from relay.wire.messages import Invitation
from tests.relay.io.storing import DEVICE, NOW, PATIENCE, account, put, read, reads

pytestmark = pytest.mark.trio


@pytest.fixture
def crowded(storage):
    """Give the mailboxes of a relay that has room for three reply boxes."""
    if isinstance(storage, SQLiteStorage):
        return SQLiteMailbox(storage.writer, storage.presence, Tails(), max_boxes=3)
    return PostgresMailbox(storage.pool, max_boxes=3)


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
    assert await crowded.put(full, [Letter(bytes(16), b"sealed")], None, NOW) == [Stored.NEW]
    soon, later = NOW + BOX_GRACE - 1, NOW + BOX_GRACE
    with pytest.raises(RefusedError):
        await crowded.open_box(late[0], soon)
    await crowded.keep(soon, [read_by_somebody])
    await crowded.sweep(soon)
    await crowded.open_box(late[0], later)
    with pytest.raises(RefusedError):
        await crowded.open_box(late[1], later)
    found = {
        box: await crowded.put(box, [Letter(os.urandom(16), b"sealed")], None, later)
        for box in boxes
    }
    stored, refused = [Stored.NEW], [Stored.REFUSED]
    assert [found[box] for box in (full, read_by_somebody, late[0])] == [stored] * 3
    assert [found[box] for box in (idle, late[1])] == [refused] * 2


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


def token(number):
    """Return the hash of a delivery token."""
    return token_hash(bytes([number]) * 16)


async def test_strangers_leave_room(nodes, speak):
    """WIRE-57: strangers fill three quarters of a mailbox, and what shows a good token the rest."""
    north, south = nodes
    await north.storage.directory.create(account(speak)[1])
    await north.storage.directory.put_tokens("somebody", [token(1)])
    expires = int(NOW) + 60
    await north.storage.directory.put_invitations("somebody", [Invitation(token(2), expires)])
    share, size = DEVICE.capacity.of_strangers, 40_000
    count = share.total_bytes // size
    first = os.urandom(16)
    assert await put(north.storage, DEVICE, bytes(size), message_id=first) is Stored.NEW
    for _ in range(count - 1):
        assert await put(north.storage, DEVICE, bytes(size)) is Stored.NEW
    for node in nodes:
        assert await put(node.storage, DEVICE, bytes(size)) is Stored.FULL
        assert await put(node.storage, DEVICE, bytes(size), message_id=first) is Stored.AGAIN
    # Who was blocked is answered as those are who were not: nobody sees REFUSED.
    assert await put(south.storage, DEVICE, bytes(size), shown=token(3)) is Stored.REFUSED
    for number in (1, 2):
        shown = token(number)
        assert await put(south.storage, DEVICE, bytes(size), shown=shown) is Stored.NEW
    while (stored := await put(north.storage, DEVICE, bytes(size), shown=token(1))) is Stored.NEW:
        count += 1
    assert stored is Stored.FULL
    assert (count + 2) * size > DEVICE.capacity.total_bytes - size
    # Then nobody sees a difference between tokens either.
    assert await put(south.storage, DEVICE, bytes(size), shown=token(3)) is Stored.FULL
    assert len(await read(south.storage, DEVICE, limit=1000)) == count + 2


async def test_a_full_store_takes_no_strangers(storage, speak):
    """STORAGE-15: where the store is nearly full, mail needs a good token or a reply box."""
    await storage.directory.create(account(speak)[1])
    await storage.directory.put_tokens("somebody", [token(1)])
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)

    async def outcome(mailbox, shown):
        letter = Letter(os.urandom(16), b"sealed")
        (stored,) = await storage.mailbox.put(mailbox, [letter], shown, NOW, takes_strangers=False)
        return stored

    assert await outcome(DEVICE, None) is Stored.FULL
    assert await outcome(DEVICE, token(2)) is Stored.REFUSED
    assert await outcome(DEVICE, token(1)) is Stored.NEW
    assert await outcome(box, None) is Stored.NEW


async def test_usage(storage, speak):
    """STORAGE-15: a store says how much it holds, and less again when mail was acknowledged."""
    await storage.directory.create(account(speak)[1])
    before = (await storage.directory.usage()).held
    for _ in range(50):
        await put(storage, DEVICE, bytes(40_000))
    full = (await storage.directory.usage()).held
    assert 50 * 40_000 <= full - before < 60 * 40_000
    mails = await read(storage, DEVICE)
    await storage.mailbox.remove([(DEVICE, mail.row) for mail in mails], NOW)
    assert (await storage.directory.usage()).held - before < 10 * 40_000


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


async def test_tries_that_did_not_arrive(storage, speak):
    """WIRE-37: what did not arrive was not tried."""
    await storage.directory.create(account(speak)[1])
    await put(storage, DEVICE, b"lost on the way")
    for _ in range(2 * MAX_TRIES):
        (mail,) = await read(storage, DEVICE)
        await storage.mailbox.untry([(DEVICE, mail.row)])
    await storage.mailbox.untry([(DEVICE, mail.row)])  # none is left to be taken back
    for _ in range(MAX_TRIES):
        assert await read(storage, DEVICE) == [mail]
    assert await read(storage, DEVICE) == []


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


async def test_several_at_once(nodes):
    """WIRE-61, WIRE-30: of several envelopes each is stored once, in their order."""
    box, (north, south) = BoxMailbox(bytes(32)), nodes
    await north.storage.mailbox.open_box(box, NOW)
    one, two, three = letters = [Letter(os.urandom(16), b"%d" % number) for number in range(3)]
    new, again = Stored.NEW, Stored.AGAIN
    assert await north.storage.mailbox.put(box, [two], None, NOW) == [new]
    stored = await south.storage.mailbox.put(box, [one, two, one, three], None, NOW)
    assert stored == [new, again, again, new]
    assert await north.storage.mailbox.put(box, letters, None, NOW) == [again] * 3
    mails = await read(south.storage, box)
    assert [mail.envelope for mail in mails] == [b"1", b"0", b"2"]
    await north.storage.mailbox.remove([(box, mail.row) for mail in mails], NOW)
    assert await read(south.storage, box) == []
    assert await south.storage.mailbox.put(box, letters, None, NOW) == [again] * 3
    for _ in range(box.capacity.envelopes):  # which are all that counts
        assert await put(north.storage, box) is new
    assert await put(north.storage, box) is Stored.FULL


async def test_several_that_fill_a_mailbox(storage):
    """WIRE-61, WIRE-35: of several envelopes as many are stored as there is room for."""
    box = BoxMailbox(bytes(32))
    await storage.mailbox.open_box(box, NOW)
    known = os.urandom(16)
    assert await put(storage, box, message_id=known) is Stored.NEW
    for _ in range(box.capacity.envelopes - 3):
        await put(storage, box)
    ids = [os.urandom(16), known, os.urandom(16), os.urandom(16), known]
    stored = await storage.mailbox.put(box, [Letter(one, b"sealed") for one in ids], None, NOW)
    assert stored == [Stored.NEW, Stored.AGAIN, Stored.NEW, Stored.FULL, Stored.AGAIN]
    mails = await read(storage, box, limit=999)
    assert len(mails) == box.capacity.envelopes


async def test_several_for_nobody(storage):
    """WIRE-61: several envelopes for a box that does not exist are refused, also a repeated one."""
    letters = [Letter(number.to_bytes(16), b"sealed") for number in (1, 2, 1)]
    box = BoxMailbox(bytes(32))
    assert await storage.mailbox.put(box, letters, None, NOW) == [Stored.REFUSED] * 3
    await storage.mailbox.open_box(box, NOW)
    assert await read(storage, box) == []


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
