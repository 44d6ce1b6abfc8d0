"""At which rate pictures are sent, what is sent again, and in which size they suit a rate."""

from itertools import pairwise

import pytest
from aiortc.rtp import (
    RtcpReceiverInfo,
)

from e2ecall.media import bitrate
from e2ecall.media.bitrate import BitrateControl
from e2ecall.media.ladder import Ladder, useful
from e2ecall.media.outgoing_video import round_trip
from e2ecall.media.repair import Missing, RepairBudget


def test_the_rate_falls_with_congestion_and_rises_slowly():
    """An estimate below what is sent lowers the rate; it takes time and room to rise again."""
    control = BitrateControl()
    assert control.bit_rate == bitrate.START_RATE == 400_000
    control.estimate(300_000, 400_000, 10.0)
    assert control.bit_rate == 300_000
    control.estimate(160_000, 250_000, 10.5)
    assert control.bit_rate == 300_000
    control.estimate(160_000, 250_000, 11.0)
    assert control.bit_rate == 160_000
    control.estimate(0, 150_000, 12.0)
    assert control.bit_rate == bitrate.MIN_RATE == 100_000
    control.estimate(105_000, 100_000, 14.0)  # no headroom
    assert control.bit_rate == 100_000
    control.estimate(140_000, 100_000, 14.0)
    control.estimate(140_000, 100_000, 14.5)
    assert control.bit_rate == 108_000
    for second in range(60):
        control.estimate(5_000_000, 2_000_000, 15.0 + second)
    assert control.bit_rate == bitrate.MAX_RATE == 2_500_000


def test_a_call_begins_with_little_and_soon_has_more():
    """MEDIA-33: reports without trouble take the rate to 800 kbit/s, each by no more than 1.3."""
    control = BitrateControl()
    rates = []
    for second in range(6):
        control.loss(0.2, float(second))
        control.loss(0.2, second + 0.1)
        rates.append(control.bit_rate)
    assert rates == [400_000, 520_000, 676_000, 800_000, 800_000, 800_000]


@pytest.mark.parametrize("trouble", ["loss", "estimate"])
def test_the_first_trouble_ends_the_quick_rise(trouble):
    """MEDIA-33: after a queue or much loss the rate rises by estimates alone."""
    control = BitrateControl()
    if trouble == "loss":
        control.loss(0.35, 0.0)
    else:
        control.estimate(221_000, 400_000, 0.0)
    assert control.bit_rate == 221_000
    for second in range(1, 10):
        control.loss(0.0, float(second))
    assert control.bit_rate == 221_000


def test_a_measured_rate_need_not_wait_after_a_loss():
    """MEDIA-23: what the receiver estimated takes the rate down also right after losses did."""
    control = BitrateControl()
    control.loss(0.4, 0.0)
    assert control.bit_rate == 204_000
    control.estimate(150_000, 240_000, 0.1)
    assert control.bit_rate == 150_000
    control.estimate(100_000, 240_000, 0.2)
    assert control.bit_rate == 150_000


def test_what_is_asked_for_again_tells_of_a_narrow_path():
    """MEDIA-35: of 30 packets in half a second 20 asked for again take the rate to under a half,
    once a second, and are not sent again; 14, or more than were sent, change nothing.
    """
    control, missing = BitrateControl(), Missing()

    def overflows(numbers, now):
        return control.missing(missing.share(numbers, 30, now), 30, now)

    assert not overflows(range(14), 0.0)
    assert not overflows(range(14, 45), 0.1)
    assert control.bit_rate == 400_000
    assert overflows(range(100, 120), 1.0)
    assert control.bit_rate == pytest.approx(400_000 / 3 * 0.85, abs=1)
    lower = control.bit_rate
    assert overflows(range(105, 120), 1.3)
    assert control.bit_rate == lower
    assert missing.share(range(105, 112), 30, 2.0) == 0.0


def test_an_estimate_of_a_quiet_sender_is_no_congestion():
    """A receiver cannot estimate more than it sees: a still picture keeps its rate."""
    control = BitrateControl()
    for second in range(20):
        control.estimate(120_000, 90_000, float(second))
    assert control.bit_rate == bitrate.START_RATE


