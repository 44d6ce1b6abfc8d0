"""The fast data plane: worker processes that forward, and this one, which decides (spec/turn.md).

Each listener has a group of sockets on one port, each socket a worker. The sockets belong to this
process, so a worker that dies is started anew on its socket, and nothing but time is lost. What
workers do not forward they hand over, and it is answered from here. It knows nothing of STUN.
"""

import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

import relay
from relay.errors import OperatorError
from relay.io.datagram import EXPIRY_INTERVAL, MAX_DATAGRAM, Clock, open_socket, steady_clock
from relay.io.media import tallies
from relay.io.media.libc import IS_SUPPORTED, MSG_DONTWAIT
from relay.io.media.memory import open_shared
from relay.io.media.names import decode_name, name_length
from relay.io.media.sharedroutes import SharedRoutes
from relay.io.media.worker import READY, arguments
from relay.io.outlets import Outlets
from relay.turn.counters import BATCH_CLASSES, Counters, Drop
from relay.turn.five_tuple import SocketAddress
from relay.turn.server import TURNServer

HANDOVER_BUFFER: Final = 1 << 20
"""Bytes asked of the kernel for what waits for this process; what comes on top is dropped."""

BATCH: Final = 64
STRANGERS_BATCH: Final = 16
"""Datagrams of a worker's that are answered before others have their turn: fewer of senders without
a route, of which there may be a flood."""
START_SECONDS: Final = 20.0
"""A worker takes 0.1 s to start on an idle machine; one that does not by then is ended."""

MAX_RESTART_DELAY: Final = 2.0
"""Seconds between two starts of a worker that ends as soon as it has begun."""
STABLE_SECONDS: Final = 10.0
"""A worker that lived so long is started anew at once."""
WATCH_SECONDS: Final = 1.0
STALL_SECONDS: Final = 5.0
"""A worker that leaves datagrams waiting for so long does not work; calls give up after 15."""

IS_AVAILABLE: Final = IS_SUPPORTED
"""Whether this machine can run it."""

_START: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from relay.io.media.worker import main; main()"
)
_ROOT: Final = str(Path(relay.__file__).parent.parent)

_ENVIRONMENT: Final = ("LD_LIBRARY_PATH",)
"""What an interpreter may need to start. The rest may hold the relay's configuration: secrets."""

_TALLIED: Final = {
    tallies.MALFORMED: Drop.MALFORMED,
    tallies.NOT_STUN: Drop.NOT_STUN,
    tallies.BANDWIDTH: Drop.BANDWIDTH,
    tallies.BUSY: Drop.BUSY,
    tallies.SEND_FAILED: Drop.SEND_FAILED,
}

_log = logging.getLogger(__name__)


def open_group(host: str, port: int, workers: int) -> list[socket.socket]:
    """Return ``workers`` sockets on one numeric address and port, for `serve_plane`.

    Raises:
        ValueError: ``host`` is no numeric address.
        OSError: the address cannot be bound; with several workers also if only some can.
    """
    if workers == 1:
        group = [open_socket(host, port)]
    else:
        # A shared port would let another relay of this user take half of the datagrams.
        with open_socket(host, port) as probe:
            port = probe.getsockname()[1]
        group = []
        try:
            for _ in range(workers):
                group.append(open_socket(host, port, shared=True))
        except BaseException:
            for sock in group:
                sock.close()
            raise
    for sock in group:
        sock.setblocking(True)  # it is the workers that wait; this process never does
    return group


