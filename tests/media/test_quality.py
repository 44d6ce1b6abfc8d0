"""Quality: what is counted as a freeze and as loss, and what a call over a lossy path reports."""

import random

import anyio
import pytest

from e2ecall.media.engine import Settings
from e2ecall.media.events import MediaConnected, Quality
from e2ecall.media.quality import Counted, FreezeMeter, QualityMeter
from tests.media import peers
from tests.media.lossy import LossyPath


def shown(meter, times, *, lost=0):
    """Show a picture at each (arrival, place in the sender's time)."""
    for now, sent in times:
        meter.shown(now, sent, lost)


def test_a_steady_picture_does_not_freeze():
    """Thirty pictures a second, one of them 0.2 s late, are no freeze."""
    meter = FreezeMeter()
    shown(meter, [(n / 30 + (0.2 if n == 10 else 0), n / 30) for n in range(30)])
    assert (meter.freezes, meter.frozen) == (0, 0.0)


def test_a_picture_once_a_second_does_not_freeze():
    """A sender that sends few pictures, such as the black one of a muted camera, is no freeze."""
    meter = FreezeMeter()
    shown(meter, [(float(n), float(n)) for n in range(5)])
    assert meter.freezes == 0


def test_late_and_lost_pictures_freeze():
    """A picture that comes too late is a freeze, and so is one after others that were lost."""
    meter = FreezeMeter()
    shown(meter, [(0.0, 0.0), (0.5, 0.033)])
    assert (meter.freezes, meter.frozen) == (1, 0.5)
    meter.shown(1.0, 0.533, 1)
    assert (meter.freezes, meter.frozen) == (2, 1.0)


def test_quality_is_of_the_time_since_the_last_look():
    """Counters become rates and shares of the interval."""
    meter = QualityMeter(10.0)
    first = Counted(1_000, 2_000, 100, 100, 1, 0.4, (0.1, 0.2), (0.0, 0.25), 0.01)
    assert meter.measure(first, 12.0) == Quality(
        pytest.approx(0.15), 0.25, 0.0, 0.01, 4_000, 8_000, 1, 0.4
    )
    later = meter.measure(Counted(3_000, 2_000, 200, 190, 1, 0.4), 14.0)
    assert later == Quality(None, 0.0, pytest.approx(0.1), 0.0, 8_000, 0, 0, 0.0)


def test_nothing_expected_is_no_loss():
    """Before the first packet, and when late ones make up for more, the loss is 0."""
    meter = QualityMeter(0.0)
    assert meter.measure(Counted(), 1.0).loss_received == 0.0
    assert meter.measure(Counted(0, 0, 10, 15), 2.0).loss_received == 0.0


@pytest.mark.anyio
async def test_both_ends_see_what_the_network_does(turn):
    """With 10% lost on the way the callee reports loss, and the caller what the callee lost."""
    draw, path = random.Random(3), LossyPath(turn.uri)
    settings = Settings(quality_interval=0.5)
    seen = {}
    try:
        async with peers.call(turn, callee_uri=path.uri, settings=settings) as pair:
            await pair.start()
            path.lose_by_chance(lambda _: draw.random() < 0.1)
            await pair.callee.until(MediaConnected)

            async def watch(name, side, good):
                while not good(quality := await side.until(Quality)):
                    pass
                seen[name] = quality

            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(watch, "callee", pair.callee, lambda q: q.loss_received > 0.02)
                    tasks.start_soon(
                        watch,
                        "caller",
                        pair.caller,
                        lambda q: q.loss_sent > 0.02 and q.round_trip is not None,
                    )
    finally:
        path.close()
    assert seen["callee"].loss_received < 0.4
    assert seen["callee"].bit_rate_received > 32_000
    assert 0 < seen["caller"].round_trip < 2
    assert seen["caller"].bit_rate_sent > 32_000
    assert seen["caller"].loss_received < 0.05
