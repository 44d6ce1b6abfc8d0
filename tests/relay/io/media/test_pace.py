"""When a busy worker rests (spec/turn.md TURN-59)."""

from relay.io.media.batch import BATCH
from relay.io.media.pace import BUSY_RATE, GATHERED, LONGEST_REST, PAUSE, Pace


def rests(pace, count, rate, batches, begin=100.0):
    """Return the rest after each of so many batches of ``count`` at ``rate`` datagrams a second."""
    return [pace.rest_after(count, begin + number * count / rate) for number in range(batches)]


def test_a_busy_worker_rests():
    """TURN-59: the rest is as long as so many take to come, and no longer than allowed."""
    for rate in (2 * BUSY_RATE, 60_000, 150_000):
        expected = min(GATHERED / rate, LONGEST_REST)
        assert abs(rests(Pace(), 4, rate, 200)[-1] / expected - 1) < 0.05


def test_who_is_not_busy_never_rests():
    """TURN-59: at less than the rate nothing is held back, in whatever bursts it comes."""
    for burst in (1, 4, 16):
        assert not any(rests(Pace(), burst, BUSY_RATE * 0.9, 500))


def test_a_full_batch_is_followed_at_once():
    """TURN-59: where more than a batch waits already, none of it waits longer."""
    pace = Pace()
    assert rests(pace, 4, 60_000, 200)[-1] > 0
    assert not any(rests(pace, BATCH, 200_000, 50, begin=101.0))


def test_a_pause_ends_it():
    """TURN-59: after a pause a datagram that comes alone is not held back, nor are the next few."""
    pace = Pace()
    assert rests(pace, 4, 60_000, 200)[-1] > 0
    begin = pace._last + 1.01 * PAUSE
    assert not any(rests(pace, 1, 1_000, 500, begin=begin))
    assert not any(rests(pace, 1, 60_000, 100, begin=200.0))
