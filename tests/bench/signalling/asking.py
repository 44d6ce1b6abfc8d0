"""What clients ask for besides mail: accounts, prekeys, and the signalling of whole calls."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from e2ecall.crypto.hpke import OVERHEAD
from e2ecall.protocol.sealing import CALL_CLASSES
from relay.wire.messages import (
    AccountRecipient,
    BoxRecipient,
    Deliver,
    FetchBundle,
    MediaTicket,
    OpenBox,
    PublishPrekeys,
    Send,
)
from relay.wire.records import PreKeyKind
from tests.bench.media.usage import cpu_time
from tests.bench.signalling.pairs import own_cpu
from tests.bench.signalling.wire import Node, Wire, WireClosedError
from tests.relay.conftest import Identity

BATCH = 25
"""One-time ML-KEM keys of one publication, to stay below 48 KiB."""
CALL_BYTES = 1 + CALL_CLASSES[0] + OVERHEAD
"""An envelope with a call message (spec/sealing.md)."""


@dataclass(frozen=True)
class Done:
    """How often something was done, in which time; CPU seconds of the server and of the asker."""

    count: int
    seconds: float
    server_cpu: float
    own_cpu: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


class Asking:
    """Clients of one relay that ask, so many at a time."""

    def __init__(self, nodes: list[Node], pids: list[int]) -> None:
        self._nodes, self._pids = nodes, pids
        self._tls = nodes[0].tls()
        self.identities: list[Identity] = []
        self._prefix = "b" + os.urandom(5).hex()

    async def connect(self) -> Wire:
        """Return another connection."""
        return await Wire.connect(self._nodes[0], self._tls)

    async def register(self, count: int, at_once: int) -> Done:
        """Connect and register, ``count`` times; the connections end."""

        async def one() -> None:
            wire = await self.connect()
            assert wire.hello is not None
            identity = Identity(f"{self._prefix}x{len(self.identities)}", wire.hello.relay)
            self.identities.append(identity)
            await wire.request(identity.register(wire.hello))
            wire.close()

        return await self._times(count, at_once, one)

    async def publish(self, accounts: int, each: int) -> Done:
        """Publish ``each`` one-time keys of both kinds for the first accounts, and all else."""
        batches = []
        for identity in self.identities[:accounts]:
            first = identity.basic_prekeys()
            for begin in range(1, each + 1, BATCH):
                more = (
                    identity.one_time(PreKeyKind.ONE_TIME_X25519, begin, BATCH)
                    + identity.one_time(PreKeyKind.ONE_TIME_MLKEM1024, begin, BATCH)
                )  # fmt: skip
                batches.append((identity, PublishPrekeys(first + more)))
                first = ()
        connections = {}
        for identity in self.identities[:accounts]:
            wire = connections[identity.username] = await self.connect()
            assert wire.hello is not None
            await wire.request(identity.login(wire.hello))
        waiting = iter(batches)

        async def one() -> None:
            identity, publication = next(waiting)
            await connections[identity.username].request(publication)

        done = await self._times(len(batches), 8, one)
        for wire in connections.values():
            wire.close()
        return done

    async def fetch(self, accounts: int, count: int, at_once: int) -> Done:
        """Fetch bundles of the first accounts in turns, over connections without a name."""
        lines = asyncio.Queue[Wire]()
        for _ in range(at_once):
            lines.put_nowait(await self.connect())
        turn = iter(range(count))

        async def one() -> None:
            name = self.identities[next(turn) % accounts].username
            line = lines.get_nowait()
            found = (await line.request(FetchBundle(name, None, None))).bundle
            kind = found.kem_prekey.kind
            if found.one_time_prekey is None or kind is not PreKeyKind.ONE_TIME_MLKEM1024:
                raise WireClosedError("a bundle lacks its one-time keys")
            lines.put_nowait(line)

        done = await self._times(count, at_once, one)
        while not lines.empty():
            lines.get_nowait().close()
        return done

    async def calls(self, count: int, at_once: int) -> Done:
        """Set calls up between people who have a session, as `e2ecall.client.calls` does."""
        lines = asyncio.Queue[Callee]()
        for identity in self.identities[:at_once]:
            wire = await self.connect()
            assert wire.hello is not None
            await wire.request(identity.login(wire.hello))
            lines.put_nowait(Callee(identity.username, wire))

        async def one() -> None:
            callee = lines.get_nowait()
            await _call(self.connect, callee)
            lines.put_nowait(callee)

        done = await self._times(count, at_once, one)
        while not lines.empty():
            lines.get_nowait().wire.close()
        return done

    async def _times(self, count: int, at_once: int, one: Callable[[], Awaitable[None]]) -> Done:
        left = iter(range(count))

        async def several() -> None:
            for _ in left:
                await one()

        start, used, own = time.monotonic(), cpu_time(self._pids), own_cpu()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(several())
        taken = time.monotonic() - start
        return Done(count, taken, (cpu_time(self._pids) - used) / 1e9, own_cpu() - own)


class Callee:
    """Somebody who is logged in and waits to be called."""

    def __init__(self, username: str, wire: Wire) -> None:
        self.username, self.wire = username, wire
        self.mail = _mail(wire)


async def _call(connect: Callable[[], Awaitable[Wire]], callee: Callee) -> None:
    """Offer, Ringing, Reveal, Answer, and a Hangup, between a box at each end."""
    caller = await connect()
    caller_mail = _mail(caller)
    caller_box = BoxRecipient((await caller.request(OpenBox(os.urandom(32)))).box)
    await _write(caller, AccountRecipient(callee.username, 1))
    await callee.mail.get()

    answering = await connect()
    answering_mail = _mail(answering)
    _, opened = await asyncio.gather(
        callee.wire.request(MediaTicket()), answering.request(OpenBox(os.urandom(32)))
    )
    await _write(answering, caller_box)
    await caller_mail.get()
    await _write(caller, BoxRecipient(opened.box))
    await answering_mail.get()
    await _write(answering, caller_box)
    await caller_mail.get()
    await _write(caller, BoxRecipient(opened.box))
    await answering_mail.get()
    caller.close()
    answering.close()


def _mail(wire: Wire) -> "asyncio.Queue[bytes]":
    """Acknowledge what comes and put it into a queue."""
    queue = asyncio.Queue[bytes]()

    def came(_wire: Wire, delivery: Deliver) -> None:
        wire.acknowledge(delivery)
        queue.put_nowait(delivery.envelope)

    wire.on_deliver = came
    return queue


async def _write(wire: Wire, recipient: AccountRecipient | BoxRecipient) -> None:
    await wire.request(Send(recipient, os.urandom(16), os.urandom(CALL_BYTES), None))
