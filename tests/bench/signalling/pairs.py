"""Pairs of clients, one of which writes to the other: as fast as is taken, or at a fixed rate.

An envelope is under way from when it was due until the other client has it. It carries that time
in its first bytes, so the way is measured from when it was to be sent: a server that makes senders
wait is not spared the waiting.
"""

import asyncio
import base64
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from relay.wire.messages import AccountRecipient, Deliver, Send
from tests.bench.media.usage import cpu_time
from tests.bench.signalling.wire import Node, Wire
from tests.bench.signalling.xmpp import XMPP
from tests.relay.conftest import Identity

TIME_BYTES = 8
TICK = 0.002
"""Seconds between two looks at what is due."""
PATIENCE = 30.0

Delivered = Callable[[int], None]
"""``delivered(due)``: an envelope that was due at that time has come."""


class Pair(Protocol):
    """A sender and a receiver, both connected."""

    def send(self, due: int) -> None:
        """Send one envelope that was due at ``due`` (nanoseconds, monotonic)."""

    def close(self) -> None:
        """Hang both up."""


class RelayPair:
    """Two clients of our relay: one without a name, one logged in, maybe at another node."""

    def __init__(self, sender: Wire, receiver: Wire, username: str, size: int) -> None:
        self._sender, self._receiver = sender, receiver
        self._recipient = AccountRecipient(username, 1)
        self._rest = os.urandom(size - TIME_BYTES)
        self._number, self._run = 0, os.urandom(8)
        self.delivered: Delivered = lambda _due: None
        receiver.on_deliver = self._came

    @classmethod
    async def open(cls, nodes: list[Node], number: int, size: int) -> "RelayPair":
        """Register an account at the last node and connect to the first."""
        receiver = await Wire.connect(nodes[-1], nodes[-1].tls())
        assert receiver.hello is not None
        name = f"pair{os.urandom(4).hex()}x{number}"
        await receiver.request(Identity(name, receiver.hello.relay).register(receiver.hello))
        sender = await Wire.connect(nodes[0], nodes[0].tls())
        return cls(sender, receiver, name, size)

    def send(self, due: int) -> None:
        self._number += 1
        message_id = self._run + self._number.to_bytes(8)
        envelope = due.to_bytes(TIME_BYTES) + self._rest
        self._sender.send(Send(self._recipient, message_id, envelope, None))

    def _came(self, wire: Wire, delivery: Deliver) -> None:
        wire.acknowledge(delivery)
        self.delivered(int.from_bytes(delivery.envelope[:TIME_BYTES]))

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()


class XMPPPair:
    """Two users of an XMPP server. What is binary elsewhere is base64 here, as XML wants it."""

    def __init__(self, sender: XMPP, receiver: XMPP, user: str, size: int) -> None:
        self._sender, self._receiver, self._user = sender, receiver, user
        self._rest = base64.b64encode(os.urandom(size - TIME_BYTES)).decode()
        self._number = 0
        self.delivered: Delivered = lambda _due: None
        receiver.on_message = self._came

    @classmethod
    async def open(cls, address: tuple[str, int], number: int, size: int) -> "XMPPPair":
        """Log two users in that the server knows."""
        sender = await XMPP.log_in(address, f"s{number}")
        receiver = await XMPP.log_in(address, f"r{number}")
        return cls(sender, receiver, f"r{number}", size)

    def send(self, due: int) -> None:
        self._number += 1
        self._sender.send(self._user, self._number, f"{due:020}{self._rest}")

    def _came(self, stanza: bytes) -> None:
        _, found, body = stanza.partition(b"<body>")
        if found:
            self.delivered(int(body[:20]))

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()


@dataclass(frozen=True)
class Outcome:
    """What a measurement saw: envelopes that came and how long they took, and who worked how much.

    Times on the way are in milliseconds, CPU time is in seconds; ``late`` is the generator's own
    delay in sending, in milliseconds at the 99th percentile.
    """

    delivered: int
    sent: int
    seconds: float
    p50: float
    p99: float
    server_cpu: float
    own_cpu: float
    late: float

    @property
    def rate(self) -> float:
        return self.delivered / self.seconds


class Traffic:
    """What goes through pairs; one measurement at a time."""

    def __init__(self, pairs: list[RelayPair] | list[XMPPPair], pids: list[int]) -> None:
        self._pairs = pairs
        self._pids = pids
        self._ways: list[int] = []
        self._late: list[int] = []
        self._sent = self._open = 0
        self._counts = self._refills = False
        self._sending: asyncio.Task[None] | None = None

    async def saturate(self, window: int, seconds: float, warm: float) -> Outcome:
        """Keep ``window`` envelopes of each pair under way."""
        self._refills = True
        for pair in self._pairs:
            pair.delivered = lambda due, pair=pair: self._came(due, pair)
            for _ in range(window):
                self._send(pair, time.monotonic_ns())
        return await self._measure(seconds, warm)

    async def paced(self, rate: float, seconds: float, warm: float) -> Outcome:
        """Send so many a second, evenly, over all pairs in turns."""
        self._refills = False
        for pair in self._pairs:
            pair.delivered = lambda due, pair=pair: self._came(due, pair)
        self._sending = asyncio.create_task(self._pace(rate))
        return await self._measure(seconds, warm)

    async def _pace(self, rate: float) -> None:
        start, number, step = time.monotonic_ns(), 0, 1e9 / rate
        while True:
            now = time.monotonic_ns()
            while (due := start + int(number * step)) <= now:
                self._send(self._pairs[number % len(self._pairs)], due)
                self._late.append(time.monotonic_ns() - due)
                number += 1
            await asyncio.sleep(TICK)

    def _send(self, pair: RelayPair | XMPPPair, due: int) -> None:
        self._open += 1
        self._sent += self._counts
        pair.send(due)

    def _came(self, due: int, pair: RelayPair | XMPPPair) -> None:
        self._open -= 1
        if self._counts:
            self._ways.append(time.monotonic_ns() - due)
        if self._refills:
            self._send(pair, time.monotonic_ns())

    async def _measure(self, seconds: float, warm: float) -> Outcome:
        await asyncio.sleep(warm)
        self._ways, self._late, self._sent, self._counts = [], [], 0, True
        start, used, own = time.monotonic(), cpu_time(self._pids), own_cpu()
        await asyncio.sleep(seconds)
        while not self._ways and time.monotonic() - start < PATIENCE:  # noqa: ASYNC110 - busy
            await asyncio.sleep(TICK)
        taken = time.monotonic() - start
        used, own = cpu_time(self._pids) - used, own_cpu() - own
        self._counts = self._refills = False
        if self._sending is not None:
            self._sending.cancel()
        ways, late = sorted(self._ways), sorted(self._late) or [0]
        if not ways:
            raise TimeoutError("nothing came")
        await self._drained()
        return Outcome(
            len(ways),
            self._sent,
            taken,
            _percentile(ways, 50) / 1e6,
            _percentile(ways, 99) / 1e6,
            used / 1e9,
            own,
            _percentile(late, 99) / 1e6,
        )

    async def _drained(self) -> None:
        end = time.monotonic() + PATIENCE
        await asyncio.sleep(5 * TICK)
        while self._open > 0:
            if time.monotonic() > end:
                raise TimeoutError(f"{self._open} envelopes never came")
            await asyncio.sleep(5 * TICK)


def _percentile(values: list[int], percent: int) -> int:
    return values[min(len(values) - 1, len(values) * percent // 100)]


def own_cpu() -> float:
    """Return the seconds of CPU that this process used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
