"""Calls between three hosts: nothing of the machine's own network is between them."""

import anyio
import pytest

from tests.integration.people import PATIENCE
from tests.network.bed import network, peers_on
from tests.network.link import Conditions

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.system("ip", "nsenter", "unshare", namespaces=True),
    pytest.mark.timeout(120),
]


@pytest.fixture
def anyio_backend():
    """Run the test on one event loop; it is the peers that have theirs."""
    return "asyncio"


async def talk(caller, callee):
    """Place a call with sound and picture, and wait until both ends are connected."""
    assert (await caller.do("call", to=callee.address))["event"] == "done"
    await callee.event("incoming")
    assert (await callee.do("accept"))["event"] == "done"
    for one in (caller, callee):
        await one.event("Connected")


async def decoded(peer, sound, picture, within=PATIENCE):
    """Wait until a peer decoded as many frames of both streams."""
    with anyio.fail_after(within):
        while True:
            frames = (await peer.do("stats"))["frames"]
            if frames[0] >= sound and frames[1] >= picture:
                return
            await anyio.sleep(0.2)


@pytest.mark.parametrize(
    ("backend", "conditions"),
    [
        pytest.param("trio", Conditions(delay=0.025), id="100ms"),
        pytest.param("asyncio", Conditions(0.05, jitter=0.02, reorder=0.02), id="reordered"),
        pytest.param("trio", Conditions(delay=0.01, loss=0.05), id="lossy"),
    ],
)
async def test_a_call_over_a_bad_network(tmp_path, backend, conditions):
    """Caller, relay and callee on three hosts: both ends hear and see each other, and hang up."""
    async with network() as hosts:
        for host in ("caller", "callee"):
            await hosts.shape(host, up=conditions, down=conditions)
        async with peers_on(hosts, tmp_path, backend) as (caller, callee):
            await talk(caller, callee)
            await decoded(caller, 100, 40)
            await decoded(callee, 100, 40)
            await caller.do("hangup")
            ended = await callee.event("Ended")
            assert (ended["reason"], ended["by_peer"]) == ("hangup", True)
            counts = await hosts.counts()
            # Whatever one end sent to the other went through the relay.
            assert counts["relay"]["down"]["taken"] >= counts["caller"]["up"]["taken"] * 0.8


async def test_a_call_outlives_an_outage(tmp_path):
    """After two seconds in which nothing gets through, sound and picture go on."""
    async with network() as hosts, peers_on(hosts, tmp_path, "asyncio") as peers:
        caller, callee = peers
        await talk(caller, callee)
        await decoded(callee, 50, 20)
        await hosts.outage("callee", 2.0)
        sound, picture = (await callee.do("stats"))["frames"]
        await decoded(callee, sound + 50, picture + 20)
        await callee.do("hangup")
        await caller.event("Ended")


async def test_the_program_is_told_of_the_network(tmp_path):
    """Quality tells the round trip of the network, and the loss of the bad direction alone."""
    async with network() as hosts:
        for host in ("caller", "callee"):
            await hosts.shape(host, up=Conditions(delay=0.04), down=Conditions(delay=0.04))
        await hosts.shape("callee", down=Conditions(delay=0.04, loss=0.1))
        async with peers_on(hosts, tmp_path, "asyncio") as (caller, callee):
            await talk(caller, callee)
            told = {"caller": [], "callee": []}
            with anyio.fail_after(PATIENCE):
                for name, one in (("caller", caller), ("callee", callee)):
                    while len(told[name]) < 4:
                        told[name].append(await one.event("Quality"))
            trips = [event["round_trip"] for event in told["caller"] if event["round_trip"]]
            # 160 ms by the links, and what a busy machine adds.
            assert min(trips) >= 0.155
            assert min(trips) < 0.4
            assert max(event["loss_received"] for event in told["callee"]) > 0.04
            assert max(event["loss_received"] for event in told["caller"]) < 0.04
            await caller.do("hangup")
            await callee.event("Ended")


@pytest.mark.parametrize("rate", [300_000, 1_000_000])
async def test_pictures_fit_through_a_bottleneck(tmp_path, rate):
    """MEDIA-23: what is sent into a bottleneck becomes what passes it, without lasting loss."""
    async with network() as hosts:
        await hosts.shape("callee", down=Conditions(delay=0.02, rate=rate, queue=0.3))
        async with peers_on(hosts, tmp_path, "asyncio") as (caller, callee):
            await talk(caller, callee)
            quality = []
            with anyio.fail_after(PATIENCE * 2):
                while len(quality) < 10:  # twenty seconds
                    quality.append(await callee.event("Quality"))
            settled = quality[5:]
            assert max(event["bit_rate_received"] for event in settled) < rate
            assert sum(event["loss_received"] for event in settled) / len(settled) < 0.05
            assert sum(event["frozen"] for event in settled) < 2
            sound, picture = (await callee.do("stats"))["frames"]
            await decoded(callee, sound + 100, picture + 30)
            await caller.do("hangup")
            await callee.event("Ended")
