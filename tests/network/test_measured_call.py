"""The benchmark of calls places real ones; what it finds is not judged here."""

from dataclasses import replace

import pytest

from tests.bench.calls import material
from tests.bench.calls.rows import NETWORKS
from tests.bench.calls.stage import CONTESTANTS, place_call, tickets, turn_relay
from tests.network.bed import network

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.system("ip", "nsenter", "unshare", namespaces=True),
    pytest.mark.timeout(180),
]


@pytest.fixture
def anyio_backend():
    """Run the test on one event loop; the calls have processes of their own."""
    return "asyncio"


@pytest.mark.parametrize("name", CONTESTANTS)
async def test_a_measured_call(tmp_path, name):
    """Over a network that loses a twentieth, what was sent is found in what was seen and heard."""
    material.make(tmp_path)
    lossy = next(one for one in NETWORKS if one.name == "loss 5%")
    async with network() as hosts, turn_relay(hosts) as relay:
        uri, secret = relay
        pair = await tickets(secret)
        outcome = await place_call(name, replace(lossy, seconds=6.0), tmp_path, uri, pair, hosts)
    figures = outcome.figures
    assert outcome.setup > 0
    assert outcome.cpu > 0
    assert figures.psnr > 25
    assert figures.frames_a_second > 1
    assert figures.mouth_to_ear > 40  # 20 ms on the way, 20 to be spoken
