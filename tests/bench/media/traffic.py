"""Sends channel data at given times, receives what comes, and checks every packet of it.

Each packet names its sender, its number and the time it was given to the kernel; the kernel notes
when it arrived (SO_TIMESTAMPNS), so latency does not depend on when this loop looks. What is due
goes out in one sendmmsg, whatever is there comes in with one recvmmsg; there is no work in Python
for a single packet. It never sets UDP_GRO: the server's kernel has to deliver single packets, as
it would have to a network card. UDP_SEGMENT is used only where a plan says so.
"""

import gc
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.bench.media import mmsg
from tests.bench.media.clients import IP_PKTINFO, Client, Clients

SO_TIMESTAMPNS = 35
HEADER = np.dtype([("channel", ">u2"), ("length", ">u2"), ("time", "u8"), ("number", "u4")])
"""What each packet begins with: the header of ChannelData, then our own."""

CONTROL = np.dtype(
    [
        ("length", "u8"),
        ("level", "i4"),
        ("kind", "i4"),
        ("interface", "u4"),
        ("source", ">u4"),
        ("destination", "u8"),
        ("train_length", "u8"),
        ("train_level", "i4"),
        ("train_kind", "i4"),
        ("train_size", "u8"),
    ]
)
"""What goes along with a message: IP_PKTINFO, and for a train UDP_SEGMENT."""

SOL_UDP, UDP_SEGMENT = 17, 103
DATA_HEADER = 4
SLOT, CONTROL_SLOT = 64, 64

BATCH = 64
"""Datagrams of one system call."""

DRAIN_SECONDS = 0.2
"""After the last packet was sent: what is not there by then is lost."""

PATIENCE = 5
"""How many times the planned time a run may take before it is given up."""

NAP = 50e-6
"""Seconds, where the loop shares its processor with the server."""


@dataclass(frozen=True)
class Plan:
    """One measurement. ``size`` is of the data in a ChannelData; ``rate`` is packets a second.

    With ``naps`` the loop sleeps while nothing is due, else it spins. It never waits for a packet,
    so that no server has to pay for waking it up. With ``trains`` each burst is given to the kernel
    as one train (UDP_SEGMENT), which costs the generator half as much and a server that takes
    single packets the same.
    """

    rate: int
    burst: int
    size: int
    seconds: float
    warm: float = 0.3
    naps: bool = False
    trains: bool = False


class TooSlowError(Exception):
    """The generator could not send at the rate that was asked of it."""


@dataclass(frozen=True)
class Outcome:
    """What became of the packets that were sent in the window, and how the loop fared itself.

    ``usage`` is what the server consumed in the window, in which ``passed`` packets were
    delivered. Latencies and ``late`` are microseconds: ``late`` is by how much the loop missed a
    packet's time at the 99th percentile, ``busy`` the part of its time that sending and receiving
    took (at low rates by smaller batches than it could make).
    """

    sent: int
    delivered: int
    wrong: int
    passed: int
    usage: int
    p50: float
    p99: float
    achieved: float
    late: float
    busy: float

    @property
    def loss(self) -> float:
        """The part that did not arrive."""
        return 1 - self.delivered / self.sent


