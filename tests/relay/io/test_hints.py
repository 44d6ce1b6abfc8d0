"""Hints to readers of what was stored (spec/wire.md STORAGE-06)."""

import os
from types import SimpleNamespace

import pytest
import trio

from relay.config import LimitsSection
from relay.io.metrics import Metrics
from relay.io.node import Quotas
from relay.io.requests import answer
from relay.services.mailbox import BoxMailbox
from relay.services.volume import Volume
from relay.wire.messages import BoxRecipient, Done, Send
from tests.relay.io.storing import NOW, read, reads

pytestmark = pytest.mark.trio

BOX = BoxMailbox(bytes(32))


@pytest.fixture
def session(storage):
    """What a request needs of a connection whose other end says nothing."""
    limits = LimitsSection()
    node = SimpleNamespace(
        bus=storage.bus,
        clock=lambda: NOW,
        directory=storage.directory,
        mailbox=storage.mailbox,
        presence=storage.presence,
        metrics=Metrics(),
        quotas=Quotas.of(limits, storage, per_address=False),
        volume=Volume(limits.stored_bytes),
    )
    return SimpleNamespace(node=node, source="192.0.2.1", came_for=storage.bus.hint)


async def test_a_sender_that_ends_early(nodes, session):
    """STORAGE-06: an envelope is stored, and the connection on which it came ends before its reader
    was told; a Send that is repeated tells the reader.
    """
    await session.node.mailbox.open_box(BOX, NOW)
    session.node.volume.is_due(trio.current_time())
    send = Send(BoxRecipient(BOX.box), os.urandom(16), b"sealed", None)
    with trio.CancelScope() as connection:
        connection.cancel()
        await answer(session, [send], 100)
    assert connection.cancelled_caught
    with trio.fail_after(30):
        while not await read(session.node, BOX):  # noqa: ASYNC110 - a thread stores it
            await trio.sleep(0.01)
    reader, _ = await reads(nodes[0], BOX)
    assert await answer(session, [send], 100) == [Done()]
    await reader.hears("hint", BOX)
