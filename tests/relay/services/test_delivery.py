"""Handing out mail and who reads it (spec/wire.md, Delivery)."""

from relay.services.delivery import BATCH, WINDOW, Claim, DeliveryQueue, Readers
from relay.services.mailbox import BoxMailbox, DeviceMailbox, Mail
from relay.wire.messages import Deliver

DEVICE = DeviceMailbox("somebody", 1)
BOX = BoxMailbox(bytes(32))


class Storage:
    """A mailbox's mail, as a backend would give it."""

    def __init__(self, count):
        self.mails = [Mail(row, b"%d" % row) for row in range(10, 10 + count)]

    def read(self, fetch):
        return [mail for mail in self.mails if mail.row > fetch.after][: fetch.limit]


def drain(queue, storage):
    pushes = []
    while fetch := queue.next_fetch():
        pushes += queue.fetched(fetch, storage.read(fetch))
    return pushes


class Reader:
    def __init__(self):
        self.hints, self.losses, self.expiries = [], [], []
        self.lows = 0

    def hint(self, mailbox):
        self.hints.append(mailbox)

    def lost(self, mailbox):
        self.losses.append(mailbox)

    def expired(self, mailbox):
        self.expiries.append(mailbox)

    def low(self):
        self.lows += 1


def test_everything_in_order():
    """All mail of a mailbox comes once and in order, over several reads."""
    queue, storage = DeliveryQueue(), Storage(3 * BATCH)
    queue.attach(DEVICE)
    pushes = drain(queue, storage)
    assert [push.envelope for push in pushes] == [mail.envelope for mail in storage.mails]
    assert [push.delivery_id for push in pushes] == list(range(1, 3 * BATCH + 1))
    assert drain(queue, storage) == []


def test_window():
    """WIRE-32: at most 32 deliveries are unacknowledged; an acknowledgement makes room."""
    queue, storage = DeliveryQueue(), Storage(WINDOW + 5)
    queue.attach(DEVICE)
    assert len(drain(queue, storage)) == WINDOW
    assert queue.places([1, 2]) == [(DEVICE, 10), (DEVICE, 11)]
    queue.acknowledged([1, 2])
    assert len(drain(queue, storage)) == 2


def test_acknowledge_only_what_was_given():
    """WIRE-33: unknown, repeated and foreign delivery ids name nothing."""
    queue, storage = DeliveryQueue(), Storage(1)
    queue.attach(DEVICE)
    drain(queue, storage)
    for _ in range(2):  # until it is said that they are forgotten
        assert queue.places([7, 1, 1]) == [(DEVICE, 10)]
    queue.acknowledged([7, 1, 1])
    assert queue.places([1]) == []


def test_hint_brings_new_mail():
    """A hint leads to another read, from where the last ended."""
    queue, storage = DeliveryQueue(), Storage(1)
    queue.attach(DEVICE)
    drain(queue, storage)
    storage.mails.append(Mail(99, b"new"))
    assert drain(queue, storage) == []
    queue.hint(DEVICE)
    assert drain(queue, storage) == [Deliver(2, None, b"new")]


def test_hint_during_a_read():
    """A hint that comes between a read and its result is not lost."""
    queue, storage = DeliveryQueue(), Storage(1)
    queue.attach(DEVICE)
    fetch = queue.next_fetch()
    found = storage.read(fetch)
    queue.hint(DEVICE)
    storage.mails.append(Mail(99, b"new"))
    assert [push.envelope for push in queue.fetched(fetch, found)] == [b"10"]
    assert [push.envelope for push in drain(queue, storage)] == [b"new"]


def test_box_is_named():
    """Mail of a reply box says for which box it is."""
    queue = DeliveryQueue()
    queue.attach(BOX)
    assert drain(queue, Storage(1)) == [Deliver(1, BOX.box, b"10")]


def test_detached_is_silent():
    """What is read for a mailbox that another connection took over is not delivered here."""
    queue, storage = DeliveryQueue(), Storage(2)
    queue.attach(BOX)
    fetch = queue.next_fetch()
    queue.detach(BOX)
    assert queue.fetched(fetch, storage.read(fetch)) == []
    assert queue.next_fetch() is None
    queue.hint(BOX)
    assert queue.next_fetch() is None


def test_opened_anew_during_a_read():
    """What is read for a mailbox that was lost and opened anew meanwhile makes nothing of it be
    skipped: it is delivered from its oldest mail.
    """
    queue, storage = DeliveryQueue(), Storage(BATCH + 2)
    queue.attach(BOX)
    given = queue.fetched(fetch := queue.next_fetch(), storage.read(fetch))
    fetch = queue.next_fetch()
    queue.detach(BOX)
    queue.attach(BOX)
    assert queue.fetched(fetch, storage.read(fetch)) == []
    again = drain(queue, storage)
    assert [push.envelope for push in again] == [mail.envelope for mail in storage.mails]
    assert not {push.delivery_id for push in again} & {push.delivery_id for push in given}


def test_one_reader():
    """The latest reader of a mailbox is told of mail; the one before is told that it lost it."""
    readers, first, second = Readers(), Reader(), Reader()
    readers.attach(Claim(DEVICE, 1), first)
    readers.attach(Claim(DEVICE, 2), second)
    readers.detach(DEVICE, first)
    assert readers.hint(DEVICE)
    assert (first.losses, first.hints) == ([DEVICE], [])
    assert (second.losses, second.hints) == ([], [DEVICE])


def test_late_claim_does_not_displace():
    """STORAGE-05: an older claim that is attached late leaves the newer one in its place."""
    readers, first, second = Readers(), Reader(), Reader()
    readers.attach(Claim(DEVICE, 2), second)
    readers.attach(Claim(DEVICE, 1), first)
    readers.lost(DEVICE, 2)
    readers.hint(DEVICE)
    assert (second.losses, second.hints, first.hints) == ([], [DEVICE], [])


def test_reader_of_what_is_gone():
    """The reader of a mailbox that is gone is told so, once."""
    readers, reader = Readers(), Reader()
    readers.attach(Claim(BOX, 1), reader)
    assert readers.boxes() == [BOX]
    readers.lost(BOX)
    readers.lost(BOX)
    assert not readers.hint(BOX)
    assert (reader.losses, reader.hints, readers.claims()) == ([BOX], [], [])


def test_expired_claim():
    """Only the reader with exactly the expired claim is told."""
    readers, reader = Readers(), Reader()
    readers.attach(Claim(BOX, 2), reader)
    readers.expired(Claim(BOX, 1))
    assert reader.expiries == []
    readers.expired(Claim(BOX, 2))
    assert (reader.expiries, readers.claims()) == ([BOX], [])
