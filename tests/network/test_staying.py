"""N4: calls that stay, between three hosts whose network fails in ways of its own.

The seconds that each took are kept with the results (``staying_seconds``); no test asks for them.
"""

import anyio
import pytest

from tests.network.bed import Relay, network, peers_at, peers_on
from tests.network.link import Conditions
from tests.network.test_call import anyio_backend, decoded, talk  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.system("ip", "nsenter", "unshare", namespaces=True),
    pytest.mark.timeout(240),
]
LONG = 60.0
"""Seconds for what takes a few; a busy machine is no reason to fail."""


async def reconnected(*peers):
    """Wait until each of these lost the other and found it again."""
    for peer in peers:
        await peer.event("Reconnecting", within=LONG)
    for peer in peers:
        await peer.event("Reconnected", within=LONG)


async def still_talking(*peers):
    """Wait for a second of sound and some pictures more at each of these, in the same call."""
    for peer in peers:
        sound, picture = (await peer.do("stats"))["frames"]
        await decoded(peer, sound + 50, picture + 15)


async def good_end(caller, callee):
    await caller.do("hangup")
    ended = await callee.event("Ended")
    assert (ended["reason"], ended["by_peer"]) == ("hangup", True)


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_n4_another_address(tmp_path, who, record_property):
    """N4, CALL-40, WIRE-60: who comes to another network goes on with the call, by itself."""
    async with network() as hosts, peers_on(hosts, tmp_path, "trio") as (caller, callee):
        await talk(caller, callee)
        await decoded(callee, 50, 20)
        began = anyio.current_time()
        await hosts.move(who, "198.51.100.77")
        await reconnected(caller, callee)
        record_property("staying_seconds", anyio.current_time() - began)
        await still_talking(caller, callee)
        await good_end(caller, callee)


async def test_n4_ten_seconds_of_nothing(tmp_path, record_property):
    """N4, CALL-40: nothing gets through for ten seconds; then the call goes on, by itself."""
    async with network() as hosts, peers_on(hosts, tmp_path, "asyncio") as (caller, callee):
        await talk(caller, callee)
        await decoded(callee, 50, 20)
        await hosts.outage("callee", 10.0)
        began = anyio.current_time()
        await reconnected(caller, callee)
        record_property("staying_seconds", anyio.current_time() - began)
        await still_talking(caller, callee)
        await good_end(caller, callee)


async def test_thirty_seconds_of_nothing_end_the_call(tmp_path):
    """CALL-46: both ends say that the connection was lost, though neither can tell the other."""
    async with network() as hosts, peers_on(hosts, tmp_path, "trio") as (caller, callee):
        await talk(caller, callee)
        await decoded(callee, 50, 20)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hosts.outage, "callee", 40.0)
            for peer in (caller, callee):
                await peer.event("Reconnecting", within=LONG)
            for peer in (caller, callee):
                ended = await peer.event("Ended", within=LONG)
                assert (ended["reason"], ended["by_peer"]) == ("connection_lost", False)
        for peer in (caller, callee):  # and it can be called again
            assert await peer.close() == 0


async def test_n4_the_relay_is_killed_and_comes_back(tmp_path, record_property):
    """N4: signalling and TURN are gone at once; with both back the call goes on, by itself."""
    async with network() as hosts:
        relay = Relay(hosts, tmp_path)
        await relay.start()
        try:
            async with peers_at(relay, hosts, tmp_path, "trio") as (caller, callee):
                await talk(caller, callee)
                await decoded(callee, 50, 20)
                began = anyio.current_time()
                await relay.kill()
                await relay.start()
                record_property("relay_away_seconds", anyio.current_time() - began)
                await reconnected(caller, callee)
                record_property("staying_seconds", anyio.current_time() - began)
                await still_talking(caller, callee)
                await good_end(caller, callee)
        finally:
            with anyio.CancelScope(shield=True):
                await relay.stop()


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_where_udp_is_blocked(tmp_path, who, record_property):
    """MEDIA-43: who gets no UDP through calls and is called over TCP, through the relay alone."""
    async with network() as hosts:
        relay = Relay(hosts, tmp_path, tcp=True)
        await relay.start()
        try:
            await hosts.shape(who, up=Conditions(no_udp=True))
            async with peers_at(relay, hosts, tmp_path, "trio") as (caller, callee):
                began = anyio.current_time()
                await talk(caller, callee)
                record_property("setup_seconds", anyio.current_time() - began)
                await still_talking(caller, callee)
                await good_end(caller, callee)
        finally:
            with anyio.CancelScope(shield=True):
                await relay.stop()


async def test_udp_that_is_blocked_in_the_call(tmp_path, record_property):
    """MEDIA-43, CALL-40: a call that began over UDP goes on over TCP in a network without it."""
    async with network() as hosts:
        relay = Relay(hosts, tmp_path, tcp=True)
        await relay.start()
        try:
            async with peers_at(relay, hosts, tmp_path, "asyncio") as (caller, callee):
                await talk(caller, callee)
                await decoded(callee, 50, 20)
                began = anyio.current_time()
                await hosts.shape("callee", up=Conditions(no_udp=True))
                await caller.event("Reconnecting", within=LONG)
                await caller.event("Reconnected", within=LONG)
                record_property("staying_seconds", anyio.current_time() - began)
                await still_talking(caller, callee)
                await good_end(caller, callee)
        finally:
            with anyio.CancelScope(shield=True):
                await relay.stop()
