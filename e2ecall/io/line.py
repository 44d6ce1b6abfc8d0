"""A line: a signalling connection that is kept up (spec/wire.md, "Staying connected").

Connects, prepares the connection (a login, a reply box), hands envelopes to a handler one after
the other, acknowledges what was handled, and connects again when it broke. What envelopes mean is
the handler's business.
"""

import contextlib
import math
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint_if_cancelled
from anyio.streams.memory import MemoryObjectReceiveStream

from e2ecall.errors import ConnectionFailedError, E2ECallError, RelayError
from e2ecall.io.connection import AsideHandler, GoingAwayError, LowHandler, RelayConnection
from e2ecall.io.endpoint import RelayEndpoint
from relay.wire.messages import Ack, Deliver, Done, Hello, Reply, Request

FIRST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 10.0
"""Seconds between attempts to connect again: doubled each time, then halved at random."""

PATIENCE: Final = 25.0
"""Seconds until a request fails over all attempts: more than one time-out, less than two."""

PROVEN_AFTER: Final = 10.0
"""Seconds that an idle connection has to last to count as one that works."""

CHECK_TIMEOUT: Final = 3.0
"""Seconds that a connection may take to show that it works, or to come about, while it matters."""

_QUEUE: Final = 16
"""Envelopes read ahead of the handler; more wait at the relay."""

R = TypeVar("R", bound=Reply)
Prepare = Callable[[RelayConnection], Awaitable[None]]
Handle = Callable[[Deliver], Awaitable[None]]


