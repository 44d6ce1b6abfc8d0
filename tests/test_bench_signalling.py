"""The load generator of the signalling benchmark counts what arrives; nothing here is timed."""

import os
import sys

import pytest

from tests.bench.orders import GeneratorError, commanded
from tests.bench.signalling.asking import BATCH
from tests.bench.signalling.generator import generator
from tests.bench.signalling.servers import relay

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the figures of processes come from /proc"
)


@pytest.fixture
def load():
    """A generator for a relay with SQLite, and the relay's target."""
    core = min(os.sched_getaffinity(0))
    with relay("ours", None) as target, generator(target, core) as running:
        yield running


def test_envelopes(load):
    """What was sent comes, at the highest rate and at a fixed one, and both sides' work is seen."""
    load.open_pairs(3, 5_233)
    for outcome in (load.saturate(2, 0.5, 0.1), load.paced(40, 1.0, 0.1)):
        assert outcome.delivered > 0
        assert abs(outcome.sent - outcome.delivered) <= 40
        assert 0 < outcome.p50 <= outcome.p99
        assert outcome.server_cpu > 0
        assert outcome.own_cpu > 0
    assert load.busiest > 0


def test_requests(load):
    """Accounts are registered and stay, bundles have one-time keys of both kinds, calls go through
    all of their messages; a bundle without one-time keys is an error and not a figure.
    """
    assert load.ask("register", count=4, at_once=2).count == 4
    load.hold(2)
    assert load.ask("publish", accounts=2, each=BATCH).count == 2
    assert load.ask("fetch", accounts=2, count=2 * BATCH, at_once=2).rate > 0
    assert load.ask("calls", count=4, at_once=2).count == 4
    with pytest.raises(GeneratorError, match="one-time keys"):
        load.ask("fetch", accounts=2, count=1, at_once=1)


def test_core():
    """What starts beside a generator is not bound to the generator's core."""
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("there is one core for all")
    with commanded("tests.bench.orders", core=min(cores)):
        assert os.sched_getaffinity(0) == cores