def risen():
    """Return a control that has come to 1.1 Mbit/s after 9 s."""
    control = BitrateControl()
    for second in range(4):
        control.loss(0.0, float(second))
    for second in range(4, 9):
        control.estimate(5_000_000, 1_000_000, float(second))
    assert 1_100_000 < control.bit_rate < 1_200_000
    return control


def test_loss_lowers_the_rate_and_keeps_it_from_rising():
    """MEDIA-23: above 10% the rate falls once a second; above 2% no estimate raises it."""
    control = risen()
    rate = control.bit_rate
    control.loss(0.4, 9.0)
    control.loss(0.2, 9.5)
    assert control.bit_rate == pytest.approx(0.9 * rate, abs=1)
    control.loss(0.05, 10.1)
    lower = control.bit_rate
    control.estimate(5_000_000, 1_000_000, 12.0)
    assert control.bit_rate == lower
    for second in range(12, 60):
        control.loss(0.2, float(second))
    assert control.bit_rate == bitrate.LOSS_FLOOR == 800_000
    for second in range(60, 90):
        control.loss(0.5, float(second))
    assert control.bit_rate == bitrate.MIN_RATE
    for second in range(90, 100):
        control.loss(0.0, float(second))
    control.estimate(5_000_000, 100_000, 102.0)
    assert control.bit_rate > bitrate.MIN_RATE


def test_one_report_of_a_fifth_and_more_is_chance():
    """MEDIA-23: between reports of 20% one of 35% does not take the rate below 800 kbit/s, one
    of 45% does.
    """
    control = BitrateControl()
    for second, share in enumerate([0.0, 0.2, 0.2, 0.2, 0.35, 0.2, 0.2]):
        control.loss(share, float(second))
    assert control.bit_rate == 800_000
    control.loss(0.45, 10.0)
    assert control.bit_rate == pytest.approx(800_000 * 0.55 * 0.85, abs=1)


def test_an_estimate_tells_radio_from_a_queue():
    """MEDIA-23: more than 30% that are missed lower no rate for which there is room by the
    estimate of the last two seconds, and any other.
    """
    control = BitrateControl()
    control.estimate(480_000, 400_000, 0.0)
    control.loss(0.35, 1.9)
    assert control.bit_rate == 432_000
    control.loss(0.35, 2.1)
    lower = control.bit_rate
    assert lower == pytest.approx(432_000 * 0.65 * 0.85, abs=1)
    control.estimate(lower, lower, 3.0)
    control.loss(0.35, 3.2)
    assert control.bit_rate == pytest.approx(lower * 0.65 * 0.85, abs=1)


def test_a_rate_that_fell_for_nothing_comes_back_quickly():
    """MEDIA-23: far below what the receiver estimates steps are of 30%."""
    control = BitrateControl()
    control.loss(0.5, 0.0)
    for tenth in range(1, 5):
        control.loss(0.1, tenth / 10)
    rates = []
    for second in range(1, 9):
        control.estimate(1_000_000, control.bit_rate, float(second))
        rates.append(control.bit_rate)
    steps = [b / a for a, b in pairwise(rates)]
    assert steps == pytest.approx([1.3] * 5 + [1.0] * 2, abs=0.01)


def test_moderate_loss_does_not_hold_a_low_rate():
    """MEDIA-23: a path that always loses 20% comes back to 800 kbit/s, and no further."""
    control = BitrateControl()
    control.estimate(100_000, 400_000, 0.0)
    for second in range(1, 60):
        control.loss(0.2, float(second))
        control.estimate(5_000_000, 400_000, float(second))
    assert 800_000 <= control.bit_rate < 870_000


def test_what_is_sent_again_is_bounded():
    """MEDIA-14: repairs take three quarters of the rate, in bursts of half a second of it."""
    budget, numbers = RepairBudget(), iter(range(10_000))

    def take(count, rate, now):
        return len(budget.take([next(numbers) for _ in range(count)], rate, 0.01, now))

    assert take(128, 1_040_000, 10.0) == 37
    assert take(128, 1_040_000, 10.0) == 0
    assert take(128, 1_040_000, 10.11) == 8
    assert take(3, 1_040_000, 20.0) == 3
    assert take(128, 1_040_000, 20.0) == 34
    assert len(RepairBudget().take(range(5), 100, None, 0.0)) == 1
    assert len(RepairBudget().take(range(128), 1_040_000, 0.01, 0.0, size=650)) == 75


