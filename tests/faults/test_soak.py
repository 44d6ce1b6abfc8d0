"""A long run, shortened (`python -m tests.faults.soak` is the long one)."""

import sys

import pytest

from tests.faults.media import SECRET
from tests.faults.soak import CACHE, SLACK, soak

WARM_UP, ROUNDS = 3, 4


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no figures of the process")
@pytest.mark.timeout(180)
@pytest.mark.trio
async def test_nothing_grows(start_relay):
    """F6: after many clients came and went, rudely too, memory, descriptors and tasks are where
    they were, and neither a connection nor an allocation is left.
    """
    relay = start_relay("--turn-secret", SECRET)
    samples = []
    grew = await soak(
        relay,
        warm_up=WARM_UP,
        slack=SLACK | {"memory": SLACK["memory"] + CACHE},
        goes_on=lambda number: number <= WARM_UP + ROUNDS,
        report=lambda _, now: samples.append(now),
    )
    assert grew == {}
    assert len(samples) == WARM_UP + ROUNDS + 1
    assert relay.terminate()[0] == 0
    assert "Traceback" not in relay.log.read_text()