async def serve_plane(
    groups: Sequence[Sequence[socket.socket]],
    core: TURNServer,
    routes: SharedRoutes,
    *,
    outlets: Outlets | None = None,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[list[SocketAddress]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve TURN on groups of `open_group`, one for each listener, until cancelled.

    Closes the sockets, and ends its workers, in any case. ``routes`` is the core's observer and
    knows as many listeners; ``clock`` is the one of ``routes``. Reports the listeners' addresses
    once all workers serve.

    Raises:
        ExceptionGroup: of OperatorError: a worker does not start.
    """
    plane = _Plane(groups, core, routes, outlets or Outlets(), clock or steady_clock())
    core.counters.collectors.append(plane.collect)
    try:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(START_SECONDS) as starting:
                for worker in plane.workers:
                    await nursery.start(plane.keep, worker)
            if starting.cancelled_caught:
                raise OperatorError("the media workers do not start")
            nursery.start_soon(plane.sweep)
            nursery.start_soon(plane.watch)
            task_status.started([group[0].getsockname() for group in groups])
    finally:
        plane.close()
        core.counters.collectors.remove(plane.collect)
        for group in groups:
            for sock in group:
                sock.close()


@dataclass(slots=True)
class _Worker:
    """One worker and what this process holds of it while it runs."""

    listener: int
    number: int
    block: int
    process: subprocess.Popen[bytes] | None = None
    handovers: tuple[socket.socket, ...] = ()
    lifeline: int = -1
    serves: bool = False
    received: int = 0
    moved_at: float = 0.0
    """When it was last seen to receive, or to have nothing to receive."""

    def end(self) -> None:
        """Kill it, which loses nothing, and wait for that."""
        self.serves = False
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        # Last, as a worker that is handing over would complain.
        for handover in self.handovers:
            handover.close()
        self.handovers = ()
        if self.lifeline != -1:
            os.close(self.lifeline)
            self.lifeline = -1


class _Plane:
    """The workers and their one core."""

    def __init__(
        self,
        groups: Sequence[Sequence[socket.socket]],
        core: TURNServer,
        routes: SharedRoutes,
        outlets: Outlets,
        clock: Clock,
    ) -> None:
        self._groups = groups
        self._core = core
        self._routes = routes
        self._outlets = outlets
        self._clock = clock
        self._reported = False
        places = [(listener, n) for listener, group in enumerate(groups) for n in range(len(group))]
        self.workers = [_Worker(*place, block) for block, place in enumerate(places)]
        size = tallies.BLOCK * len(self.workers)
        shared = open_shared("e2ecall-counts", size, read_only=False)
        self._counts_descriptor, self._counts_memory = shared
        self._counts = memoryview(self._counts_memory).cast("Q")
        self._collected = [0] * len(self._counts)
        for listener in range(len(groups)):
            outlets.add(listener, partial(self._send, listener))

    async def sweep(self) -> None:
        """Let the core forget what has expired."""
        while True:
            await trio.sleep(EXPIRY_INTERVAL)
            self._core.expire(self._clock())

    async def keep(
        self, worker: _Worker, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run a worker; whenever it ends by itself, run it anew. Reports once it serves.

        Raises:
            OperatorError: it ended before it served for the first time.
        """
        is_ready, delay = False, 0.0
        while True:
            began, problem = trio.current_time(), None
            try:
                known, unknown = self._start(worker)
                if await _becomes_ready(known):
                    worker.serves, worker.moved_at = True, trio.current_time()
                    if not is_ready:
                        task_status.started()
                        is_ready = True
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._take, worker.listener, unknown, STRANGERS_BATCH)
                        await self._take(worker.listener, known, BATCH)
                        nursery.cancel_scope.cancel()
            except OSError as error:
                # No descriptor or memory for a process: later there may be, and calls go on.
                problem = error
            finally:
                worker.end()
            if not is_ready:
                reason = f": {problem.strerror}" if problem is not None else ""
                raise OperatorError(f"a media worker does not start{reason}") from problem
            self._core.counters.worker_restarts += 1
            _log.error("a media worker ended and is started anew")
            is_stable = trio.current_time() - began > STABLE_SECONDS
            delay = 0.0 if is_stable else min(2 * delay + 0.05, MAX_RESTART_DELAY)
            await trio.sleep(delay)

    async def watch(self) -> None:
        """Kill a worker that leaves datagrams waiting, so that it is run anew (TURN-61)."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            now = trio.current_time()
            for worker in self.workers:
                received = self._counts[worker.block * tallies.WORDS + tallies.PACKETS_IN]
                sock = self._groups[worker.listener][worker.number]
                if not worker.serves or received != worker.received or not _waits(sock):
                    worker.received, worker.moved_at = received, now
                elif now - worker.moved_at >= STALL_SECONDS and worker.process is not None:
                    _log.error("a media worker does not work and is ended")
                    worker.process.kill()

    def collect(self) -> None:
        """Add what the workers counted since the last time to the core's counters."""
        counts, counters = list(self._counts), self._core.counters
        added = [new - old for new, old in zip(counts, self._collected, strict=True)]
        self._collected = counts
        for worker in self.workers:
            begin = worker.block * tallies.WORDS
            _add(counters, added[begin : begin + tallies.WORDS])

    def close(self) -> None:
        """End all workers and let go of the shared memory."""
        for worker in self.workers:
            worker.end()
        self.collect()
        self._counts.release()
        self._counts_memory.close()
        os.close(self._counts_descriptor)

    def _start(self, worker: _Worker) -> tuple[socket.socket, ...]:
        with ExitStack() as stack:
            handovers = []
            for _ in range(2):
                ours, theirs = _handover()
                worker.handovers += (ours,)
                stack.enter_context(theirs)
                handovers.append(theirs.fileno())
            end, worker.lifeline = os.pipe()
            sockets = [group[worker.number].fileno() for group in self._groups]
            command = arguments(
                listener=worker.listener,
                name_length=name_length(self._groups[worker.listener][0]),
                handovers=(handovers[0], handovers[1]),
                lifeline=end,
                table=self._routes.descriptor,
                records=self._routes.records,
                counts=self._counts_descriptor,
                block=worker.block,
                sockets=sockets,
            )
            shared = (*handovers, end, self._routes.descriptor, self._counts_descriptor)
            try:
                # Isolated, and without the site's packages: 10 MB, and nothing but what it needs.
                worker.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _START, _ROOT, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(*shared, *sockets),
                    env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
                )
            finally:
                os.close(end)
        return worker.handovers

    async def _take(self, listener: int, handover: socket.socket, batch: int) -> None:
        """Handle what a worker hands over, until it ends."""
        length = name_length(self._groups[listener][0])
        while True:
            await trio.lowlevel.wait_readable(handover)
            now = self._clock()
            for _ in range(batch):
                try:
                    message = handover.recv(length + MAX_DATAGRAM)
                except BlockingIOError:
                    break
                except ConnectionError:
                    return
                if not message:
                    return
                self._handle(now, listener, message[:length], message[length:])

    def _handle(self, now: float, listener: int, name: bytes, datagram: bytes) -> None:
        try:
            client = decode_name(name)
            self._outlets.send(self._core.receive(now, (listener, client), datagram))
        except Exception:  # noqa: BLE001 - one client's datagram must not end everybody's calls
            self._core.counters.drops[Drop.INTERNAL] += 1
            if not self._reported:
                self._reported = True
                _log.exception("a datagram made the TURN server fail; others are only counted")

    def _send(self, listener: int, client: SocketAddress, data: bytes) -> None:
        counters = self._core.counters
        try:
            self._groups[listener][0].sendto(data, MSG_DONTWAIT, client)
        except OSError:
            # Full buffer or unreachable: real-time media is dropped, not queued.
            counters.drops[Drop.SEND_FAILED] += 1
        else:
            counters.packets_out += 1
            counters.bytes_out += len(data)


def _handover() -> tuple[socket.socket, socket.socket]:
    """Return this process's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HANDOVER_BUFFER)
    return ours, theirs


def _waits(sock: socket.socket) -> bool:
    """Say whether a datagram waits to be received."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


async def _becomes_ready(handover: socket.socket) -> bool:
    with trio.move_on_after(START_SECONDS):
        await trio.lowlevel.wait_readable(handover)
        return handover.recv(1) == READY
    return False


def _add(counters: Counters, added: Sequence[int]) -> None:
    counters.packets_in += added[tallies.PACKETS_IN]
    counters.bytes_in += added[tallies.BYTES_IN]
    counters.packets_out += added[tallies.PACKETS_OUT]
    counters.bytes_out += added[tallies.BYTES_OUT]
    counters.forwarded += added[tallies.PACKETS_OUT]
    for word, reason in _TALLIED.items():
        counters.drops[reason] += added[word]
    for size in range(BATCH_CLASSES):
        counters.batches[size] += added[tallies.BATCHES + size]
