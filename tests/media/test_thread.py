"""The media thread and the streams' workers: results, errors, cancellation and a clean end."""

import asyncio
import threading

import anyio
import pytest

from e2ecall.errors import MediaError
from e2ecall.media import worker
from e2ecall.media.thread import MediaThread
from e2ecall.media.worker import Worker


@pytest.fixture
async def thread():
    made = MediaThread()
    await made.start()
    yield made
    await made.stop()


@pytest.mark.anyio
async def test_results_and_errors_come_back(thread):
    """A coroutine runs on the media thread; what it returns or raises arrives here."""

    async def name(text, *, suffix):
        return threading.current_thread().name + text + suffix

    async def fail():
        raise KeyError("over there")

    assert await thread.run(name, ":", suffix="x") == "e2ecall-media:x"
    with pytest.raises(KeyError, match="over there"):
        await thread.run(fail)


@pytest.mark.anyio
async def test_cancellation_reaches_the_other_side(thread):
    """A cancelled call returns only when its coroutine has ended over there."""
    ended = threading.Event()

    async def long():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.02)
            ended.set()

    with anyio.move_on_after(0.05) as scope:
        await thread.run(long)
    assert scope.cancelled_caught
    assert ended.is_set()


@pytest.mark.anyio
async def test_many_calls_at_once(thread):
    """Calls do not wait for each other."""
    done = []

    async def slow(number):
        await asyncio.sleep(0.01 * (10 - number))
        return number

    async def one(number):
        done.append(await thread.run(slow, number))

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(one, number)
    assert sorted(done) == list(range(10))


@pytest.mark.anyio
async def test_the_end_of_the_thread_ends_its_calls():
    """A call under way fails when the thread stops; later ones fail at once; stop is idempotent."""
    thread = MediaThread()
    await thread.start()
    failed = anyio.Event()

    async def forever():
        await asyncio.sleep(3600)

    async def caller():
        with pytest.raises(MediaError):
            await thread.run(forever)
        failed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller)
        await anyio.sleep(0.02)
        await thread.stop()
        with anyio.fail_after(20):
            await failed.wait()
    await thread.stop()
    with pytest.raises(MediaError):
        await thread.run(forever)
    await MediaThread().stop()


def test_events_after_the_end_of_the_program_are_dropped():
    """The media thread may outlive the event loop that made it by a moment."""
    for backend in ("trio", "asyncio"):

        async def main():
            return MediaThread()

        anyio.run(main, backend=backend).post(print, "never")


# Workers.


def test_a_worker_runs_one_call_at_a_time_and_returns_errors():
    """Results and exceptions come back in order; a closed worker refuses."""

    async def main():
        made = Worker("w")
        calls = [made.run(lambda n=n: (n, threading.current_thread().name)) for n in range(5)]
        assert await asyncio.gather(*calls) == [(n, "w") for n in range(5)]
        with pytest.raises(ZeroDivisionError):
            await made.run(lambda: 1 // 0)
        await made.close()
        await made.close()
        with pytest.raises(MediaError):
            await made.run(lambda: None)

    asyncio.run(main())


def test_a_stuck_call_does_not_hold_up_the_end(monkeypatch):
    """MEDIA-12: a source that never returns costs the close its time-out, not more."""
    monkeypatch.setattr(worker, "CLOSE_TIMEOUT", 0.05)
    release = threading.Event()

    async def main():
        made = Worker("stuck")
        task = asyncio.ensure_future(made.run(release.wait))
        await asyncio.sleep(0.01)
        task.cancel()
        await made.close()

    asyncio.run(main())
    release.set()