class Line:
    """One kept-up connection. `run` in a task of its own; `request` from any other.

    ``handle`` must not use the line itself: it is waited for before the line is renewed. A line
    ``on_demand`` connects again only when somebody asks for something: the relay closes connections
    without a mailbox that stay silent. With ``give_up_after`` it ends when the relay was out of
    reach for so many seconds; a connection that neither answered nor lasted is no reach. ``on_low``
    is called when one-time prekeys run out.
    """

    def __init__(
        self,
        endpoint: RelayEndpoint,
        tls: ssl.SSLContext | None,
        *,
        prepare: Prepare,
        handle: Handle,
        give_up_after: float | None = None,
        on_demand: bool = False,
        on_low: LowHandler = lambda: None,
        on_set_aside: AsideHandler = lambda _count: None,
    ) -> None:
        self.endpoint = endpoint
        self._tls = tls
        self._prepare = prepare
        self._handle = handle
        self._on_low = on_low
        self._on_set_aside = on_set_aside
        self._give_up_after = give_up_after
        self._on_demand = on_demand
        self._asking = 0
        self._asked = anyio.Event()
        self._up_at = 0.0
        self._works = False
        self._checked = anyio.Event()
        self._urgent = False
        self._attempt: anyio.CancelScope | None = None
        self._connection: RelayConnection | None = None
        self._changed = anyio.Event()
        self._started = False
        self.failure: E2ECallError | None = None
        self.closed = anyio.Event()
        self._lost_at: float | None = None

    async def run(self, *, task_status: TaskStatus[Hello] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the line up; starts (with the relay's hello) once it is up for the first time.

        After that it returns instead of raising: `closed` is set and requests carry the reason.

        Raises:
            ConnectionFailedError: the first attempt failed.
            RelayError: the relay refused what ``prepare`` asked for at the first attempt.
        """
        delay = FIRST_DELAY
        try:
            while True:
                pause = 0.0
                try:
                    pause = await self._connect_and_serve(task_status)
                except ConnectionFailedError:
                    if not self._started:
                        raise
                if self._works:
                    delay = FIRST_DELAY
                    self._works = False
                self._check_patience()
                await self._wait_wanted()
                spread = delay * random.uniform(0.5, 1)  # noqa: S311 - spreads load
                if pause:
                    await anyio.sleep(pause)  # WIRE-44: whatever else is urgent
                else:
                    with anyio.move_on_after(spread):
                        await self._checked.wait()
                        delay = FIRST_DELAY
                delay = min(2 * delay, LONGEST_DELAY)
        except E2ECallError as error:
            self.failure = error
            if not self._started:
                raise
        finally:
            self._connection = None
            self.failure = self.failure or ConnectionFailedError("the connection was closed")
            self.closed.set()
            self._changed.set()

    def check(self) -> None:
        """Find out soon whether the relay can be reached, because it matters now (WIRE-60).

        A connection that does not answer within `CHECK_TIMEOUT` is ended; one that is being made
        is given no longer than that; and the wait before the next attempt is over.
        """
        self._urgent = True
        if self._attempt is not None:
            soon = anyio.current_time() + CHECK_TIMEOUT
            self._attempt.deadline = min(self._attempt.deadline, soon)
        self._checked.set()
        self._checked = anyio.Event()

    async def wait_up(self) -> None:
        """Wait until the relay has said hello.

        Raises:
            ConnectionFailedError: the line is closed for good, or `PATIENCE` is at its end.
        """
        with anyio.move_on_after(PATIENCE):
            await self._wait_up()
            return
        raise ConnectionFailedError("the relay did not answer in time")

    async def wait_renewed(self) -> None:
        """Wait until the line has come up once more, or is closed for good."""
        await self._changed.wait()

    @property
    def hello(self) -> Hello | None:
        """What the relay said when the current connection began."""
        return self._connection.hello if self._connection else None

    async def request(self, body: Request, kind: type[R]) -> R:
        """Ask the relay, waiting for the line to come up and asking again if it breaks.

        Requests must therefore be idempotent, as all of the protocol are.

        Raises:
            RelayError: refused.
            ConnectionFailedError: the line is closed for good, or `PATIENCE` is at its end.
        """
        self._asking += 1
        self._asked.set()
        try:
            with anyio.move_on_after(PATIENCE):
                return await self._ask(body, kind)
        finally:
            self._asking -= 1
        raise ConnectionFailedError("the relay did not answer in time")

    async def _ask(self, body: Request, kind: type[R]) -> R:
        while True:
            connection = await self._wait_up()
            try:
                reply = await connection.request(body, kind)
            except ConnectionFailedError:
                if not connection.closed.is_set():
                    # Connected but no answer: asking again on this connection cannot help.
                    await connection.aclose()
                if self._connection is connection:
                    self._down(broken=True)
            except RelayError:
                self._proven(connection)
                raise
            else:
                self._proven(connection)
                return reply

    async def _wait_up(self) -> RelayConnection:
        while self._connection is None:
            if self.failure is not None:
                await checkpoint_if_cancelled()  # the line may have ended by the same cancellation
                raise ConnectionFailedError(str(self.failure)) from self.failure
            await self._changed.wait()
        return self._connection

    async def _wait_wanted(self) -> None:
        while self._on_demand and not self._asking:
            self._asked = anyio.Event()
            await self._asked.wait()
            self._lost_at = anyio.current_time()  # before that nobody missed it

    async def _connect_and_serve(self, task_status: TaskStatus[Hello]) -> float:
        """Live through one connection; returns when it broke after it had been up.

        Returns the seconds that the relay asked to wait, 0 if it did not.

        Raises:
            ConnectionFailedError: it never came up.
            RelayError: refused for good.
        """
        connection = await self._connect()
        send, receive = anyio.create_memory_object_stream[Deliver](_QUEUE)
        refusal: E2ECallError | None = None

        async def read() -> None:
            with contextlib.suppress(E2ECallError):
                await connection.run(send.send, self._on_low, self._on_set_aside)
            send.close()

        # Nothing of ours is raised inside the group: it would come out wrapped in another type.
        with send, receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                tasks.start_soon(self._prove_when_checked, connection, self._checked)
                try:
                    await self._prepare(connection)
                    self._up(connection, task_status)
                    await self._handle_all(connection, receive)
                except ConnectionFailedError as error:
                    refusal = None if self._started else error
                except E2ECallError as error:
                    # WIRE-40: what the relay cannot do now it may be able to do later.
                    later = isinstance(error, RelayError) and error.retry_after > 0
                    refusal = None if self._started and later else error
                finally:
                    self._down()
                    tasks.cancel_scope.cancel()
        await connection.aclose()
        if isinstance(connection.failure, RelayError):
            raise connection.failure
        if refusal is not None:
            raise refusal
        if isinstance(connection.failure, GoingAwayError):
            return random.uniform(0, connection.failure.delay)  # noqa: S311 - spreads load
        return 0.0

    async def _connect(self) -> RelayConnection:
        with anyio.move_on_after(CHECK_TIMEOUT if self._urgent else math.inf) as attempt:
            self._attempt = attempt
            try:
                return await RelayConnection.connect(self.endpoint, self._tls)
            finally:
                self._attempt = None
        raise ConnectionFailedError("the relay did not answer in time")

    async def _prove_when_checked(self, connection: RelayConnection, checked: anyio.Event) -> None:
        # The first event is given: one that is set before this task runs must not be missed.
        while True:
            await checked.wait()
            try:
                await connection.prove(CHECK_TIMEOUT)
            except ConnectionFailedError:
                await connection.aclose()
                return
            checked = self._checked

    async def _handle_all(
        self, connection: RelayConnection, deliveries: MemoryObjectReceiveStream[Deliver]
    ) -> None:
        # What was handled but not acknowledged when the connection broke is delivered again, and
        # refused then by the ratchet as a repetition.
        async for delivery in deliveries:
            await self._handle(delivery)
            await connection.request(Ack((delivery.delivery_id,)), Done)
            self._proven(connection)

    def _up(self, connection: RelayConnection, task_status: TaskStatus[Hello]) -> None:
        self._connection = connection
        self._urgent = False
        self._up_at = anyio.current_time()
        self._changed.set()
        self._changed = anyio.Event()
        if not self._started:
            self._started = True
            task_status.started(connection.hello)

    def _proven(self, connection: RelayConnection) -> None:
        """Note that the relay answers: what was out of reach before does not count any more."""
        if connection is self._connection:
            self._works = True
            self._lost_at = None

    def _down(self, *, broken: bool = False) -> None:
        """Note that the connection is gone; ``broken``, it was there and did not answer."""
        now = anyio.current_time()
        if self._connection is not None and not broken and now - self._up_at >= PROVEN_AFTER:
            self._proven(self._connection)
        self._connection = None
        if self._lost_at is None:
            self._lost_at = now

    def _check_patience(self) -> None:
        if self._give_up_after is None or self._lost_at is None:
            return
        if anyio.current_time() - self._lost_at >= self._give_up_after:
            raise ConnectionFailedError("the relay stayed out of reach")