class Traffic:
    """Packets from every client to its peer. ``usage()`` tells the server's consumption so far."""

    def __init__(self, clients: Clients, usage: Callable[[], int]) -> None:
        self._sock, self._server, self._usage = clients.sock, clients.server, usage
        self._clients = list(clients.all)
        self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._inbox = _Inbox()

    def run(self, plan: Plan) -> Outcome:
        """Send as planned and return what came of it."""
        outbox = _Outbox(self._clients, self._server, plan)
        self._discard()
        gc.collect()
        gc.disable()
        try:
            return self._run(plan, outbox)
        finally:
            gc.enable()

    def _discard(self) -> None:
        while self._inbox.receive(self._sock.fileno()) is not None:
            pass

    def _run(self, plan: Plan, outbox: "_Outbox") -> Outcome:
        fd, clock = self._sock.fileno(), time.perf_counter_ns
        total = int(plan.rate * (plan.warm + plan.seconds)) // plan.burst * plan.burst
        first = int(plan.rate * plan.warm) // plan.burst * plan.burst
        times = _Times(len(self._clients), plan)
        received: list[np.ndarray] = []
        late: list[int] = []
        sent = passed = work = usage = 0
        begun = ended = counted = worked = 0
        start = clock()
        end = start + int(total / plan.rate * PATIENCE * 1e9)
        while (now := clock()) < end:
            if not begun and sent >= first:
                begun, usage, passed, work = clock(), self._usage(), 0, 0
            due = min(total, times.due(now - start))
            if due > sent:
                late.append(int(now - start - times.of(sent)))
                sent += outbox.send(fd, sent, min(due, sent + BATCH))
                work += clock() - now
                if sent == total:
                    ended = clock()
                    end = ended + int(DRAIN_SECONDS * 1e9)
                    usage = self._usage() - usage
                    counted, worked = passed, work
            looked = clock()
            packets = self._inbox.receive(fd)
            if packets is not None:
                received.append(packets)
                passed += len(packets)
                work += clock() - looked
            elif plan.naps and due <= sent:
                time.sleep(NAP)
        if not ended:
            raise TooSlowError(f"only {sent} of {total} packets could be sent")
        arrived = np.concatenate(received) if received else np.empty(0, ARRIVED)
        span = ended - begun
        return _outcome(
            arrived,
            self._expected(plan),
            (first, total),
            passed=counted,
            usage=usage,
            achieved=(total - first) / span * 1e9,
            late=float(np.percentile(late, 99)) / 1e3,
            busy=worked / span,
        )

    def _expected(self, plan: Plan) -> "_Expected":
        order = _order(self._clients)
        peers = [self._clients[number].peer for number in order]
        hosts = np.array([peer.host for peer in peers if peer is not None], np.uint32)
        channels = np.array([peer.channel for peer in peers if peer is not None], np.uint16)
        return _Expected(hosts, channels, plan.burst, plan.size)


ARRIVED = np.dtype(
    [
        ("number", "u4"),
        ("host", "u4"),
        ("channel", "u2"),
        ("length", "u2"),
        ("taken", "u4"),
        ("latency", "i8"),
    ]
)


@dataclass(frozen=True)
class _Expected:
    """To whom, and on which channel, the packets of each place in the order have to come."""

    hosts: np.ndarray
    channels: np.ndarray
    burst: int
    size: int


def _outcome(
    arrived: np.ndarray,
    expected: _Expected,
    window: tuple[int, int],
    *,
    passed: int,
    usage: int,
    achieved: float,
    late: float,
    busy: float,
) -> Outcome:
    first, total = window
    of_window = arrived[(arrived["number"] >= first) & (arrived["number"] < total)]
    place = of_window["number"] // expected.burst % len(expected.hosts)
    right = (
        (of_window["host"] == expected.hosts[place])
        & (of_window["channel"] == expected.channels[place])
        & (of_window["length"] == expected.size)
        & (of_window["taken"] == expected.size + DATA_HEADER)
    )
    distinct = np.unique(of_window["number"][right])
    latency = of_window["latency"][right]
    p50, p99 = np.percentile(latency, [50, 99]) / 1e3 if len(latency) else (np.inf, np.inf)
    return Outcome(
        sent=total - first,
        delivered=len(distinct),
        wrong=len(arrived) - len(of_window[right]) - int(np.sum(arrived["number"] < first)),
        passed=passed,
        usage=usage,
        p50=float(p50),
        p99=float(p99),
        achieved=achieved,
        late=late,
        busy=busy,
    )


