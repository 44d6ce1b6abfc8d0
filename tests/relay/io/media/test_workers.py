"""Workers as processes: what they load, how they end, and what is lost when one is killed."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

import relay
from relay.errors import OperatorError
from relay.io.datagram import steady_clock
from relay.io.media import plane as planes
from relay.io.media.plane import IS_AVAILABLE, open_group, serve_plane
from relay.io.media.sharedroutes import SharedRoutes
from relay.turn.bandwidth import Bandwidth
from relay.turn.counters import Drop
from relay.turn.five_tuple import Transport, listener_number
from relay.turn.routes import Route
from relay.turn.server import TURNServer
from tests.relay.io.media.serving import children, command_line, serving
from tests.relay.turnclients import client, open_channel, ticket

pytestmark = [
    pytest.mark.trio,
    pytest.mark.skipif(not IS_AVAILABLE, reason="this machine has the portable loop only"),
]

FORTH, BACK = 0x4001, 0x4FFF
ROOT = Path(relay.__file__).parent.parent


async def open_pair(stack, address):
    first, second = [
        await stack.enter_async_context(client("udp", address, credential))
        for credential in ticket()
    ]
    assert await first.bind(second.relayed, FORTH) is None
    assert await second.bind(first.relayed, BACK) is None
    return first, second


async def passes(first, second, content=b"data"):
    """Say whether a datagram arrives."""
    await first.channel_data(FORTH, content)
    with trio.move_on_after(1):
        while True:
            if (await second.channel.receive())[4:] == content:
                return True
    return False


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def until_gone(pids):
    with trio.fail_after(20):
        while any(map(is_running, pids)):  # noqa: ASYNC110 - not our children
            await trio.sleep(0.01)


async def test_a_killed_worker_loses_nothing_but_time():
    """Killed under traffic, a worker is started anew on its socket: its clients go on without a
    request, and those of the other worker do not notice (TURN-57).
    """
    async with serving("two workers") as server, AsyncExitStack() as stack:
        pairs = [await open_pair(stack, server.address) for _ in range(8)]
        before = server.pids
        os.kill(before[0], signal.SIGSTOP)
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
        pair = await open_pair(stack, server.address)
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


async def test_signals_to_the_group_are_the_control_process_business():
    """What a terminal or supervisor sends to all does not stop media before the relay (TURN-57)."""
    async with serving() as server, AsyncExitStack() as stack:
        pair = await open_pair(stack, server.address)
        (worker,) = server.pids
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker, number)
        assert await passes(*pair)
        assert server.pids == [worker]


async def test_cancellation_leaves_nothing():
    """When it is cancelled no worker, socket or descriptor is left, also under load (TURN-50)."""
    descriptors = open_descriptors()
    async with serving("two workers") as server, AsyncExitStack() as stack:
        first, _ = await open_pair(stack, server.address)
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
        for name in ("worker", "forwarder", "batch", "libc", "routetable", "tallies")
    }
    foreign = {"trio", "nacl", "ssl", "_ssl", "hashlib", "hmac", "asyncio", "socket", "sqlite3"}
    assert not foreign & set(loaded)


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


def publish(server, sock, number, receiver, seconds=60):
    """Put a route into the table that no allocation stands for."""
    until = server.clock() + seconds
    key = ((0, sock.getsockname()), number.to_bytes(2))
    route = Route(until, (0, receiver), b"\x40\x07", Bandwidth(0, 1e9))
    server.routes.publish(key, route)
    return key


@pytest.mark.parametrize("receiver", [("127.0.0.1", 0), ("255.255.255.255", 9)])
async def test_unreachable_receivers(receiver):
    """What the kernel refuses is dropped and counted, and costs others nothing (TURN-52)."""
    async with serving() as server, open_channel("udp", server.address) as sender:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            publish(server, sender.sock, 0x4000, receiver)
            publish(server, sender.sock, 0x4001, other.getsockname())
            for number in range(30):
                await sender.send(b"\x40\0\0\4" + number.to_bytes(4))
                await sender.send(b"\x40\1\0\4" + number.to_bytes(4))
            got = [await trio.to_thread.run_sync(other.recv, 100) for _ in range(30)]
        assert got == [b"\x40\7\0\4" + number.to_bytes(4) for number in range(30)]
        await server.until(lambda: server.counters.drops[Drop.SEND_FAILED] == 30)
        assert server.counters.forwarded == server.counters.packets_out == 30
        assert server.counters.bytes_out == 240


async def test_where_segmentation_is_refused():
    """Where the kernel does not cut a run, its datagrams go one by one (TURN-59)."""
    async with serving() as server, open_channel("udp", server.address) as sender:
        so_no_check = 11  # without checksums there is no segmentation
        server.groups[0][0].setsockopt(socket.SOL_SOCKET, so_no_check, 1)
        (worker,) = server.pids
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            publish(server, sender.sock, 0x4000, other.getsockname())
            os.kill(worker, signal.SIGSTOP)  # so that a run gathers
            for number in range(20):
                await sender.send(b"\x40\0\0\4" + number.to_bytes(4))
            os.kill(worker, signal.SIGCONT)
            got = [await trio.to_thread.run_sync(other.recv, 100) for _ in range(20)]
        assert got == [b"\x40\7\0\4" + number.to_bytes(4) for number in range(20)]
        assert server.counters.forwarded == 20
        assert sum(server.counters.batches) <= 4


async def test_a_run_is_one_batch():
    """Datagrams that gathered leave together, in order, the last one shorter (TURN-59)."""
    async with serving() as server, open_channel("udp", server.address) as sender:
        (worker,) = server.pids
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            publish(server, sender.sock, 0x4000, other.getsockname())
            os.kill(worker, signal.SIGSTOP)
            sent = [bytes([number]) * 1200 for number in range(63)] + [b"last"]
            for content in sent:
                await sender.send(b"\x40\0" + len(content).to_bytes(2) + content)
            os.kill(worker, signal.SIGCONT)
            got = [await trio.to_thread.run_sync(other.recv, 2000) for _ in sent]
        assert [frame[4:] for frame in got] == sent
        assert server.counters.batches[6] >= 1 or sum(server.counters.batches) <= 4


async def test_a_route_that_ends():
    """A route is followed neither after it was withdrawn nor after its time; what it would have
    carried is for the rules (TURN-35, TURN-56).
    """
    async with serving() as server, open_channel("udp", server.address) as sender:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.settimeout(10)
            for dropped in range(20):
                key = publish(server, sender.sock, 0x4000, other.getsockname())
                await sender.send(b"\x40\0\0\2in")
                assert await trio.to_thread.run_sync(other.recv, 100) == b"\x40\7\0\2in"
                server.routes.withdraw(key)
                await sender.send(b"\x40\0\0\3out")
                await server.until(
                    lambda n=dropped + 1: server.counters.drops[Drop.NO_ALLOCATION] == n
                )
            publish(server, sender.sock, 0x4000, other.getsockname(), seconds=-0.001)
            await sender.send(b"\x40\0\0\3out")
            await server.until(lambda: server.counters.drops[Drop.NO_ALLOCATION] == 21)
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(100)


async def test_a_full_table():
    """Pairs that find no room in the table are served by the rules (TURN-55)."""
    async with serving(records=2) as server, AsyncExitStack() as stack:
        pairs = [await open_pair(stack, server.address) for _ in range(3)]
        assert len(server.routes) == 2
        for pair in pairs:
            assert await passes(*pair)


async def test_only_datagrams_are_forwarded_by_workers():
    """A route to or from a client on TCP or TLS stays out of the table (TURN-55)."""
    with SharedRoutes(listeners=1, records=9, bandwidth=1, clock=steady_clock()) as routes:
        udp, tcp = (0, ("127.0.0.1", 1)), (listener_number(Transport.TCP, 0), ("127.0.0.1", 2))
        for sender, receiver in ((udp, tcp), (tcp, udp), (tcp, tcp)):
            key = (sender, b"\x40\0")
            routes.publish(key, Route(1, receiver, b"\x40\0", Bandwidth(0, 1)))
            assert len(routes) == 0
            routes.withdraw(key)


async def test_a_busy_control_process(monkeypatch):
    """T6: what the control process does not take is dropped and counted, forwarding goes on
    (TURN-58).
    """
    monkeypatch.setattr(planes, "HANDOVER_BUFFER", 4096)
    async with serving() as server, AsyncExitStack() as stack:
        first, second = await open_pair(stack, server.address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect(server.address)
            for _ in range(400):  # no checkpoint: this process is busy
                stranger.send(bytes(1000))
        await server.until(lambda: server.counters.packets_in >= 400)
        assert server.counters.drops[Drop.BUSY] > 100
        assert await passes(first, second)
