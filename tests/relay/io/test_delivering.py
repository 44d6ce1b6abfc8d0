"""Deliveries to a reader that waits for nothing else (spec/wire.md, Delivery)."""

import os
import socket

import pytest
import trio
from websockets.frames import Close, Frame, Opcode

from relay.io.capture import SENT
from relay.services.delivery import WINDOW
from relay.wire.codec import decode, encode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import (
    AbuseContact,
    Ack,
    BoxRecipient,
    ClientFrame,
    Deliver,
    Done,
    FetchAbuseContact,
    OpenBox,
    Send,
    ServerFrame,
)
from tests.adversary.captured import records

pytestmark = pytest.mark.trio

SIZE = 37_000
"""Bytes of an envelope of which a socket takes only a few."""


async def together(client, frames, *rest):
    """Send requests, each with its id, and maybe more, so that they come at once."""
    messages = [encode(ClientFrame(number, body)) for number, body in frames]
    parts = [*(Frame(Opcode.BINARY, message) for message in messages), *rest]
    await client.socket.stream.send_all(
        b"".join(bytes(part.serialize(mask=True)) for part in parts)
    )


async def rests(client, sender, letter):
    """Let a reader have taken all there is, so that it is given what comes at once."""
    assert await sender.request(letter) == Done()
    push = await client.push()
    assert await client.request(Ack((push.delivery_id,))) == Done()


async def test_a_reader_that_is_behind(relay, speak, username):
    """WIRE-32: what a reader's program does not take waits, up to the bound, and comes in its order
    later; nobody who sends waits for it.
    """
    letters = [bytes([number]) * SIZE for number in range(WINDOW + 8)]
    async with (
        speak.registered(relay.url, username) as (client, _),
        speak.wire(relay.url) as sender,
    ):
        await rests(client, sender, speak.letter(username))
        with trio.fail_after(30):
            for letter in letters:
                assert await sender.request(speak.letter(username, letter)) == Done()
        pushes = [await client.push() for _ in range(WINDOW)]
        assert [push.envelope for push in pushes] == letters[:WINDOW]
        assert await client.request(Ack(tuple(push.delivery_id for push in pushes))) == Done()
        assert await client.deliveries(8) == letters[WINDOW:]


@pytest.mark.parametrize("number", [2, 3])
async def test_a_reader_that_reads_slowly(relay, speak, username, number):
    """WIRE-32: what a socket did not take at once leaves later, also if nothing comes after it."""
    letters = [bytes([value]) * SIZE for value in range(number)]
    async with (
        speak.registered(relay.url, username) as (client, _),
        speak.wire(relay.url) as sender,
    ):
        client.socket.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await rests(client, sender, speak.letter(username))
        for letter in letters:
            assert await sender.request(speak.letter(username, letter)) == Done()
        with trio.fail_after(20):
            assert [(await client.push()).envelope for _ in letters] == letters


async def test_the_sender_is_answered_first(start_relay, tmp_path, speak, username):
    """WIRE-23: a sender has its reply, and those to what it asked with it, before anything is done
    for who reads, as that takes time.
    """
    relay = start_relay("--capture", tmp_path / "kept")
    async with (
        speak.registered(relay.url, username) as (client, _),
        speak.wire(relay.url) as sender,
    ):
        await rests(client, sender, speak.letter(username))
        for number in range(20):
            first, second = 100 + 2 * number, 101 + 2 * number
            bodies = speak.letter(username, b"%d" % number), FetchAbuseContact()
            await together(sender, zip((first, second), bodies, strict=True))
            assert await sender.reply(first) == Done()
            await sender.reply(second)
            assert await client.deliveries(1) == [b"%d" % number]
    relay.terminate()
    reader, writer = 1, 2
    sent = [
        (int.from_bytes(record[8:12]), decode(record[13:], ServerFrame, limit=MAX_FRAME).body)
        for record in records(tmp_path / "kept" / "signalling.bin")
        if record[12] == SENT
    ]
    places = [place for place, (_, body) in enumerate(sent) if isinstance(body, Deliver)]
    assert len(places) == 21
    for place in places[1:]:
        assert sent[place][0] == reader
        assert sent[place - 2 : place] == [(writer, Done()), (writer, AbuseContact(None))]


async def test_a_reader_of_two_mailboxes(relay, speak, username):
    """WIRE-32: the room of a mailbox that another connection reads now is that of the others."""
    async with (
        speak.registered(relay.url, username) as (client, _),
        speak.wire(relay.url) as sender,
        speak.wire(relay.url) as other,
    ):
        key = os.urandom(32)
        opened = await client.request(OpenBox(key))
        for number in range(WINDOW):
            letter = Send(BoxRecipient(opened.box), os.urandom(16), b"%d" % number, None)
            assert await sender.request(letter) == Done()
            assert (await client.push()).envelope == b"%d" % number
        assert await sender.request(speak.letter(username, b"waits")) == Done()
        assert await other.request(OpenBox(key)) == opened
        with trio.fail_after(20):
            assert (await client.push()).envelope == b"waits"
            assert len([await other.push() for _ in range(WINDOW)]) == WINDOW


async def test_a_sender_that_says_goodbye(relay, speak, username):
    """WIRE-31: what was stored is told to its reader, also where its sender takes no reply."""
    async with (
        speak.registered(relay.url, username) as (client, _),
        speak.wire(relay.url) as sender,
    ):
        await rests(client, sender, speak.letter(username))
        goodbye = Frame(Opcode.CLOSE, Close(1000, "").serialize())
        await together(sender, [(99, speak.letter(username, b"the last"))], goodbye)
        with trio.fail_after(10):
            assert await client.deliveries(1) == [b"the last"]


async def test_a_reader_that_says_goodbye(start_relay, speak):
    """Mail that comes for who has just said goodbye is no fault of the relay."""
    relay = start_relay()
    async with speak.wire(relay.url) as client:
        opened = await client.request(OpenBox(os.urandom(32)))
        letter = Send(BoxRecipient(opened.box), os.urandom(16), b"sealed", None)
        await rests(client, client, letter)
        again = Send(BoxRecipient(opened.box), os.urandom(16), b"sealed", None)
        await together(client, [(99, again)], Frame(Opcode.CLOSE, Close(1000, "").serialize()))
        await client.socket.wait_closed()
    relay.terminate()
    assert "failed" not in relay.log.read_text()
