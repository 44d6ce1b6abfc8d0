"""N4: calls that stay, between three hosts whose network fails in ways of its own.

How long each takes is measured by the benchmark ``staying``; here it only has to happen.
"""

import pytest

from tests.network.bed import PORTS, network, peers_at, peers_on, relay_on
from tests.network.link import Conditions
from tests.network.test_call import anyio_backend, decoded, talk  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.system("ip", "nsenter", "unshare", namespaces=True),
    pytest.mark.timeout(240),
]
LONG = 60.0
"""Seconds for what takes a few; a busy machine is no reason to fail."""


async def talking(caller, callee):
    """Place a call, and wait until there is sound and picture at both ends."""
    await talk(caller, callee)
    await still_talking(caller, callee)


async def still_talking(*peers):
    """Wait for a second of sound and some pictures more at each of these, in the same call."""
    for peer in peers:
        sound, picture = (await peer.do("stats"))["frames"]
        await decoded(peer, sound + 50, picture + 15, LONG)


async def reconnected(*peers):
    """Wait until each of these lost the other and found it again."""
    for peer in peers:
        await peer.event("Reconnecting", within=LONG)
    for peer in peers:
        await peer.event("Reconnected", within=LONG)


async def good_end(caller, callee):
    """Hang up in order, which takes a message between the two."""
    await caller.do("hangup")
    ended = await callee.event("Ended", within=LONG)
    assert (ended["reason"], ended["by_peer"]) == ("hangup", True)


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_n4_another_address(tmp_path, who):
    """N4, CALL-40, WIRE-60: who comes to another network goes on with the call, by itself."""
    async with network() as hosts, peers_on(hosts, tmp_path, "trio") as (caller, callee):
        await talking(caller, callee)
        await hosts.move(who, "198.51.100.77")
        await reconnected(caller, callee)
        await still_talking(caller, callee)
        await good_end(caller, callee)


async def test_n4_two_seconds_of_nothing(tmp_path):
    """N4, CALL-40: two seconds pass, and nobody is told of them."""
    async with network() as hosts, peers_on(hosts, tmp_path, "asyncio") as (caller, callee):
        await talking(caller, callee)
        await hosts.outage("callee", 2.0)
        await still_talking(caller, callee)
        await good_end(caller, callee)


async def test_n4_ten_seconds_of_nothing(tmp_path):
    """N4, CALL-40: nothing gets through for ten seconds; then the call goes on, by itself."""
    async with network() as hosts, peers_on(hosts, tmp_path, "asyncio") as (caller, callee):
        await talking(caller, callee)
        await hosts.outage("callee", 10.0)
        await reconnected(caller, callee)
        await still_talking(caller, callee)
        await good_end(caller, callee)


async def test_n4_packets_that_come_twice(tmp_path):
    """N4: where a third of all packets comes twice, requests and handshakes too, a call comes
    about and goes on; no frame is played twice, and none is taken for one that is not authentic.
    """
    twice = Conditions(delay=0.02, duplicate=0.3)
    async with network() as hosts:
        for host in ("caller", "callee"):
            await hosts.shape(host, up=twice, down=twice)
        async with peers_on(hosts, tmp_path, "asyncio") as (caller, callee):
            await talking(caller, callee)
            await decoded(callee, 150, 60, LONG)
            heard, said = await callee.do("stats"), await caller.do("stats")
            assert heard["refused"] == said["refused"] == 0
            assert all(
                one <= other for one, other in zip(heard["frames"], said["sent"], strict=True)
            )
            for sides in (await hosts.counts()).values():
                assert all(side["doubled"] == 0 or side["doubled"] > 100 for side in sides.values())
            await good_end(caller, callee)


async def test_n4_a_network_that_does_everything_wrong(tmp_path):
    """N4: through 30% loss, half a second of jitter, reordering and packets that come twice a call
    goes on, and after it.
    """
    bad = Conditions(delay=0.05, jitter=0.5, loss=0.3, reorder=0.05, duplicate=0.1)
    async with network() as hosts, peers_on(hosts, tmp_path, "trio") as (caller, callee):
        await talking(caller, callee)
        await hosts.shape("callee", up=bad, down=bad)
        for peer in (caller, callee):
            sound, picture = (await peer.do("stats"))["frames"]
            await decoded(peer, sound + 100, picture, LONG)
        await hosts.shape("callee", up=Conditions(), down=Conditions())
        await still_talking(caller, callee)
        await good_end(caller, callee)


async def test_thirty_seconds_of_nothing_end_the_call(tmp_path):
    """CALL-46: both ends say that the connection was lost, though neither can tell the other."""
    nothing = Conditions(outage=True)
    async with network() as hosts, peers_on(hosts, tmp_path, "trio") as (caller, callee):
        await talking(caller, callee)
        await hosts.shape("callee", up=nothing, down=nothing)
        for peer in (caller, callee):
            await peer.event("Reconnecting", within=LONG)
        for peer in (caller, callee):
            ended = await peer.event("Ended", within=LONG)
            assert (ended["reason"], ended["by_peer"]) == ("connection_lost", False)
        await hosts.shape("callee", up=Conditions(), down=Conditions())
        await talking(caller, callee)  # they can call each other again
        await good_end(caller, callee)


async def test_n4_the_relay_is_killed_and_comes_back(tmp_path):
    """N4: signalling and TURN are gone at once; with both back the call goes on, by itself."""
    async with (
        network() as hosts,
        relay_on(hosts, tmp_path) as relay,
        peers_at(relay, hosts, tmp_path, "trio") as (caller, callee),
    ):
        await talking(caller, callee)
        await relay.kill()
        await relay.start()
        await reconnected(caller, callee)
        await still_talking(caller, callee)
        await good_end(caller, callee)


@pytest.mark.parametrize(("who", "over"), [("caller", "tls"), ("callee", "tcp")])
async def test_where_udp_is_blocked(tmp_path, who, over):
    """MEDIA-43: who gets no UDP through calls and is called over TCP, or over TLS alone."""
    closed = (PORTS["tcp"],) if over == "tls" else ()
    async with network() as hosts:
        await hosts.shape(who, up=Conditions(no_udp=True, closed=closed))
        async with peers_on(hosts, tmp_path, "trio") as (caller, callee):
            await talking(caller, callee)
            await good_end(caller, callee)


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_udp_that_is_blocked_in_the_call(tmp_path, who):
    """MEDIA-43, CALL-40: a call that began over UDP goes on over TCP in a network without it."""
    async with network() as hosts, peers_on(hosts, tmp_path, "asyncio") as (caller, callee):
        await talking(caller, callee)
        await hosts.shape(who, up=Conditions(no_udp=True))
        # Only the other end misses anything: what comes down is not blocked.
        await reconnected(callee if who == "caller" else caller)
        await still_talking(caller, callee)
        await good_end(caller, callee)
