"""Whether the wall clock can be relied upon (spec/wire.md, Storage)."""

from relay.services.clock import JUMP, PATIENCE, ClockGuard


def test_jump_is_waited_out():
    """STORAGE-13: after a jump, forwards or back, an hour passes; a correction is a jump too."""
    for jump in (JUMP + 1, -JUMP - 1):
        guard = ClockGuard()
        assert guard.is_steady(1000.0, 0.0)
        assert guard.is_steady(1060.0, 60.0)
        assert not guard.is_steady(1120.0 + jump, 120.0)
        assert not guard.is_steady(1180.0, 180.0)  # set right
        assert not guard.is_steady(1180.0 + PATIENCE - 1, 180.0 + PATIENCE - 1)
        assert guard.is_steady(1180.0 + PATIENCE, 180.0 + PATIENCE)


def test_small_corrections_are_no_jump():
    """A clock that is a little fast, and is corrected now and then, is relied upon."""
    guard, wall = ClockGuard(), 1000.0
    for minute in range(100):
        wall += 61.0 if minute % 2 else 59.0
        assert guard.is_steady(wall, 60.0 * minute)
