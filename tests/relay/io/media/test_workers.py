"""Workers as processes: what they load, how they end, and what is lost when one is killed."""

import contextlib
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

import relay
from relay.errors import OperatorError
from relay.io.datagram import steady_clock
from relay.io.media import plane as planes
from relay.io.media.names import encode_name
from relay.io.media.plane import IS_AVAILABLE, open_group, serve_plane
from relay.io.media.routetable import RouteReader, route_key, table_size
from relay.io.media.sharedroutes import SharedRoutes
from relay.turn.bandwidth import Bandwidth
from relay.turn.counters import Drop
from relay.turn.routes import Route
from relay.turn.server import TURNServer
from tests.relay.io.media.pairs import FORTH, open_pair, passes
from tests.relay.io.media.serving import children, command_line, serving

pytestmark = [
    pytest.mark.trio,
    pytest.mark.skipif(not IS_AVAILABLE, reason="this machine has the portable loop only"),
]

ROOT = Path(relay.__file__).parent.parent


def state_of(pid):
    """Return the kernel's letter for what a process does; Z, dead, if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def is_running(pid):
    return state_of(pid) != "Z"


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def until_gone(pids):
    with trio.fail_after(20):
        while any(map(is_running, pids)):  # noqa: ASYNC110 - not our children
            await trio.sleep(0.01)


async def test_a_killed_worker_loses_nothing_but_time(monkeypatch):
    """Killed under traffic, a worker is started anew on its socket: its clients go on without a
    request, and those of the other worker do not notice (TURN-57).
    """
    monkeypatch.setattr(planes, "STALL_SECONDS", 600)
    async with serving("two workers") as server, AsyncExitStack() as stack:
        pairs = [await open_pair(stack, [server.address] * 2) for _ in range(8)]
        before = server.pids
        os.kill(before[0], signal.SIGSTOP)
        # What it reads before it has stopped dies with it.
        await server.until(lambda: state_of(before[0]) == "T")
        served = [await passes(*pair, b"first stopped") for pair in pairs]
        os.kill(before[0], signal.SIGKILL)
        unserved = [pair for pair, answer in zip(pairs, served, strict=True) if not answer]
        assert 0 < len(unserved) < 8
        for pair, answer in zip(pairs, served, strict=True):
            if answer:
                for number in range(20):
                    assert await passes(*pair, b"meanwhile %d" % number)
        await server.until(lambda: server.counters.worker_restarts == 1 and len(server.pids) == 2)
        for first, second in unserved:
            # What came while there was no worker waited in the socket.
            frame = await second.frame()
            assert frame[4:] == b"first stopped"
            assert await passes(first, second, b"again")
        assert set(server.pids) & set(before) == {before[1]}
        assert server.counters.allocations == 16


async def test_a_worker_that_dies_again_and_again():
    """Each of many kills is survived, and counted; totals do not fall back (TURN-57, TURN-60)."""
    async with serving() as server, AsyncExitStack() as stack:
        pair = await open_pair(stack, [server.address] * 2)
        for number in range(4):
            await pair[0].channel_data(FORTH, b"%d" % number)
            assert (await pair[1].frame())[4:] == b"%d" % number
            await server.until(lambda n=number: server.counters.forwarded == n + 1)
            (worker,) = server.pids
            os.kill(worker, signal.SIGKILL)
            await server.until(
                lambda n=number, w=worker: (
                    server.counters.worker_restarts == n + 1 and server.pids not in ([], [w])
                )
            )
            assert server.counters.forwarded == number + 1
        with trio.fail_after(10):
            while not await passes(*pair, b"again"):
                pass


async def test_a_worker_that_stands_still_is_replaced():
    """TURN-61: a worker that was stopped, and has not ended, is started anew once datagrams wait;
    they are forwarded, and one that has nothing to do is left alone.
    """
    async with serving() as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, [server.address] * 2)
        await trio.sleep(planes.WATCH_SECONDS)
        (worker,) = server.pids
        os.kill(worker, signal.SIGSTOP)
        # What it reads before it has stopped dies with it.
        await server.until(lambda: state_of(worker) == "T")
        await first.channel_data(FORTH, b"waits")
        with trio.fail_after(60):
            assert (await second.channel.receive())[4:] == b"waits"
        assert await passes(first, second, b"goes on")
        assert server.counters.worker_restarts == 1
        assert worker not in server.pids
        assert server.counters.allocations == 2


FLOOD = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.1", int(sys.argv[1])))
for _ in range(60_000):
    sock.send(bytes([255]))
"""


async def test_totals_are_whole():
    """Read while a worker counts, a total is never less than it was (TURN-60)."""
    async with serving() as server:
        command = [sys.executable, "-c", FLOOD, str(server.address[1])]
        before = 0
        with subprocess.Popen(command) as flood:  # noqa: ASYNC220 - brief
            while flood.poll() is None:
                counted = server.counters.packets_in  # no checkpoint: it is the worker that counts
                assert counted >= before
                before = counted
        assert before > 0


