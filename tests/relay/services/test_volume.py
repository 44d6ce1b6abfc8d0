"""What a store may take up (spec/wire.md STORAGE-15)."""

import pytest

from relay.errors import RefusedError
from relay.services.volume import DISK_RESERVE, SELDOM_SECONDS, Usage, Volume
from relay.wire.messages import ErrorCode

MOST = 400


def refuses(volume, size, *, is_strangers):
    try:
        volume.add(size, is_strangers=is_strangers)
    except RefusedError as error:
        return error.code is ErrorCode.RETRY and error.retry_after > 0
    return False


def test_strangers_get_three_quarters():
    """STORAGE-15: strangers are refused beyond three quarters, and others only beyond the bound."""
    volume = Volume(MOST)
    volume.counted(Usage(200))
    assert not refuses(volume, 100, is_strangers=True)
    assert volume.takes_strangers
    assert refuses(volume, 1, is_strangers=True)
    assert not refuses(volume, 100, is_strangers=False)
    assert not volume.takes_strangers
    assert refuses(volume, 1, is_strangers=False)


def test_what_is_refused_is_not_counted():
    """STORAGE-15: refusals leave room for what is smaller."""
    volume = Volume(MOST)
    for _ in range(3):
        assert refuses(volume, MOST + 1, is_strangers=False)
    assert not refuses(volume, MOST, is_strangers=False)


def test_what_was_not_stored_is_not_counted():
    """STORAGE-15: what was counted and then not stored gives its room back, and no more."""
    volume = Volume(MOST)
    volume.counted(Usage(100))
    volume.add(200, is_strangers=False)
    volume.left_out(200)
    assert volume.held == 100
    volume.add(200, is_strangers=False)
    volume.counted(Usage(200))  # a look in between, which saw nothing of it
    volume.left_out(200)
    assert volume.held == 200


@pytest.mark.parametrize(("left", "room"), [(100, 100), (0, 0), (-10, 0), (10_000, MOST)])
def test_a_disk_that_is_nearly_full(left, room):
    """STORAGE-15: the last bytes of a disk are kept for acknowledgements."""
    volume = Volume(MOST)
    volume.counted(Usage(0, DISK_RESERVE + left))
    assert refuses(volume, room + 1, is_strangers=False)
    assert refuses(volume, room, is_strangers=False) == (left < 0)


def test_room_that_comes_back():
    """STORAGE-15: what was acknowledged makes room with the next look, as a new bound does."""
    volume = Volume(MOST)
    volume.counted(Usage(MOST))
    assert refuses(volume, 1, is_strangers=False)
    volume.counted(Usage(MOST // 2))
    assert not refuses(volume, MOST // 2, is_strangers=False)
    volume.set_bound(2 * MOST)
    assert not refuses(volume, MOST, is_strangers=False)


def test_looks_are_rare():
    """One of those who come looks at the store: each minute, and more often where there is much."""
    volume = Volume(MOST)
    assert volume.is_due(0.0)
    volume.counted(Usage(10))
    assert not volume.is_due(SELDOM_SECONDS - 1)
    assert volume.is_due(SELDOM_SECONDS)
    volume.counted(Usage(MOST // 2))
    assert not volume.is_due(SELDOM_SECONDS + 4)
    assert volume.is_due(SELDOM_SECONDS + 5)
