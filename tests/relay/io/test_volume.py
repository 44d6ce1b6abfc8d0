"""A relay that has stored as much as it may (spec/wire.md STORAGE-15)."""

import os

import pytest
import trio

from relay.wire.limits import MAX_ENVELOPE
from relay.wire.messages import (
    Ack,
    BoxRecipient,
    Deliver,
    Done,
    ErrorCode,
    Failure,
    OpenBox,
    PublishPrekeys,
    PutTokens,
    Send,
)
from relay.wire.records import PreKeyKind
from tests.relay.conftest import Identity, letter, registered, token_hash, wire
from tests.relay.nodes import node_config

pytestmark = pytest.mark.trio

MOST = 2_000_000
TOKEN = bytes(16)
PATIENCE = 60


@pytest.fixture
def small(server, start_relay, tmp_path):
    """A relay that may store 2 MB."""
    environment = {"RELAY__LIMITS__STORED_BYTES": str(MOST)}
    dsn = None if server is None else server.database()
    path = node_config(tmp_path / "node", "north", dsn)
    return start_relay("--config", path, dev=False, environment=environment)


async def is_stored(client, request):
    """Ask for something to be stored; return whether it was, or is to be tried later."""
    reply = await client.request(request)
    if isinstance(reply, Failure):
        assert (reply.code, reply.retry_after > 0) == (ErrorCode.RETRY, True)
        return False
    return True


async def fill(client, name, token=None):
    """Send until nothing more is taken; return how many envelopes were."""
    count = 0
    while await is_stored(client, letter(name, os.urandom(MAX_ENVELOPE), token=token)):
        count += 1
    return count


async def newcomer_is_taken(relay):
    """Register somebody; return whether that was possible."""
    async with wire(relay.url) as client:
        newcomer = Identity("u" + os.urandom(8).hex(), client.hello.relay)
        return await is_stored(client, newcomer.register(client.hello))


async def test_what_nobody_stores_takes_no_room(small, username):
    """STORAGE-15: envelopes for boxes and names that there are not leave all room to others."""
    async with registered(small.url, username) as (owner, _), wire(small.url) as sender:
        assert await owner.request(PutTokens((token_hash(TOKEN),))) == Done()
        for _ in range(MOST // MAX_ENVELOPE):
            nowhere = BoxRecipient(os.urandom(32))
            assert await is_stored(sender, Send(nowhere, os.urandom(16), bytes(MAX_ENVELOPE), None))
            nobody = letter("nobody", bytes(MAX_ENVELOPE), token=os.urandom(16))
            assert await is_stored(sender, nobody)
        assert await is_stored(sender, letter(username, bytes(MAX_ENVELOPE), token=TOKEN))
        assert (await owner.push()).envelope == bytes(MAX_ENVELOPE)


async def test_a_full_store(small, username):
    """STORAGE-15: a relay that is full says so to everybody alike; tokens, calls and
    acknowledgements go on for longest, nothing that was taken is lost, and then there is room.
    """
    async with registered(small.url, username) as (owner, identity):
        assert await owner.request(PutTokens((token_hash(TOKEN),))) == Done()
    async with wire(small.url) as sender, wire(small.url) as boxed:
        count = await fill(sender, username)
        assert 0 < count * MAX_ENVELOPE <= MOST * 3 // 4
        assert not await is_stored(sender, letter("nobody", bytes(MAX_ENVELOPE)))
        while await newcomer_is_taken(small):
            pass
        box = BoxRecipient((await boxed.request(OpenBox(os.urandom(32)))).box)
        assert await is_stored(sender, Send(box, os.urandom(16), b"a call", None))
        count += await fill(sender, username, TOKEN)
        assert MOST // 2 < count * MAX_ENVELOPE <= MOST
        assert not await is_stored(sender, Send(box, os.urandom(16), bytes(MAX_ENVELOPE), None))
        async with wire(small.url) as owner:
            assert await owner.request(identity.login(owner.hello)) == Done()
            keys = identity.one_time(
                PreKeyKind.ONE_TIME_MLKEM1024, 1, 27
            )  # larger than an envelope
            assert not await is_stored(owner, PublishPrekeys(keys))
            for _ in range(count):
                push = await owner.push()
                assert isinstance(push, Deliver)
                assert await owner.request(Ack((push.delivery_id,))) == Done()
            with trio.fail_after(PATIENCE):
                while not await is_stored(sender, letter(username, b"again")):  # noqa: ASYNC110 - as clients do
                    await trio.sleep(0.2)
            assert (await owner.push()).envelope == b"again"
