"""What holds for every test: nothing outlives it, and a missing program is never a silent pass.

- A test that leaves a thread, a child process, a socket or an asyncio task behind fails.
- `anyio_backend` runs every test marked ``anyio`` on trio and on asyncio.
- What a test needs beyond the Python packages it asks for with ``@pytest.mark.system("prog")``,
  or with the fixtures `require_program` and `vectors_dir`. Where it is missing the test is
  skipped, and with ``E2ECALL_REQUIRE_SYSTEM=1`` it fails. With ``namespaces=True`` a test needs
  network namespaces too: who is not root skips it in any case.
- Tests see neither the settings nor the home folder of whoever runs them.

Warnings are errors by the settings of pytest in pyproject.toml.
"""

import asyncio
import contextlib
import functools
import gc
import inspect
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from pathlib import Path
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
GRACE = 2.0  # seconds in which what is already ending may end
TEST_SETTINGS = ("E2ECALL_REQUIRE_SYSTEM", "E2ECALL_VECTORS_DIR")


# A busy machine is no finding.
settings.register_profile("e2ecall", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("e2ecall")

# What a test needs beyond the Python packages.


def _missing(what: str) -> NoReturn:
    if os.environ.get("E2ECALL_REQUIRE_SYSTEM", "") not in {"", "0"}:
        pytest.fail(f"{what}, and E2ECALL_REQUIRE_SYSTEM is set", pytrace=False)
    pytest.skip(what)


def program_path(name: str) -> Path | None:
    """Return where a program is, if it is installed."""
    # Debian keeps the programs of a database server out of everybody's PATH.
    folders = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    return None if found is None else Path(found)


def _program(name: str) -> Path:
    found = program_path(name)
    if found is None:
        _missing(f"the program {name} is not installed")
    return found


def _namespaces() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    attempt = ["unshare", "--net", "test", "-c", "/dev/net/tun"]
    if subprocess.run(attempt, check=False, capture_output=True).returncode:
        _missing("this machine lets nobody make network namespaces with TUN devices")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("system"):
        for name in marker.args:
            _program(name)
        if marker.kwargs.get("namespaces"):
            _namespaces()


THOROUGH = (
    "adversary/",
    "audits/",
    "cli/",
    "client/test_call_keys.py",
    "client/test_calls.py",
    "client/test_rules",
    "conformance/",
    "faults/",
    "integration/test_call_waiting.py",
    "integration/test_controls.py",
    "integration/test_healing.py",
    "integration/test_paths.py",
    "integration/test_refusals.py",
    "integration/test_rekeying.py",
    "integration/test_softphone_keys.py",
    "integration/test_sources.py",
    "integration/test_transports.py",
    "media/test_flashes.py",
    "media/test_loss.py",
    "media/test_paths.py",
    "media/test_setup.py",
    "network/",
    "protocol/call/test_flipped.py",
    "protocol/test_flips.py",
    "relay/io/",
    "relay/test_",
    "test_bench_signalling.py",
    "test_conftest.py",
)
"""What `make test` leaves to `make test-thorough`: mostly many processes, one after the other.

What stays is the core, the client library, the media engine, and calls through a real relay.
"""
THOROUGH_SECONDS = 180
"""After so long such a test hangs; ten processes in a row may take a minute on a busy machine."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            name = item.path.relative_to(here).as_posix()
            if name.startswith(THOROUGH) or item.get_closest_marker("system"):
                item.add_marker(pytest.mark.thorough)
                if item.get_closest_marker("timeout") is None:
                    item.add_marker(pytest.mark.timeout(THOROUGH_SECONDS))


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], Path]:
    """Give the path of a program by its name, or skip (or fail) the test where it is missing."""
    return _program


@pytest.fixture(scope="session")
def vectors_dir() -> Path:
    """Give the folder of the third-party test vectors, which are not part of this repository."""
    folder = Path(os.environ.get("E2ECALL_VECTORS_DIR") or REPOSITORY.parent / "shared" / "vectors")
    if not folder.is_dir():
        _missing(f"the third-party vectors are not in {folder} (set E2ECALL_VECTORS_DIR)")
    return folder


# On which event loops, and with whose settings.


@pytest.fixture(scope="session", params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="session", autouse=True)
def _nobodys_settings(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("E2ECALL_", "RELAY__")) and name not in TEST_SETTINGS:
                patch.delenv(name)
        # Children that find their modules compiled start in two thirds of the time.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            patch.delenv(name, raising=False)
        yield


# What outlives a test.


def _threads() -> set[threading.Thread]:
    # Trio keeps a finished worker thread for ten seconds under its default name; while it works
    # it has another name.
    return {
        thread
        for thread in threading.enumerate()
        if not re.fullmatch(r"Trio thread \d+", thread.name)
    }


def _alive(pid: int) -> bool:
    """Tell whether a child still runs; a dead one that nobody waited for is reaped on the way."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    if state == "Z":
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return False
    return b"multiprocessing.resource_tracker" not in command  # lives as long as its interpreter


def _children() -> set[int]:
    lists = Path("/proc/self/task").glob("*/children")
    pids = {int(pid) for text in map(_read, lists) for pid in text.split()}
    if not sys.platform.startswith("linux"):
        pids = {child.pid for child in multiprocessing.active_children() if child.pid}
    return pids


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the thread ended meanwhile
        return ""


def _sockets() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):  # the descriptor of this very search is gone by now
            found.add(str(entry.readlink()))
    return {target for target in found if target.startswith("socket:")}


def _settled(remaining: Callable[[], Iterable[Any]]) -> list[Any]:
    """Give what is still there after the time of grace, looking often."""
    end = time.monotonic() + GRACE
    while (left := list(remaining())) and time.monotonic() < end:
        time.sleep(0.01)
    return left


@pytest.fixture(autouse=True)
def _nothing_outlives_the_test() -> Generator[None]:
    threads, children, sockets = _threads(), _children(), _sockets()
    yield
    left = [f"thread {thread.name}" for thread in _settled(lambda: _threads() - threads)]
    for pid in _settled(lambda: filter(_alive, _children() - children)):
        command = _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
        left.append(f"process {pid}: {command}")
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if _sockets() - sockets:
        gc.collect()  # a cycle may hold it; an unclosed socket then warns, which is an error too
        left += _settled(lambda: _sockets() - sockets)
    if left:
        pytest.fail("the test left behind: " + "; ".join(left), pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    if pyfuncitem.get_closest_marker("anyio") and inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _without_stray_tasks(pyfuncitem.obj)
    return (yield)


def _without_stray_tasks(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """On asyncio, fail a test that leaves a task; trio's nurseries cannot leave one."""

    @functools.wraps(test)
    async def checked(*args: Any, **kwargs: Any) -> None:
        before = _tasks()
        await test(*args, **kwargs)
        for _ in range(3):  # a finished task is done only when its callbacks have run
            await anyio.lowlevel.checkpoint()
        if stray := _tasks() - before:
            pytest.fail(f"the test left behind: {stray}", pytrace=False)

    return checked


def _tasks() -> set[Any]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:  # this is trio
        return set()


def _adopt_orphans() -> None:
    """Become the parent of the children of children that died, so that they are seen too."""
    if sys.platform.startswith("linux"):
        import ctypes

        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "thorough: run by `make test-thorough`; see THOROUGH")
    _adopt_orphans()
