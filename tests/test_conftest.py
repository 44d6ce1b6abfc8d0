"""The checks that hold for every test, on small suites of their own in a fresh pytest."""

from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("conftest.py").read_text().replace("GRACE = 2.0", "GRACE = 0.2")

LEAVES_SOMETHING = """
    import asyncio, socket, subprocess, sys, threading
    import pytest

    kept = []
    SLEEP = [sys.executable, "-c", "import time; time.sleep(30)"]

    def test_thread():
        threading.Thread(target=threading.Event().wait, daemon=True, name="stray").start()

    def test_process():
        kept.append(subprocess.Popen(SLEEP))

    def test_grandchild():
        start = f"import subprocess; subprocess.Popen({SLEEP!r}, start_new_session=True)"
        subprocess.run([sys.executable, "-W", "ignore", "-c", start], check=True)

    def test_socket():
        kept.append(socket.socket())

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_task(anyio_backend):
        kept.append(asyncio.create_task(asyncio.sleep(30)))
"""

LEAVES_NOTHING = """
    import asyncio, socket, subprocess, sys, threading
    import anyio, anyio.to_thread, pytest, trio

    def test_all_closed():
        with socket.socket():
            thread = threading.Thread(target=int)
            thread.start()
            subprocess.run([sys.executable, "-c", ""], check=True)

    @pytest.mark.anyio
    async def test_worker_threads_of_the_loops(anyio_backend):
        await anyio.to_thread.run_sync(int)
        await anyio.run_process([sys.executable, "-c", ""])

    @pytest.mark.trio
    async def test_worker_threads_of_trio():
        await trio.to_thread.run_sync(int)

    @pytest.fixture
    async def background(anyio_backend):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 30)
            yield
            group.cancel_scope.cancel()

    @pytest.mark.anyio
    async def test_tasks_of_a_fixture(background):
        await anyio.lowlevel.checkpoint()
"""

ASKS_FOR_MORE = """
    import pytest

    @pytest.mark.system("no-such-program-anywhere")
    def test_marked(): ...

    def test_fixture(require_program):
        require_program("no-such-program-anywhere")

    def test_vectors(vectors_dir): ...

    @pytest.mark.skip(reason="of another kind")
    def test_other(): ...
"""


@pytest.fixture
def run(pytester, monkeypatch):
    monkeypatch.setenv("E2ECALL_VECTORS_DIR", str(pytester.path / "none"))
    pytester.makeconftest(CHECKS)
    pytester.makeini("[pytest]\nfilterwarnings = error\nmarkers = system(*programs): needs them\n")

    def run(suite):
        pytester.makepyfile(suite)
        return pytester.runpytest_subprocess("-rA", "-p", "no:cacheprovider")

    return run


def test_what_a_test_leaves_behind_fails_it(run):
    """A stray thread, process, orphaned grandchild, socket or asyncio task fails its test."""
    result = run(LEAVES_SOMETHING)
    result.assert_outcomes(passed=4, errors=4, failed=1)  # what is left shows at teardown
    result.stdout.fnmatch_lines(
        [
            "*at teardown of test_thread*",
            "the test left behind: thread stray",
            "*at teardown of test_process*",
            "the test left behind: process * import time; *",
            "*at teardown of test_grandchild*",
            "the test left behind: process * import time; *",
            "*at teardown of test_socket*",
            "the test left behind: socket:*",
            "*test_task*",
            "the test left behind: {<Task pending*",
        ]
    )


def test_what_ends_with_its_test_passes(run):
    """Closed resources, and the worker threads that event loops keep, fail no test."""
    run(LEAVES_NOTHING).assert_outcomes(passed=6)


def test_a_warning_is_an_error(run):
    """A test during which something warns fails."""
    run("import warnings\ndef test_warns(): warnings.warn('careless')").assert_outcomes(failed=1)


def test_what_is_missing_is_skipped(run, monkeypatch):
    """Without E2ECALL_REQUIRE_SYSTEM a missing program or vectors folder skips the test."""
    monkeypatch.delenv("E2ECALL_REQUIRE_SYSTEM", raising=False)
    run(ASKS_FOR_MORE).assert_outcomes(skipped=4)


def test_what_is_missing_fails_where_it_is_required(run, monkeypatch):
    """With E2ECALL_REQUIRE_SYSTEM=1 a missing program or vectors folder fails the test."""
    monkeypatch.setenv("E2ECALL_REQUIRE_SYSTEM", "1")
    outcomes = run(ASKS_FOR_MORE).parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 3
    assert outcomes["skipped"] == 1