async def test_signals_to_the_group_are_the_control_process_business():
    """What a terminal or supervisor sends to all does not stop media before the relay (TURN-57)."""
    async with serving() as server, AsyncExitStack() as stack:
        pair = await open_pair(stack, [server.address] * 2)
        (worker,) = server.pids
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker, number)
        assert await passes(*pair)
        assert server.pids == [worker]


async def test_cancellation_leaves_nothing():
    """When it is cancelled no worker, socket or descriptor is left, also under load (TURN-50)."""
    descriptors = open_descriptors()
    async with serving("two workers") as server, AsyncExitStack() as stack:
        first, _ = await open_pair(stack, [server.address] * 2)
        pids, groups = server.pids, server.groups
        assert len(pids) == 2
        for _ in range(500):
            await first.channel_data(FORTH, bytes(500))
    assert not any(map(is_running, pids))
    assert not set(children(os.getpid())) & set(pids)
    assert all(sock.fileno() == -1 for group in groups for sock in group)
    assert open_descriptors() == descriptors


CONTROL = """
import trio, sys
from tests.relay.io.media.pairs import FORTH, open_pair, passes
from tests.relay.io.media.serving import serving
async def main():
    async with serving("two workers") as server:
        print(*server.pids, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_workers_end_with_the_control_process():
    """A control process that is killed leaves no worker behind (TURN-57)."""
    command = [sys.executable, "-c", CONTROL]
    control = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)  # noqa: ASYNC220 - brief
    try:
        line = await trio.to_thread.run_sync(control.stdout.readline)
        pids = [int(pid) for pid in line.split()]
        assert len(pids) == 2
        assert all(b"media.worker" in command_line(pid) for pid in pids)
    finally:
        control.kill()
        control.wait()
        control.stdout.close()
    await until_gone(pids)


FLOODED = """
import os, signal, socket, trio
from tests.relay.io.media.pairs import FORTH, open_pair, passes
from tests.relay.io.media.serving import serving
async def main():
    async with serving() as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect(server.address)
            for _ in range(6000):
                stranger.send(bytes.fromhex("000100002112a442") + bytes(12))
        {end}
trio.run(main)
"""


@pytest.mark.parametrize(
    ("end", "code"), [("return", 0), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)]
)
async def test_the_end_under_a_flood_is_quiet(end, code):
    """Workers that are handing over when the control process ends say nothing (TURN-57)."""
    command = [sys.executable, "-c", FLOODED.format(end=end)]
    done = await trio.run_process(command, cwd=ROOT, capture_stderr=True, check=False)
    assert (done.returncode, done.stderr) == (code, b"")


async def test_what_a_worker_loads():
    """A worker has no event loop, no cryptography, no secret; it is small (TURN-55)."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import relay.io.media.worker; "
    code += "print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    process = await trio.run_process(command, capture_stdout=True)
    loaded = process.stdout.decode().split()
    ours = {name for name in loaded if name.startswith("relay.") and name.count(".") > 1}
    assert ours - {"relay.io.media", "relay.turn.bandwidth"} == {
        f"relay.io.media.{name}"
        for name in ("worker", "forwarder", "batch", "libc", "pace", "routetable", "tallies")
    }
    foreign = {"trio", "nacl", "ssl", "_ssl", "hashlib", "hmac", "asyncio", "socket", "sqlite3"}
    assert not foreign & set(loaded)


def proc(pid, name):
    return Path(f"/proc/{pid}/{name}")


async def test_what_a_worker_inherits(monkeypatch):
    """The environment, which may hold the relay's secrets, is not a worker's (TURN-55)."""
    monkeypatch.setenv("RELAY__TURN__SECRET", "a secret")
    async with serving() as server:
        (worker,) = server.pids
        assert b"secret" not in proc(worker, "environ").read_bytes().lower()


async def test_shared_memory_is_the_control_process_own():
    """Nobody who is given the table can write to it or change its size, not even by opening it
    anew; nor change the size of what workers count in (TURN-55).
    """
    async with serving() as server:
        (worker,) = server.pids
        shared = {path.readlink(): path for path in proc(worker, "fd").iterdir()}
        table, counts = [
            shared[Path(f"/memfd:e2ecall-{name} (deleted)")] for name in ("routes", "counts")
        ]
        for path in (table, counts):
            with path.open("r+b", buffering=0) as memory, pytest.raises(PermissionError):
                memory.truncate(0)
        with table.open("r+b", buffering=0) as memory:
            with pytest.raises(PermissionError):
                memory.write(bytes(8))
            with pytest.raises(PermissionError):
                mmap.mmap(memory.fileno(), mmap.PAGESIZE)


