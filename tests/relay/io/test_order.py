"""The order of requests and replies on one connection (spec/wire.md, "Connections")."""

import pytest

from relay.wire.messages import Done, OpenBox, PrekeyCounts, PrekeyStatus, PublishPrekeys
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