@pytest.mark.parametrize(("trip", "wait"), [(0.01, 0.03), (0.1, 0.1), (None, 0.05), (2.0, 0.3)])
def test_a_packet_is_sent_again_once_in_a_round_trip(trip, wait):
    """MEDIA-36: asked for every 20 ms, a packet is sent again no sooner than it can have come."""
    budget = RepairBudget()
    sent = [ms / 1000 for ms in range(0, 1000, 5) if budget.take([7], 10**7, trip, ms / 1000)]
    assert sent[0] == 0.0
    assert min(b - a for a, b in pairwise(sent)) == pytest.approx(wait, abs=0.0051)


def test_a_repair_that_may_be_lost_is_sent_twice():
    """MEDIA-36: where more than 10% are lost a packet is sent again twice, and counts twice."""
    budget = RepairBudget()
    assert budget.take([1, 2], 1_040_000, 0.01, 10.0, times=2) == [1, 2, 1, 2]
    assert budget.take([1, 2], 1_040_000, 0.01, 10.01, times=2) == []
    assert len(budget.take(range(100, 200), 1_040_000, 0.01, 10.01, times=2)) == 34
    control = BitrateControl()
    control.loss(0.1, 0.0)
    assert not control.loses_much
    control.loss(0.2, 1.0)
    assert control.loses_much


def test_the_round_trip_is_that_of_the_last_report():
    """RFC 3550, 6.4.1: what was sent, held by the peer for 5.25 s and came back took 1.125 s."""
    heard = RtcpReceiverInfo(0, 0, 0, 0, 0, lsr=0xB705_2000, dlsr=0x0005_4000)
    assert round_trip(heard, 0xB44D_B705_2000_0000 + (6_375 << 32) // 1000) == pytest.approx(1.125)
    assert round_trip(heard, 0xB44D_B705_0000_0000) is None
    assert round_trip(RtcpReceiverInfo(0, 0, 0, 0, 0, 0, 0), 1 << 40) is None


HD, SMALL = 1280 * 720 * 30, 640 * 360 * 30


def settled(ladder, rate, pixel_rate, start):
    """Return the rung after ten seconds at a rate."""
    return [ladder.choose(rate, pixel_rate, start + tenth / 10) for tenth in range(100)][-1]


@pytest.mark.parametrize(
    ("rate", "pixel_rate", "rung"),
    [
        (2_500_000, HD, (8, 1)),
        (1_000_000, HD, (6, 1)),
        (300_000, HD, (4, 1)),
        (150_000, HD, (4, 2)),
        (100_000, HD, (3, 2)),
        (1_000_000, SMALL, (8, 1)),
        (200_000, SMALL, (6, 1)),
        (100_000, SMALL, (4, 1)),
        (1, SMALL, (2, 2)),
    ],
)
def test_pictures_get_smaller_and_fewer_before_they_fall_apart(rate, pixel_rate, rung):
    """MEDIA-24: no rung but the last has less than 0.04 bits for a pixel."""
    assert settled(Ladder(), rate, pixel_rate, 0.0) == rung


def test_a_short_dip_changes_nothing_and_a_rise_takes_room_and_time():
    """MEDIA-24: each step costs a key frame, so rates around a threshold cause none."""
    ladder = Ladder()
    for tenth in range(100):
        rate = 270_000 if tenth % 5 else 290_000
        assert ladder.choose(rate, SMALL, tenth / 10) == (8, 1)
    assert settled(ladder, 250_000, SMALL, 20.0) == (6, 1)
    assert settled(ladder, 300_000, SMALL, 40.0) == (6, 1)
    assert settled(ladder, 400_000, SMALL, 60.0) == (8, 1)
    assert ladder.choose(100_000, SMALL, 80.0) == (8, 1)
    assert ladder.choose(100_000, SMALL, 81.0) == (4, 1)
    assert ladder.choose(1_000_000, SMALL, 82.0) == (4, 1)
    assert ladder.choose(1_000_000, SMALL, 86.0) == (6, 1)
    assert ladder.choose(1_000_000, SMALL, 87.0) == (6, 1)


def test_a_small_picture_does_not_waste_a_high_rate():
    """More than 0.2 bits for a pixel is not spent."""
    assert useful(2_500_000, HD) == 2_500_000
    assert useful(2_500_000, SMALL) == 1_382_400