async def test_a_pause_at_the_start_makes_no_route_longer():
    """Routes end in the table no later than for the core, whenever their clocks were compared
    (TURN-56).
    """

    def slow():
        now = steady()
        time.sleep(0.05)  # what a scheduler may do at this place
        return now

    steady = steady_clock()
    with SharedRoutes(listeners=1, records=9, bandwidth=1, clock=slow) as routes:
        key, until = ((0, ("127.0.0.1", 1)), b"\x40\0"), steady() + 10
        routes.publish(key, Route(until, (0, ("127.0.0.1", 2)), b"\x40\0", Bandwidth(0, 1)))
        with mmap.mmap(routes.descriptor, table_size(9), prot=mmap.PROT_READ) as memory:
            reader = RouteReader(memory, 9)
            found = reader.find(route_key(0, encode_name(("127.0.0.1", 1)), b"\x40\0"))
            assert found.until - time.monotonic() <= until - steady() + 0.001
            reader.close()


@contextlib.contextmanager
def no_descriptors():
    """Leave this process without a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


async def test_a_worker_that_dies_while_there_are_no_descriptors():
    """Where a worker cannot be started anew the relay goes on, and tries until it can (TURN-57)."""
    async with serving() as server, AsyncExitStack() as stack:
        pair = await open_pair(stack, [server.address] * 2)
        (worker,) = server.pids
        with no_descriptors():
            os.kill(worker, signal.SIGKILL)
            await server.until(lambda: server.counters.worker_restarts >= 2)
        with trio.fail_after(20):
            while not await passes(*pair):
                pass


HANGS = "import os, sys; os.read(int(sys.argv[5]), 1)"


async def test_a_worker_that_hangs_while_it_starts(monkeypatch):
    """A worker that does not come to serve in time is ended and started anew (TURN-57)."""
    async with serving() as server, AsyncExitStack() as stack:
        pair = await open_pair(stack, [server.address] * 2)
        (worker,) = server.pids
        with monkeypatch.context() as patch:
            patch.setattr(planes, "_START", HANGS)
            patch.setattr(planes, "START_SECONDS", 0.2)
            os.kill(worker, signal.SIGKILL)
            await server.until(lambda: server.counters.worker_restarts >= 3)
        with trio.fail_after(20):
            while not await passes(*pair):
                pass


ROGUE = """
import os, sys
handover = int(sys.argv[4])
for length in range(1, 60):
    os.write(handover, bytes(length))
os.read(int(sys.argv[5]), 1)
"""


async def test_a_worker_that_was_taken_over(monkeypatch):
    """Whatever a worker hands over, it costs no more than that (TURN-51, TURN-55)."""
    monkeypatch.setattr(planes, "_START", ROGUE)
    async with serving() as server:
        await server.until(lambda: sum(server.counters.drops.values()) == 58)
        assert server.counters.drops[Drop.INTERNAL] == 14
        assert server.counters.worker_restarts == 0


async def test_a_worker_that_does_not_start(monkeypatch):
    """Where workers cannot start, serving fails at once, and leaves nothing (TURN-57)."""
    monkeypatch.setattr(planes, "_ROOT", os.devnull)
    group, clock = open_group("127.0.0.1", 0, 2), steady_clock()
    with SharedRoutes(listeners=1, records=1, bandwidth=1, clock=clock) as routes:
        core = make_core(routes)
        with pytest.raises(BaseExceptionGroup) as raised:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve_plane, [group], core, routes, clock=clock))
    assert raised.group_contains(OperatorError, match="worker")
    assert all(sock.fileno() == -1 for sock in group)


BROKEN = """
import os
from relay.cli.main import main
from relay.io.media import plane
plane._ROOT = os.devnull
main()
"""


async def test_a_relay_whose_workers_do_not_start():
    """A relay that cannot start a worker says so in one line after the worker's own, and exits
    with 1 (TURN-57).
    """
    command = [sys.executable, "-c", BROKEN, "serve", "--dev", "--workers", "1"]
    done = await trio.run_process(
        command, cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    lines = done.stderr.decode().splitlines()
    assert lines[-1] == "e2ecall-relay: error: a media worker does not start"
    assert lines[-2].startswith("ModuleNotFoundError")


def make_core(routes):
    core = TURNServer(
        identify=lambda username, now: None, password=lambda username: "", nonce_key=bytes(32)
    )
    core.observe(routes)
    return core


async def test_a_port_in_use():
    """Several workers share a port with nobody else; what was opened is closed (TURN-50)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        for workers in (1, 2):
            with pytest.raises(OSError, match="in use"):
                open_group("127.0.0.1", taken.getsockname()[1], workers)
    group = open_group("127.0.0.1", 0, 3)
    assert len({sock.getsockname() for sock in group}) == 1
    for sock in group:
        sock.close()
