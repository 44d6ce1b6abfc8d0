"""The test bed itself: it does to packets what was asked for, and leaves nothing behind."""

import json
import os
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.network.bed import ADDRESSES, PATIENCE, network
from tests.network.link import Conditions, Link

pytestmark = [pytest.mark.anyio, pytest.mark.system("ip", "nsenter", "unshare", namespaces=True)]


# Nothing of the product runs here: one event loop is enough.
@pytest.fixture
def anyio_backend():
    return "asyncio"


PROBE = (sys.executable, "-m", "tests.network.probe")


async def measured(hosts, sender, receiver, *, count=300, interval=0.005, size=200, during=None):
    """Send datagrams from one host to another; return those that arrived, in that order."""
    address = ADDRESSES[receiver]
    listening = await anyio.open_process(
        [*hosts.inside(receiver), *PROBE, "receive", address],
        stdin=subprocess.PIPE,
        stderr=None,
    )
    async with listening:
        lines = BufferedByteReceiveStream(listening.stdout)
        with anyio.fail_after(PATIENCE):
            port = json.loads(await lines.receive_until(b"\n", 65_536))["port"]
            sending = [*hosts.inside(sender), *PROBE, "send", address, str(port)]
            async with anyio.create_task_group() as tasks:
                if during is not None:
                    tasks.start_soon(during)
                await anyio.run_process([*sending, str(count), str(interval), str(size)])
            counts = await hosts.counts()
            # What is still under way arrives later than the sender ends.
            await anyio.sleep(0.5)
            await listening.stdin.aclose()
            arrived = json.loads(await lines.receive_until(b"\n", 1 << 22))
    return arrived, counts


async def test_delay_is_the_one_asked_for():
    """One way through 50 ms takes 50 ms, and a host's other direction nothing."""
    async with network() as hosts:
        await hosts.shape("caller", up=Conditions(delay=0.05))
        late = [at - sent for _, sent, at in (await measured(hosts, "caller", "callee"))[0]]
        assert len(late) == 300
        assert min(late) >= 0.05
        assert statistics.median(late) < 0.06
        back = [at - sent for _, sent, at in (await measured(hosts, "callee", "caller"))[0]]
        assert statistics.median(back) < 0.01


async def test_packets_come_twice():
    """N4: exactly the packets that the seed says come twice, some of them behind later ones."""
    async with network("seed") as hosts:
        await hosts.shape("callee", down=Conditions(duplicate=0.2))
        arrived, counts = await measured(hosts, "relay", "callee", count=400)
        link = Link("seed callee down", Conditions(duplicate=0.2))
        twice = [number for number in range(400) if link.echo(0.0) is not None]
        numbers = [number for number, _, _ in arrived]
        assert sorted(numbers) == sorted([*range(400), *twice])
        assert counts["callee"]["down"]["doubled"] == len(twice)
        assert numbers != sorted(numbers)


@pytest.mark.parametrize("loss", [0.05, 0.2])
async def test_loss_is_the_one_asked_for(loss):
    """Exactly the packets that the seed says are lost, and they are the share asked for."""
    async with network("seed") as hosts:
        await hosts.shape("callee", down=Conditions(loss=loss))
        arrived, counts = await measured(hosts, "relay", "callee", count=800, interval=0.002)
        link = Link("seed callee down", Conditions(loss=loss))
        kept = [number for number in range(800) if link.send(200, 0.0) is not None]
        assert [number for number, _, _ in arrived] == kept
        assert counts["callee"]["down"]["lost"] == 800 - len(kept)
        deviation = (loss * (1 - loss) / 800) ** 0.5
        assert 1 - len(kept) / 800 == pytest.approx(loss, abs=4 * deviation)


async def test_a_bottleneck_is_as_narrow_as_asked_for():
    """Through 400 kbit/s comes 400 kbit/s, of packets that are late by the queue at most."""
    async with network() as hosts:
        await hosts.shape("relay", up=Conditions(rate=400_000, queue=0.1))
        arrived, counts = await measured(
            hosts, "relay", "caller", count=300, interval=0.01, size=972
        )
        seconds = arrived[-1][2] - arrived[0][2]
        # Every packet has a header of 28 bytes.
        assert (len(arrived) - 1) * 8_000 / seconds == pytest.approx(400_000, rel=0.1)
        assert counts["relay"]["up"]["overflowed"] == 300 - len(arrived)
        assert statistics.median(at - sent for _, sent, at in arrived) > 0.08


async def test_jitter_and_reordering():
    """Jitter alone keeps the order; reordering lets the share asked for overtake."""
    async with network() as hosts:
        await hosts.shape("caller", up=Conditions(delay=0.02, jitter=0.03))
        numbers = [number for number, _, _ in (await measured(hosts, "caller", "callee"))[0]]
        assert numbers == list(range(300))
        await hosts.shape("caller", up=Conditions(delay=0.05, reorder=0.1))
        numbers = [number for number, _, _ in (await measured(hosts, "caller", "callee"))[0]]
        assert sorted(numbers) == list(range(300))
        assert 15 < sum(one > other for one, other in pairwise(numbers)) < 50


async def test_an_outage_begins_and_ends():
    """What is sent in an outage is lost, what is sent before and after it arrives."""
    async with network() as hosts:

        async def outage():
            await anyio.sleep(0.8)  # a part of the sending, which itself takes 2 s
            await hosts.outage("callee", 0.5)

        arrived, counts = await measured(
            hosts, "caller", "callee", count=400, interval=0.005, during=outage
        )
        numbers = [number for number, _, _ in arrived]
        assert max(later - earlier for earlier, later in pairwise(numbers)) > 60
        assert numbers[0] == 0
        assert numbers[-1] == 399
        assert counts["callee"]["down"]["lost"] == 400 - len(arrived)


def devices():
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


async def test_nothing_is_left_behind():
    """The machine's own devices stay as they are, and a bed that was killed leaves no namespace."""
    before = devices()
    async with network() as hosts:
        assert devices() == before
        namespaces = [hosts.inside(host)[1].partition("=")[2] for host in ADDRESSES]
        assert len(set(map(os.path.realpath, namespaces))) == 3
        hosts._process.kill()
        await hosts._process.wait()
        assert not any(map(os.path.exists, namespaces))
