"""What the conformance tests of storage do at a node, with a clock of the test."""

import os

import trio

from relay.services.directory import Account, read_list
from relay.services.mailbox import DeviceMailbox, Letter
from relay.wire.messages import Policy

NOW = 1_800_000_000.0
DEVICE = DeviceMailbox("somebody", 1)
PATIENCE = 10.0


def account(speak, username="somebody"):
    identity = speak.Identity(username, "relay.example")
    signed = identity.device_list(expires=int(NOW) + 86_400 * 18)
    return identity, Account(username, signed, read_list(signed), 1, Policy.EVERYONE)


async def put(storage, mailbox, envelope=b"sealed", now=NOW, message_id=None, shown=None):
    letter = Letter(message_id or os.urandom(16), envelope)
    (stored,) = await storage.mailbox.put(mailbox, [letter], shown, now)
    return stored


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
