"""Rates (spec/wire.md, Limits)."""

import pytest

from relay.errors import RefusedError
from relay.services.quota import Limiter, Pace, Rate
from relay.wire.messages import ErrorCode


def refusal(limiter, key, now):
    with pytest.raises(RefusedError) as caught:
        limiter.take(key, now)
    return caught.value


def test_burst_then_rate():
    """A burst passes at once, then as many as the rate gives; the refusal says when."""
    limiter = Limiter(Rate(0.5, 3))
    for _ in range(3):
        limiter.take("a", 100.0)
    error = refusal(limiter, "a", 100.0)
    assert (error.code, error.retry_after) == (ErrorCode.TOO_MANY, 2)
    limiter.take("a", 102.0)
    refusal(limiter, "a", 102.0)


def test_keys_are_separate():
    """One key's use does not count for another."""
    limiter = Limiter(Rate(1, 1))
    limiter.take("a", 0.0)
    limiter.take("b", 0.0)


def test_refusal_costs_nothing():
    """Asking in vain does not lengthen the wait."""
    limiter = Limiter(Rate(1, 1))
    limiter.take("a", 0.0)
    for _ in range(10):
        refusal(limiter, "a", 0.5)
    limiter.take("a", 1.0)


def test_memory_is_bounded():
    """However many keys there are, only so many buckets are kept."""
    limiter = Limiter(Rate(1, 1), max_keys=10)
    for number in range(1000):
        limiter.take(str(number), 0.0)
    assert len(limiter) == 10
    refusal(limiter, "999", 0.0)


def test_clock_going_back():
    """WIRE-50: a clock that goes back grants nothing, and keeps nobody out until it caught up."""
    limiter = Limiter(Rate(1, 1))
    limiter.take("a", 100.0)
    refusal(limiter, "a", 50.0)
    refusal(limiter, "a", 50.5)
    limiter.take("a", 51.0)


def test_pace():
    """WIRE-53: a burst goes on at once; what comes on top waits for its turn, and a key that was
    idle waits no more. Others do not wait.
    """
    pace = Pace(Rate(2, 4), max_keys=2)
    assert [pace.wait("a", 100.0) for _ in range(6)] == [0, 0, 0, 0, 0.5, 1.0]
    assert pace.wait("b", 100.0) == 0
    assert pace.wait("a", 101.0) == 0.5
    assert pace.wait("a", 200.0) == 0
    pace.wait("c", 200.0)
    assert pace.wait("b", 200.0) == 0
    assert len(pace) == 2


@pytest.mark.parametrize("kind", [Limiter, Pace])
def test_who_has_all_of_a_rate_is_forgotten(kind):
    """WIRE-62: a key is kept as long as its use counts, and no longer."""
    buckets = kind(Rate(0.5, 3))
    use = buckets.take if kind is Limiter else buckets.wait
    for now in (100.0, 100.0, 100.0, 101.0):
        use("a" if now == 100 else "b", now)
    buckets.forget(105.9)
    assert len(buckets) == 2
    buckets.forget(106.0)
    assert len(buckets) == 0


def test_what_is_forgotten_frees_nothing():
    """WIRE-62: forgetting takes no use back: whoever is refused stays refused."""
    limiter = Limiter(Rate(1, 2))
    limiter.take("a", 0.0)
    limiter.take("a", 0.0)
    limiter.forget(0.5)
    assert refusal(limiter, "a", 0.5).retry_after == 1
    limiter.forget(2.4)
    limiter.take("a", 2.4)
    limiter.take("a", 2.4)
    refusal(limiter, "a", 2.4)


def test_forgetting_where_the_clock_went_back():
    """WIRE-62: what was counted by a clock that was ahead is not kept until that time."""
    limiter = Limiter(Rate(1, 1))
    limiter.take("a", 1_000_000.0)
    limiter.take("b", 1_000_000.0)
    for now in (50.0, 51.0, 52.0):
        limiter.forget(now)
    assert len(limiter) == 0
