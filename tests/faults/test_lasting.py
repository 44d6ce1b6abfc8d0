"""Clients that call again and again, or for long, hold on to nothing."""

import pytest

from tests.bench.calls.lasting import calls_in_a_row, growth, one_call

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

MEMORY = 16_000_000
"""Bytes that arenas may differ by: what each call leaks was 5 MB where an encoder was kept."""

THREADS = 4
"""Workers that wait for work are kept for 10 s, more of them while a machine is busy. What is
compared lies ten calls apart, so that a thread left behind by each would be ten.
"""


@pytest.fixture
def anyio_backend():
    """Run the test on one event loop; the clients have theirs."""
    return "asyncio"


def nothing_grew(held):
    """Check that each process still holds what it held, within what is allowed."""
    grown = growth(held)
    assert grown.threads <= THREADS
    assert grown.descriptors <= 2
    assert grown.memory <= MEMORY


@pytest.mark.skipif("not __import__('sys').platform.startswith('linux')", reason="reads /proc")
async def test_calls_in_a_row_leave_nothing():
    """MEDIA-34: after each of twenty calls, threads and descriptors are as many as before."""
    for held in await calls_in_a_row(20):
        nothing_grew(held)


@pytest.mark.skipif("not __import__('sys').platform.startswith('linux')", reason="reads /proc")
async def test_a_long_call_grows_nothing():
    """MEDIA-34: in a call of a minute, threads, descriptors and memory stay, and media goes on."""
    for held in await one_call(60):
        nothing_grew(held)