class _Times:
    """When packets are due, in nanoseconds from the start.

    Each client sends its bursts at equal intervals, and begins at a random moment, as people who
    do not know of each other do. Bursts of all at equal intervals would be a load that no server
    ever has: never two at once, never a pause.
    """

    def __init__(self, clients: int, plan: Plan) -> None:
        self._burst = plan.burst
        self._round = clients * plan.burst * 1e9 / plan.rate
        self._moments = np.sort(np.random.default_rng(1).random(clients)) * self._round

    def due(self, elapsed: int) -> int:
        """Return how many packets should have been sent by now."""
        rounds, rest = divmod(elapsed, self._round)
        bursts = int(rounds) * len(self._moments) + int(self._moments.searchsorted(rest))
        return bursts * self._burst

    def of(self, packet: int) -> float:
        """Return when a packet is due."""
        rounds, place = divmod(packet // self._burst, len(self._moments))
        return rounds * self._round + float(self._moments[place])


def _order(clients: list[Client]) -> np.ndarray:
    """Return in which order the clients send: one that puts no two of a pair together."""
    return np.random.default_rng(0).permutation(len(clients))


class _Outbox:
    """Packets laid out for every client's turn; a send fills in number and time.

    The data behind the first bytes is one block for all, so that thousands of clients do not
    compete for the cache.
    """

    def __init__(self, clients: list[Client], server: tuple[str, int], plan: Plan) -> None:
        order = np.repeat(_order(clients), plan.burst)
        while len(order) < BATCH:
            order = np.concatenate([order, order])
        count = len(order)
        self._heads = np.zeros(count, HEADER)
        self._heads["channel"] = np.array([c.channel for c in clients], np.uint16)[order]
        self._heads["length"] = plan.size
        self._body = np.frombuffer(
            bytearray(b"x" * (plan.size + DATA_HEADER - HEADER.itemsize)), np.uint8
        )
        name = socket.AF_INET.to_bytes(2, "little") + server[1].to_bytes(2)
        name += socket.inet_aton(server[0]) + bytes(8)
        self._name = np.frombuffer(bytearray(name), np.uint8)
        self._per_message = plan.burst if plan.trains else 1
        messages = count // self._per_message
        self._control = np.zeros(messages, CONTROL)
        self._control["length"], self._control["kind"] = 28, IP_PKTINFO
        hosts = np.array([c.host for c in clients], np.uint32)
        self._control["source"] = hosts[order][:: self._per_message]
        self._control["train_length"] = 18
        self._control["train_level"], self._control["train_kind"] = SOL_UDP, UDP_SEGMENT
        self._control["train_size"] = plan.size + DATA_HEADER
        self._vectors = np.zeros((messages, 2 * self._per_message), mmsg.IOVEC)
        heads = mmsg.addresses(self._heads).reshape(messages, self._per_message)
        self._vectors["base"][:, 0::2], self._vectors["length"][:, 0::2] = heads, HEADER.itemsize
        self._vectors["base"][:, 1::2] = self._body.ctypes.data
        self._vectors["length"][:, 1::2] = len(self._body)
        self._headers = np.zeros(messages, mmsg.MMSGHDR)
        self._headers["name"] = self._name.ctypes.data
        self._headers["name_length"] = len(self._name)
        self._headers["vector"] = mmsg.addresses(self._vectors)
        self._headers["vector_length"] = 2 * self._per_message
        self._headers["control"] = mmsg.addresses(self._control)
        self._headers["control_length"] = CONTROL.itemsize if plan.trains else 32

    def send(self, fd: int, first: int, end: int) -> int:
        """Send the packets of these numbers, up to the end of the round; return how many went."""
        begin = first % len(self._heads)
        count = min(end - first, len(self._heads) - begin)
        heads = self._heads[begin : begin + count]
        heads["number"] = np.arange(first, first + count, dtype=np.uint32)
        heads["time"] = time.time_ns()
        per = self._per_message
        return mmsg.send(fd, self._headers[begin // per : (begin + count) // per]) * per


class _Inbox:
    """Room for a batch of datagrams."""

    def __init__(self) -> None:
        self._data = np.zeros((BATCH, SLOT), np.uint8)
        self._heads = np.ndarray(BATCH, HEADER, self._data, strides=(SLOT,))
        control = np.dtype(
            {
                "names": ["kind", "seconds", "nanoseconds", "other", "host"],
                "formats": ["i4", "i8", "i8", "i4", ">u4"],
                "offsets": [12, 16, 24, 44, 56],
                "itemsize": CONTROL_SLOT,
            }
        )
        self._control = np.zeros(BATCH, control)
        self._vectors = np.zeros(BATCH, mmsg.IOVEC)
        self._vectors["base"] = mmsg.addresses(self._data)
        self._vectors["length"] = SLOT
        self._headers = np.zeros(BATCH, mmsg.MMSGHDR)
        self._headers["vector"] = mmsg.addresses(self._vectors)
        self._headers["vector_length"] = 1
        self._headers["control"] = mmsg.addresses(self._control)

    def receive(self, fd: int) -> np.ndarray | None:
        """Return what is there, or None."""
        self._headers["control_length"] = CONTROL_SLOT
        count = mmsg.receive(fd, self._headers, mmsg.TRUNCATED)
        if not count:
            return None
        heads, control = self._heads[:count], self._control[:count]
        arrived = np.empty(count, ARRIVED)
        arrived["number"] = heads["number"]
        arrived["channel"] = heads["channel"]
        arrived["length"] = heads["length"]
        arrived["taken"] = self._headers["length"][:count]
        arrived["host"] = control["host"]
        time_ns = control["seconds"] * 1_000_000_000 + control["nanoseconds"]
        arrived["latency"] = time_ns - heads["time"].astype(np.int64)
        return arrived
