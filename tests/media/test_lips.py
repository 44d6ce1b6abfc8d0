"""How long pictures wait for their sound, with a clock that the test moves."""

import pytest

from e2ecall.media.lips import AHEAD, MOST, RESERVE, Lips, SenderClock

SOUND = 0.02


def ntp(seconds):
    return int(seconds * 2**32)


def test_two_time_stamps_of_a_report_give_the_time_of_every_other():
    """MEDIA-60: an RTP timestamp is put on the sender's clock, also across its wrap."""
    clock = SenderClock(90_000)
    assert clock.sent(5) is None
    clock.report(0, 5)
    assert clock.sent(5) is None  # nothing was sent yet, says such a report
    clock.report(ntp(1000.0), 2**32 - 45_000)
    assert clock.sent(2**32 - 90_000) == pytest.approx(999.5)
    assert clock.sent(45_000) == pytest.approx(1001.0)


def test_a_late_report_moves_nothing():
    """MEDIA-60: of the last reports that counts whose packet was sent soonest."""
    clock = SenderClock(48_000)
    clock.report(ntp(10.0), 48_000)
    clock.report(ntp(11.3), 96_000)
    assert clock.sent(96_000) == pytest.approx(11.0)
    for second in range(12, 16):
        clock.report(ntp(second + 0.3), second * 48_000)
    assert clock.sent(20 * 48_000) == pytest.approx(20.3)


def test_a_long_call_is_put_on_the_clock_as_a_short_one():
    """MEDIA-60: after days of reports an RTP timestamp still means what it did."""
    clock = SenderClock(90_000)
    for hour in range(100):
        clock.report(ntp(3600.0 * hour), hour * 3600 * 90_000 % 2**32)
    assert clock.sent((99 * 3600 + 1) * 90_000 % 2**32) == pytest.approx(99 * 3600 + 1)


def talk(lips, *, late, start=0.0, frames=50):
    """Let sound come ``late`` seconds after it was sent; return when the next one is sent."""
    for number in range(frames):
        sent = start + number * SOUND
        lips.heard(sent, SOUND, sent + late)
    return start + frames * SOUND


def test_a_picture_ahead_of_its_sound_waits():
    """MEDIA-60: what is left of its lead is less than anybody sees."""
    lips = Lips()
    now = talk(lips, late=0.12)
    assert lips.hold(now, now + 0.05) == pytest.approx(0.07 - AHEAD)
    assert lips.hold(now, now + 0.12) == 0.0
    assert lips.hold(now, now + 0.4) == 0.0


def test_a_picture_waits_for_sound_that_somebody_keeps_in_reserve():
    """MEDIA-60: sound that once came late is played later from then on, up to the reserve."""
    lips = Lips()
    now = talk(lips, late=0.02)
    now = talk(lips, late=0.1, start=now, frames=1)
    now = talk(lips, late=0.02, start=now)
    assert lips.hold(now, now + 0.02) == pytest.approx(0.08 - AHEAD)
    now = talk(lips, late=0.5, start=now, frames=1)
    now = talk(lips, late=0.02, start=now)
    assert lips.hold(now, now + 0.02) <= RESERVE


def test_no_picture_waits_for_long():
    """MEDIA-60: whatever the peer's clocks say, five pictures of thirty a second are kept."""
    lips = Lips()
    now = talk(lips, late=5.0)
    assert lips.hold(now, now) == MOST
    assert lips.hold(now, now + 1e9) == 0.0


def test_without_a_common_clock_nothing_waits():
    """MEDIA-60: before both streams were reported, pictures are shown when they come."""
    lips = Lips()
    assert lips.hold(1.0, 1.0) == 0.0
    lips.heard(None, SOUND, 1.0)
    assert lips.hold(1.0, 1.0) == 0.0
    lips.heard(1.0, SOUND, 2.0)
    assert lips.hold(None, 2.0) == 0.0
