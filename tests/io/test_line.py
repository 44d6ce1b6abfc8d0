"""A line that is kept up (spec/wire.md, "Staying connected"), against a server that lets go."""

from contextlib import asynccontextmanager

import anyio
import pytest

from e2ecall.errors import ConnectionFailedError, RelayError, StoreError
from e2ecall.io import connection, line
from e2ecall.io.connection import DisplacedError
from e2ecall.io.line import Line
from relay.wire.codec import decode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import (
    Ack,
    ClientFrame,
    Deliver,
    Displaced,
    Done,
    ErrorCode,
    Failure,
    GoingAway,
    PrekeyStatus,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Connect again soon, and wait for answers shortly."""
    monkeypatch.setattr(line, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 1.0)


class Server:
    """Greets, answers every request with Done, and remembers what it was asked."""

    def __init__(self, *behaviours):
        self.connections = 0
        self.asked = []
        self._behaviours = behaviours

    async def __call__(self, server):
        await server.handshake()
        await server.hello()
        number = self.connections
        self.connections += 1
        if number < len(self._behaviours):
            await self._behaviours[number](server)
        else:
            await self.answer(server)

    async def answer(self, server, reply=None, times=1_000):
        for _ in range(times):
            frame = await server.receive()
            if frame.opcode != 2:
                return
            request = decode(bytes(frame.data), ClientFrame, limit=MAX_FRAME)
            self.asked.append(request.body)
            await server.say(reply or Done(), request.id)


async def ignore(_):
    pass


@asynccontextmanager
async def kept_up(impostor, server, *, prepare=ignore, handle=ignore, **options):
    async with impostor(server) as endpoint, anyio.create_task_group() as tasks:
        opened = Line(endpoint, None, prepare=prepare, handle=handle, **options)
        with anyio.fail_after(30):
            await tasks.start(opened.run)
            yield opened
        tasks.cancel_scope.cancel()


async def test_connects_again(impostor):
    """When the connection breaks the line comes up anew, and is prepared again."""
    prepared = []

    async def hang_up(_server):
        pass

    async def prepare(opened):
        prepared.append(opened)

    server = Server(hang_up, hang_up, hang_up)
    async with kept_up(impostor, server, prepare=prepare) as opened:
        await opened.request(PrekeyStatus(), Done)
        assert len(prepared) == server.connections >= 2
        assert not opened.closed.is_set()


async def test_prepared_again_when_the_relay_could_not(impostor):
    """WIRE-40, F2: a relay that cannot carry out a log-in now is asked again on another connection;
    one that refuses it for good ends the line.
    """
    server = Server()

    async def prepare(opened):
        await opened.request(PrekeyStatus(), Done)

    async def once(connected):
        await server.answer(connected, times=1)

    async def cannot(connected):
        await server.answer(connected, Failure(ErrorCode.RETRY, "not now", 1))

    async def will_not(connected):
        await server.answer(connected, Failure(ErrorCode.LOGIN_FAILED, "never", 0))

    server._behaviours = (once, cannot, cannot, once, will_not)
    async with kept_up(impostor, server, prepare=prepare) as opened:
        await opened.closed.wait()
        assert server.connections == 5
        assert isinstance(opened.failure, RelayError)


async def test_a_request_is_asked_again(impostor):
    """A request whose connection breaks before the answer is asked again on the next one."""
    server = Server()

    async def take_and_hang_up(connected):
        await connected.receive()

    server._behaviours = (take_and_hang_up,)
    async with kept_up(impostor, server) as opened:
        await opened.request(PrekeyStatus(), Done)
        assert server.connections == 2
        assert server.asked == [PrekeyStatus()]


async def test_a_connection_that_does_not_answer_is_replaced(impostor, monkeypatch):
    """Connected without answers is not good enough: the request is asked on a new connection."""
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.1)

    async def say_nothing(connected):
        while (await connected.receive()).opcode == 2:
            pass

    server = Server(say_nothing)
    async with kept_up(impostor, server) as opened:
        await opened.request(PrekeyStatus(), Done)
        assert server.connections == 2


async def test_a_refusal_is_not_asked_again(impostor):
    """What the relay refuses is raised to who asked, and the line stays."""
    server = Server()

    async def refuse(connected):
        await server.answer(connected, Failure(ErrorCode.BAD_REQUEST, "no", 0), times=1)
        await server.answer(connected)

    server._behaviours = (refuse,)
    async with kept_up(impostor, server) as opened:
        with pytest.raises(RelayError, match="no"):
            await opened.request(PrekeyStatus(), Done)
        await opened.request(PrekeyStatus(), Done)
        assert server.connections == 1


@pytest.mark.parametrize("error", [RelayError("refused"), ConnectionFailedError("broke")])
async def test_the_first_attempt_raises(impostor, error):
    """What goes wrong before the line was ever up is raised to who starts it."""

    async def prepare(_opened):
        raise error

    async with impostor(Server()) as endpoint:
        opened = Line(endpoint, None, prepare=prepare, handle=ignore)
        with anyio.fail_after(30), pytest.raises(type(error), match=str(error)):
            await opened.run()
        assert opened.closed.is_set()


async def test_refused_later(impostor):
    """A refusal after a reconnection ends the line; who waits and who asks learns why."""
    prepared = []

    async def prepare(opened):
        prepared.append(opened)
        if len(prepared) == 2:
            raise RelayError("your account is gone")

    async def hang_up(_server):
        pass

    async with kept_up(impostor, Server(hang_up), prepare=prepare) as opened:
        await opened.closed.wait()
        assert "account is gone" in str(opened.failure)
        with pytest.raises(ConnectionFailedError, match="account is gone"):
            await opened.request(PrekeyStatus(), Done)


async def test_displaced(impostor):
    """Displaced, the line does not fight for its place: it ends."""

    async def displace(connected):
        await connected.say(Displaced())

    server = Server(displace)
    async with kept_up(impostor, server) as opened:
        await opened.closed.wait()
        assert isinstance(opened.failure, DisplacedError)
        assert server.connections == 1


async def test_patience(impostor):
    """Out of reach for longer than ``give_up_after``, the line ends with an error."""

    async def first_then_never(connected):
        if connected.name in seen:
            return
        seen.add(connected.name)
        await connected.handshake()
        await connected.hello()

    seen = set()
    async with kept_up(impostor, first_then_never, give_up_after=0.2) as opened:
        began = anyio.current_time()
        await opened.closed.wait()
        assert anyio.current_time() - began >= 0.2
        with pytest.raises(ConnectionFailedError, match="out of reach"):
            await opened.request(PrekeyStatus(), Done)


async def test_acknowledged_when_handled(impostor):
    """An envelope is acknowledged after it was handled, and each before the next is handled."""
    log = []
    server = Server()

    async def deliver(connected):
        for number in (1, 2, 3):
            await connected.say(Deliver(number, None, bytes([number])))
        await server.answer(connected)

    async def handle(delivery):
        await anyio.sleep(0.01)
        log.append((delivery.delivery_id, len(server.asked)))

    server._behaviours = (deliver,)
    async with kept_up(impostor, server, handle=handle):
        while len(server.asked) < 3:  # noqa: ASYNC110 - the server has no events
            await anyio.sleep(0.01)
    assert server.asked == [Ack((1,)), Ack((2,)), Ack((3,))]
    assert log == [(1, 0), (2, 1), (3, 2)]


async def test_not_acknowledged_when_not_stored(impostor):
    """INBOX-05, F2: what could not be stored is not acknowledged, and the line says why."""
    server = Server()

    async def deliver(connected):
        await connected.say(Deliver(1, None, b"envelope"))
        await server.answer(connected)

    async def handle(_delivery):
        raise StoreError("the disk is full")

    server._behaviours = (deliver,)
    async with kept_up(impostor, server, handle=handle) as opened:
        await opened.closed.wait()
        assert isinstance(opened.failure, StoreError)
    assert server.asked == []


async def test_cancelled(impostor):
    """A line that is cancelled while it serves, or waits to connect again, ends at once."""

    async def hang_up(_server):
        pass

    for server in (Server(), Server(*[hang_up] * 1_000)):
        async with kept_up(impostor, server) as opened:
            await anyio.sleep(0.05)
        assert opened.closed.is_set()
        assert isinstance(opened.failure, ConnectionFailedError)


async def test_comes_back_when_asked(impostor, monkeypatch):
    """WIRE-44: after GoingAway a client waits a random part of the delay before it comes back."""
    monkeypatch.setattr(line.random, "uniform", lambda _low, high: high)

    async def leave(server):
        left.append(anyio.current_time())
        await server.say(GoingAway(400))

    async def note(server):
        back.append(anyio.current_time())
        await serve.answer(server)

    async def nothing(_):
        pass

    left, back = [], []
    serve = Server(leave, note)
    async with impostor(serve) as endpoint, anyio.create_task_group() as tasks:
        kept = Line(endpoint, None, prepare=nothing, handle=nothing)
        await tasks.start(kept.run)
        with anyio.fail_after(10):
            assert await kept.request(PrekeyStatus(), Done) == Done()
        tasks.cancel_scope.cancel()
    assert 0.4 <= back[0] - left[0] < 5
