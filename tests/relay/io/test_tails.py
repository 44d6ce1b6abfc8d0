"""Mail that is held for readers who have read everything before it (spec/decisions/0048)."""

import os
import random

import pytest
import trio
import trio.lowlevel

from relay.io.memory import MemoryPresence
from relay.io.sqlite import open_storage
from relay.io.tails import MAX_BYTES, Tails
from relay.services.delivery import BATCH, Readers
from relay.services.mailbox import BoxMailbox, Letter, Mail, Stored
from tests.relay.io.storing import NOW

BOX, OTHER = BoxMailbox(bytes(32)), BoxMailbox(bytes([1]) * 32)


def mails(*rows, size=1):
    return [Mail(row, bytes(size)) for row in rows]


def test_only_what_is_complete():
    """What is held is said only to who has read everything before it, and once."""
    tails = Tails()
    tails.came(BOX, Mail(1, b"before"))
    assert tails.read(BOX, 1, 9) is None
    tails.was_read(BOX, 4)
    tails.came(OTHER, Mail(5, b"elsewhere"))
    for mail in mails(6, 7, 8):
        tails.came(BOX, mail)
    assert tails.read(BOX, 3, 9) is None
    assert tails.read(BOX, 4, 2) == mails(6, 7)
    assert tails.read(BOX, 4, 2) is None  # what was said once is the storage's to say again
    assert tails.read(BOX, 7, 2) == mails(8)
    assert tails.read(BOX, 8, 2) == []
    tails.forget(BOX)
    assert tails.read(BOX, 8, 2) is None


def test_slow_readers():
    """Of a mailbox that nobody empties nothing is held, and never too much of all together."""
    tails = Tails()
    tails.was_read(BOX, 1)
    for mail in mails(*range(2, 3 + BATCH)):
        tails.came(BOX, mail)
    assert tails.read(BOX, 1, 99) is None
    boxes = [BoxMailbox(number.to_bytes(32)) for number in range(20)]
    for box in boxes:
        tails.was_read(box, 1)
    for box in boxes:
        tails.came(box, Mail(2, bytes(MAX_BYTES // 10)))
    assert sum(bool(tails.read(box, 1, 9)) for box in boxes) <= 10


@pytest.mark.trio
@pytest.mark.parametrize("seed", range(4))
async def test_the_same_as_the_storage(tmp_path, seed):
    """STORAGE-03: readers that come, go, lag and acknowledge get every envelope, in order, once,
    while several senders write at the same time; and nothing is held for whom nobody reads.
    """
    source = random.Random(seed)
    async with open_storage(tmp_path / "relay.sqlite", Readers()) as storage:
        mailbox, presence = storage.mailbox, storage.presence
        tails, sent, stored = presence._tails, 80, 0
        assert isinstance(presence, MemoryPresence)
        await mailbox.open_box(BOX, NOW)

        async def send():
            nonlocal stored
            left = sent // 4
            while left:
                count = min(left, source.choice((1, 3)))
                letters = [Letter(os.urandom(16), b"sealed") for _ in range(count)]
                assert set(await mailbox.put(BOX, letters, None, NOW)) == {Stored.NEW}
                stored += count
                left -= count
                if source.random() < 0.2:
                    await trio.lowlevel.checkpoint()

        got = []
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(send)
            with trio.fail_after(60):
                while len(got) < sent:
                    # A new reader begins with what was not acknowledged.
                    claim, position, taken = await presence.claim(BOX), 0, []
                    for _ in range(source.randint(1, 30)):
                        limit = source.choice((1, 2, BATCH))
                        alone = mailbox.take_only(claim, position)
                        read = [alone] if alone else []
                        if read := read or await mailbox.read(claim, position, limit, NOW):
                            position = read[-1].row
                            taken += read
                        await trio.lowlevel.checkpoint()
                    await mailbox.remove([(BOX, mail.row) for mail in taken], NOW)
                    got += taken
                    await presence.release([claim])
        assert stored == sent
        rows = [mail.row for mail in got]
        assert rows == sorted(set(rows))
        assert not tails._tails
        assert not tails._bytes
