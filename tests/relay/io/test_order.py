"""The order of requests and replies on one connection (spec/wire.md, "Connections")."""

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from relay.wire.codec import encode
from relay.wire.messages import (
    Ack,
    ClientFrame,
    Deliver,
    Done,
    ErrorCode,
    Failure,
    FetchAbuseContact,
    OpenBox,
    PrekeyCounts,
    PrekeyStatus,
    PublishPrekeys,
)
from relay.wire.records import PreKeyKind

pytestmark = pytest.mark.trio


async def test_replies_come_in_the_order_of_requests(relay, speak, username):
    """WIRE-08: requests sent without waiting are answered one after the other, in their order."""
    async with speak.registered(relay.url, username) as (client, identity):
        ids, expected = [], []
        for number in range(8):  # slow requests between quick ones
            first = 10 + 5 * number
            batch = identity.one_time(PreKeyKind.ONE_TIME_X25519, first, 5)
            ids.append(await client.send(PublishPrekeys(batch)))
            ids.append(await client.send(PrekeyStatus()))
            expected += [Done(), PrekeyCounts(5 * (number + 1), 0)]
        replies = []
        while len(replies) < len(ids):
            frame = await client.frame()
            replies.append((frame.id, frame.body))
    assert [id_ for id_, _ in replies] == ids == sorted(ids)
    assert [body for _, body in replies] == expected


async def test_envelopes_keep_their_order(relay, speak, username):
    """WIRE-08: a sender's envelopes are delivered in the order in which it sent them."""
    letters = [b"%03d" % number for number in range(20)]
    async with speak.registered(relay.url, username) as (client, _):
        async with speak.wire(relay.url) as sender:
            ids = [await sender.send(speak.letter(username, letter)) for letter in letters]
            box = await sender.send(OpenBox(bytes(32)))
            for request_id in (*ids, box):
                await sender.reply(request_id)
        assert await client.deliveries(len(letters)) == letters


async def together(client, bodies, *, then=b""):
    """Send requests so that they come at once, and maybe a last message; return the replies."""
    frames = [encode(ClientFrame(number, body)) for number, body in enumerate(bodies, 1000)]
    messages = [*frames, then] if then else frames
    parts = [Frame(Opcode.BINARY, message).serialize(mask=True) for message in messages]
    await client.socket.stream.send_all(b"".join(map(bytes, parts)))
    return [await client.reply(number) for number, _ in enumerate(bodies, 1000)]


async def test_runs_of_requests(relay, speak, username):
    """WIRE-61: of requests that come at once each is answered as if it came alone."""
    one, two, three = letters = [speak.letter(username, b"%d" % number) for number in range(3)]
    lost = speak.letter("nobody_at_all")
    shown = speak.letter(username, b"with a token", token=bytes(16))
    async with speak.registered(relay.url, username) as (client, identity):
        async with speak.wire(relay.url) as sender:
            bodies = [one, one, two, lost, lost, shown, FetchAbuseContact(), three, *letters]
            replies = await together(sender, bodies)
        assert [type(reply).__name__ for reply in replies].count("AbuseContact") == 1
        assert [reply for reply in replies if reply == Done()] == [Done()] * (len(bodies) - 1)
        pushes = [await client.push() for _ in range(4)]
        assert [push.envelope for push in pushes] == [b"0", b"1", b"with a token", b"2"]
        ids = [push.delivery_id for push in pushes[:3]]
        acks = [Ack((ids[0],)), Ack((ids[0], 999)), Ack((ids[2], ids[1]))]
        assert await together(client, acks) == [Done()] * 3
    async with speak.wire(relay.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()
        assert await client.deliveries(1) == [b"2"]
        assert await client.request(speak.letter(username, b"the end")) == Done()
        assert await client.deliveries(1) == [b"the end"]


async def test_deliveries_beyond_one_write(relay, speak, username):
    """WIRE-08: what waits for a reader comes in its order, also where it is much."""
    letters = [bytes([number]) * 30_000 for number in range(20)]
    async with speak.registered(relay.url, username) as (_, identity):
        pass
    async with speak.wire(relay.url) as sender:
        for letter in letters:
            assert await sender.request(speak.letter(username, letter)) == Done()
    async with speak.wire(relay.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()
        pushes = [await client.push() for _ in letters]
        assert [push.envelope for push in pushes] == letters
        acks = [Ack((push.delivery_id,)) for push in pushes]
        assert await together(client, acks) == [Done()] * len(acks)
    async with speak.wire(relay.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()
        assert await client.request(speak.letter(username, b"the end")) == Done()
        assert await client.deliveries(1) == [b"the end"]


async def test_a_run_before_a_fault(relay, speak, username):
    """WIRE-61, WIRE-04: what came before a malformed frame is carried out and answered."""
    letters = [speak.letter(username, b"%d" % number) for number in range(3)]
    async with speak.registered(relay.url, username) as (client, _):
        async with speak.wire(relay.url) as sender:
            assert await together(sender, letters, then=b"no frame") == [Done()] * 3
            with pytest.raises(ConnectionClosed):
                await sender.frame()
            assert sender.socket.close_code == 1008
        assert await client.deliveries(3) == [b"0", b"1", b"2"]


async def test_a_run_beyond_the_limit(start_relay, tmp_path, speak, username):
    """WIRE-61, WIRE-24: of Sends that come at once those within the limit are carried out."""
    config = tmp_path / "relay.toml"
    config.write_text(
        '[relay]\nname = "relay.example"\n[signalling]\nlisten = "127.0.0.1:0"\n'
        '[turn]\nlisten = "127.0.0.1:0"\nsecret = "a secret of the tests"\n'
        "[limits]\nsends_per_mailbox_and_minute = 2\n"
    )
    relay = start_relay("--config", config, dev=False)
    letters = [speak.letter(username, b"%d" % number) for number in range(4)]
    async with speak.registered(relay.url, username) as (client, _):
        async with speak.wire(relay.url) as sender:
            *good, third, fourth = await together(sender, letters)
        assert good == [Done()] * 2
        for refused in (third, fourth):
            assert isinstance(refused, Failure)
            assert refused.code is ErrorCode.TOO_MANY
        assert await client.deliveries(2) == [b"0", b"1"]
        assert not any(isinstance(push, Deliver) for push in client.pushes)
