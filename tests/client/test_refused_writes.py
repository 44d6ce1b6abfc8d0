"""What a disk that refuses a write costs (spec/store.md, "Inbox"): nothing."""

import pytest

from e2ecall.client.calllink import CallLink
from e2ecall.errors import StoreError
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.store import RecordKind
from e2ecall.protocol.messages import PayloadKind
from relay.wire.messages import Deliver
from tests.client.devices import RELAY, devices

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("first", [True, False], ids=["first_contact", "known_peer"])
async def test_the_text_comes_again(tmp_path, monkeypatch, first):
    """INBOX-05: after a write that failed nothing has changed, and the same envelope is read."""
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        if not first:
            await bob.receive(await alice.send(bob, b"hello"))
            await alice.receive(await bob.send(alice, b"hello"))
        envelope = await alice.send(bob, b"text")
        before = {kind: bob.store.all(kind) for kind in RecordKind}

        def full(_changes):
            raise StoreError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(bob.store._file, "commit", full)
            with pytest.raises(StoreError):
                await bob.receive(envelope)
        assert {kind: bob.store.all(kind) for kind in RecordKind} == before
        assert (await bob.receive(envelope)).payload.body == b"text"


async def test_in_the_box_of_a_call(tmp_path, monkeypatch):
    """INBOX-05: nor does a call's line take, and acknowledge, what could not be written."""
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        link = CallLink(alice.sessions, RelayEndpoint.of_name(RELAY), None, bob.address)
        link._box = bytes(32)
        link.on_message(lambda _: None)
        envelope = await bob.send(alice, b"a call message", kind=PayloadKind.CALL)

        def full(_changes):
            raise StoreError("the disk is full")

        monkeypatch.setattr(alice.store._file, "commit", full)
        with pytest.raises(StoreError):
            await link._handle(Deliver(1, bytes(32), envelope))
