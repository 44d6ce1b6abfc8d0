"""A store whose writer is cancelled past AnyIO (spec/store.md, STORE-09): on asyncio alone."""

import asyncio
import time

import pytest

from e2ecall.errors import StoreError
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.secret import Secret
from tests.io.conftest import CHEAP

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

KIND = RecordKind.INBOX


@pytest.fixture
async def slow(tmp_path, monkeypatch):
    """A store that takes a while to write."""
    store = await Store.open(tmp_path / "me.db", Secret(b"x"), cost=CHEAP)
    commit = store._file.commit

    def slowly(changes):
        time.sleep(0.05)
        commit(changes)

    monkeypatch.setattr(store._file, "commit", slowly)
    yield store
    await store.aclose()


def numbered(first, count):
    return [Change(KIND, bytes([number]), b"value") for number in range(first, first + count)]


async def test_cancelled_in_the_middle(slow, tmp_path):
    """STORE-09: the write is done as a whole before the cancellation is felt, in both places."""
    for times in (1, 3):
        writing = asyncio.ensure_future(slow.write(numbered(10 * times, 5)))
        for _ in range(times):
            await asyncio.sleep(0.01)
            writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert {bytes([n]) for n in range(10 * times, 10 * times + 5)} <= slow.all(KIND).keys()
    in_memory = slow.all(KIND)
    await slow.aclose()
    with pytest.raises(StoreError, match="closed"):
        await slow.write(numbered(9, 1))
    again = await Store.open(tmp_path / "me.db", Secret(b"x"), cost=CHEAP)
    assert again.all(KIND) == in_memory
    await again.aclose()
    assert len(in_memory) == 10


async def test_time_out(slow):
    """STORE-09: `asyncio.wait_for` around a write reports the time-out; the next write works."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(slow.write(numbered(0, 5)), 0.01)
    await slow.write(numbered(5, 1))
    assert len(slow.all(KIND)) == 6


async def test_cancelled_before_it_began(slow):
    """STORE-09: a write that was cancelled before it began changes nothing."""
    writing = asyncio.ensure_future(slow.write(numbered(0, 5)))
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await slow.write(numbered(7, 1))
    assert list(slow.all(KIND)) == [bytes([7])]
