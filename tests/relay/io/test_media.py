"""The TURN server of a running relay takes the relay's tickets (spec/ticket-ids.md)."""

import asyncio
import ipaddress
import os
import time

import aioice.stun
import aioice.turn
import pytest

from relay.services.tickets import issue, open_id
from relay.wire.messages import MediaTicket

SECRET = "the secret"


class Receiver(asyncio.DatagramProtocol):
    """Keeps what came in."""

    def __init__(self):
        self.received = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))


async def allocate(relay, credential, password=None):
    host, _, port = relay.ready["turn"][5:].partition("?")[0].rpartition(":")
    return await aioice.turn.create_turn_endpoint(
        Receiver,
        server_addr=(host, int(port)),
        username=credential.username,
        password=password or credential.password,
    )


@pytest.fixture
def relay(start_relay):
    process = start_relay("--turn-secret", SECRET)
    yield process
    assert process.terminate()[0] == 0
    assert process.log.read_text() == ""


def ticket():
    return issue(SECRET.encode(), time.time(), 3600, os.urandom(16))


def test_both_sides_exchange_data(relay):
    """Both credentials of a ticket get virtual addresses, and data passes between them."""

    async def main():
        pair = [await allocate(relay, credential) for credential in ticket()]
        (first, one), (second, two) = pair
        addresses = [transport.get_extra_info("sockname") for transport in (first, second)]
        for host, _ in addresses:
            assert ipaddress.ip_address(host) in ipaddress.ip_network("198.18.0.0/15")
        async with asyncio.timeout(10):
            # The first datagrams bind channels; what comes before the other side's is dropped.
            for transport, peer in ((first, addresses[1]), (second, addresses[0])):
                transport.sendto(b"open", peer)
            while one.received.empty():
                second.sendto(b"from the second", addresses[0])
                await asyncio.sleep(0.01)
            while two.received.empty():
                first.sendto(b"from the first", addresses[1])
                await asyncio.sleep(0.01)
        for transport in (first, second):
            transport.close()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_wrong_credentials(relay):
    """T3: a wrong password, or a username that the relay did not make, gets no allocation."""
    credential, other = ticket()
    foreign, _ = issue(b"another secret", time.time(), 3600, os.urandom(16))

    async def main():
        for attempt in (
            allocate(relay, credential, password=other.password),
            allocate(relay, foreign),
        ):
            with pytest.raises(aioice.stun.TransactionFailed) as caught:
                await attempt
            assert caught.value.response.attributes["ERROR-CODE"][0] == 401

    asyncio.run(main())


@pytest.mark.trio
async def test_media_ticket_is_of_the_secret(relay, speak, username):
    """What MediaTicket returns opens under the relay's TURN secret, to one ticket."""
    async with speak.registered(relay.url, username) as (client, _):
        reply = await client.request(MediaTicket())
    sides = [open_id(SECRET.encode(), side.username, time.time()) for side in (reply.a, reply.b)]
    assert sides[0].ticket_id == sides[1].ticket_id
    assert (sides[0].side, sides[1].side) == (0, 1)
    assert sides[0].expires == sides[1].expires == reply.expires
