"""Envelopes through a running relay (spec/wire.md, Delivery)."""

import hashlib
import os

import pytest
import trio

from relay.services.mailbox import BOX_CAPACITY
from relay.wire.labels import labelled
from relay.wire.messages import (
    Ack,
    BoxOpened,
    BoxRecipient,
    Deliver,
    Done,
    ErrorCode,
    OpenBox,
    Policy,
    PutTokens,
    Send,
    SetPolicy,
)

pytestmark = pytest.mark.trio


async def test_online(relay, speak, username):
    """An anonymous Send reaches the device that is logged in."""
    async with speak.registered(relay.url, username) as (client, _):
        async with speak.wire(relay.url) as sender:
            assert await sender.request(speak.letter(username, b"first")) == Done()
            assert await sender.request(speak.letter(username, b"second")) == Done()
        assert await client.push() == Deliver(1, None, b"first")
        assert await client.push() == Deliver(2, None, b"second")
        assert await client.request(Ack((1, 2))) == Done()


async def test_offline(relay, speak, username):
    """What came in while a device was away is delivered in order when it logs in."""
    async with speak.registered(relay.url, username) as (_, identity):
        pass
    envelopes = [b"%d" % number for number in range(50)]
    async with speak.wire(relay.url) as sender:
        for envelope in envelopes:
            assert await sender.request(speak.letter(username, envelope)) == Done()
    async with speak.wire(relay.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()
        assert await client.deliveries(50) == envelopes


async def test_until_acknowledged(relay, speak, username):
    """WIRE-31: an envelope comes again at every log-in until it is acknowledged, then never."""
    async with speak.registered(relay.url, username) as (client, identity):
        assert await client.request(speak.letter(username, b"sealed")) == Done()
        assert (await client.push()).envelope == b"sealed"
    for _ in range(2):
        async with speak.wire(relay.url) as client:
            assert await client.request(identity.login(client.hello)) == Done()
            delivery = await client.push()
            assert delivery.envelope == b"sealed"
    async with speak.wire(relay.url) as client:
        await client.request(identity.login(client.hello))
        await client.deliveries(1)
    async with speak.wire(relay.url) as client:
        await client.request(identity.login(client.hello))
        await client.request(speak.letter(username, b"next"))
        assert (await client.push()).envelope == b"next"


async def test_idempotent(relay, speak, username):
    """WIRE-30: a message id is stored once per recipient, also after its acknowledgement."""
    async with speak.registered(relay.url, username) as (client, _):
        letter = speak.letter(username, b"once")
        for _ in range(3):
            assert await client.request(letter) == Done()
        assert await client.deliveries(1) == [b"once"]
        assert await client.request(letter) == Done()
        assert await client.request(speak.letter(username, b"last")) == Done()
        assert await client.deliveries(1) == [b"last"]


async def test_send_answers_alike(relay, speak, username):
    """WIRE-20: Send to nobody, to a foreign device, without a token, to no box: the same Done."""
    async with speak.registered(relay.url, username) as (client, _):
        assert await client.request(SetPolicy(Policy.CONTACTS)) == Done()
        token = os.urandom(16)
        assert await client.request(PutTokens((speak.token_hash(token),))) == Done()
        async with speak.wire(relay.url) as sender:
            replies = [
                await sender.request(letter)
                for letter in (
                    speak.letter(username + "x"),
                    speak.letter("Not A Name"),
                    speak.letter(username, device_id=9),
                    speak.letter(username),
                    speak.letter(username, token=os.urandom(16)),
                    Send(BoxRecipient(os.urandom(32)), os.urandom(16), b"x", None),
                    speak.letter(username, b"with a token", token=token),
                )
            ]
        assert replies == [Done()] * 7
        # Only the one with a current token arrives.
        assert await client.deliveries(1) == [b"with a token"]
        await client.request(speak.letter(username, b"the end", token=token))
        assert await client.deliveries(1) == [b"the end"]


async def test_box(relay, speak):
    """A reply box takes mail from anonymous connections and is opened again by its key."""
    key = os.urandom(32)
    box = hashlib.sha256(labelled("box", key)).digest()
    async with speak.wire(relay.url) as sender:
        async with speak.wire(relay.url) as reader:
            assert await reader.request(OpenBox(key)) == BoxOpened(box)
            letter = Send(BoxRecipient(box), os.urandom(16), b"reply", None)
            assert await sender.request(letter) == Done()
            assert await reader.push() == Deliver(1, box, b"reply")
        await sender.request(Send(BoxRecipient(box), os.urandom(16), b"second", None))
        async with speak.wire(relay.url) as reader:
            assert await reader.request(OpenBox(key)) == BoxOpened(box)
            assert await reader.deliveries(2) == [b"reply", b"second"]


async def test_box_has_one_reader(relay, speak):
    """The latest connection that opened a box reads it; the one before stays connected."""
    key = os.urandom(32)
    async with speak.wire(relay.url) as first, speak.wire(relay.url) as second:
        box = (await first.request(OpenBox(key))).box
        await second.request(OpenBox(key))
        await second.request(Send(BoxRecipient(box), os.urandom(16), b"reply", None))
        assert (await second.push()).envelope == b"reply"
        assert await first.request(OpenBox(os.urandom(32)))
        assert not first.pushes


async def test_boxes_per_connection(relay, speak):
    """WIRE-34: a connection reads at most nine mailboxes."""
    async with speak.wire(relay.url) as client:
        keys = [os.urandom(32) for _ in range(10)]
        replies = [await client.request(OpenBox(key)) for key in keys]
        assert all(isinstance(reply, BoxOpened) for reply in replies[:9])
        assert replies[9].code is ErrorCode.TOO_MANY


async def test_full_mailbox(relay, speak):
    """W6: a mailbox is capped; its owner still reads and acknowledges, and then it takes more."""
    async with speak.wire(relay.url) as reader, speak.wire(relay.url) as sender:
        box = (await reader.request(OpenBox(os.urandom(32)))).box

        async def send(envelope):
            return await sender.request(Send(BoxRecipient(box), os.urandom(16), envelope, None))

        for number in range(BOX_CAPACITY.envelopes):
            assert await send(b"%d" % number) == Done()
        reply = await send(b"too much")
        assert (reply.code, reply.retry_after > 0) == (ErrorCode.TOO_MANY, True)
        assert await reader.deliveries(2) == [b"0", b"1"]
        assert await send(b"more") == Done()


async def test_acknowledge_anything(relay, speak):
    """WIRE-33: acknowledging what was never delivered does nothing."""
    async with speak.wire(relay.url) as client:
        assert await client.request(Ack((1, 2, 2**62))) == Done()


async def test_many_at_once(relay, speak, username):
    """Fifty senders at once: everything arrives exactly once, each sender's in order."""
    senders, each = 50, 4

    async def send(number):
        async with speak.wire(relay.url) as sender:
            ids = [
                await sender.send(speak.letter(username, b"%d.%d" % (number, index)))
                for index in range(each)
            ]
            for request_id in ids:
                assert await sender.reply(request_id) == Done()

    async with speak.registered(relay.url, username) as (client, _), trio.open_nursery() as nursery:
        for number in range(senders):
            nursery.start_soon(send, number)
        received = await client.deliveries(senders * each)
    assert len(set(received)) == senders * each
    for number in range(senders):
        own = [envelope for envelope in received if envelope.startswith(b"%d." % number)]
        assert own == sorted(own)
