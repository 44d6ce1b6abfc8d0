"""What a line costs and how long it may take (spec/wire.md, "Staying connected")."""

from contextlib import asynccontextmanager

import anyio
import pytest

from e2ecall.errors import ConnectionFailedError
from e2ecall.io import connection, line
from e2ecall.io.line import Line
from relay.wire.codec import decode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import ClientFrame, Done, PrekeyStatus

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Connect again soon, and wait for answers shortly."""
    monkeypatch.setattr(line, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(line, "LONGEST_DELAY", 0.02)
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.2)


class Server:
    """Greets and then does as it was made to."""

    def __init__(self, *, answers=0, hangs_up=False):
        self.connections = self.answered = 0
        self._answers, self._hangs_up = answers, hangs_up

    async def __call__(self, server):
        await server.handshake()
        await server.hello()
        self.connections += 1
        if self._hangs_up and not self._answers:
            return
        while (frame := await server.receive()).opcode == 2:
            if self.answered < self._answers:
                self.answered += 1
                request = decode(bytes(frame.data), ClientFrame, limit=MAX_FRAME)
                await server.say(Done(), request.id)
                if self._hangs_up:
                    return


async def nothing(_):
    pass


@asynccontextmanager
async def kept_up(impostor, server, **options):
    async with impostor(server) as endpoint, anyio.create_task_group() as tasks:
        opened = Line(endpoint, None, prepare=nothing, handle=nothing, **options)
        with anyio.fail_after(20):
            await tasks.start(opened.run)
            yield opened
        tasks.cancel_scope.cancel()


async def test_a_request_does_not_last_for_ever(impostor, monkeypatch):
    """WIRE-40: a relay that connects but never answers costs a request its limit, not more."""
    monkeypatch.setattr(line, "PATIENCE", 0.6)
    server = Server()
    async with kept_up(impostor, server) as opened:
        with pytest.raises(ConnectionFailedError, match="did not answer in time"):
            await opened.request(PrekeyStatus(), Done)
        assert server.connections >= 2
        assert not opened.closed.is_set()


async def test_connections_that_serve_nothing_are_no_reach(impostor):
    """WIRE-40: a relay that greets and hangs up is given up as one that is out of reach."""
    async with kept_up(impostor, Server(hangs_up=True), give_up_after=0.3) as opened:
        await opened.closed.wait()
        with pytest.raises(ConnectionFailedError, match="out of reach"):
            await opened.request(PrekeyStatus(), Done)


async def test_an_answer_starts_the_count_anew(impostor):
    """WIRE-40: a relay that answers and breaks off again and again is not given up."""
    server = Server(answers=10_000, hangs_up=True)
    async with kept_up(impostor, server, give_up_after=0.3) as opened:
        began = anyio.current_time()
        while anyio.current_time() < began + 1:
            await opened.request(PrekeyStatus(), Done)
        assert not opened.closed.is_set()


async def test_a_line_on_demand_waits_to_be_asked(impostor):
    """WIRE-40: an anonymous line that the relay closes for its silence makes no new connection."""
    server = Server(hangs_up=True)
    async with kept_up(impostor, server, on_demand=True, give_up_after=0.1) as opened:
        await anyio.sleep(0.5)
        assert server.connections == 1
        server._answers = 1
        await opened.request(PrekeyStatus(), Done)
        assert server.connections == 2
        assert not opened.closed.is_set()


async def test_who_is_cancelled_with_the_line_ends_as_cancelled(impostor):
    """A request that is left together with its line is cancelled and does not fail."""
    failed = []
    async with impostor(Server()) as endpoint:
        for pause in (0, 0.001, 0.01):
            opened = Line(endpoint, None, prepare=nothing, handle=nothing)

            async def ask(opened=opened):
                try:
                    while True:
                        await opened.request(PrekeyStatus(), Done)
                except ConnectionFailedError as error:
                    failed.append(error)

            async with anyio.create_task_group() as tasks:
                await tasks.start(opened.run)
                for _ in range(10):
                    tasks.start_soon(ask)
                await anyio.sleep(pause)
                tasks.cancel_scope.cancel()
            assert opened.closed.is_set()

            with anyio.CancelScope() as scope:
                scope.cancel()
                await ask()
            assert scope.cancelled_caught
    assert failed == []


class Quiet(Server):
    """Greets, and says nothing more unless it answers pings."""

    def __init__(self, *, pongs=False):
        super().__init__()
        self._pongs = pongs

    async def __call__(self, server):
        await server.handshake()
        await server.hello()
        self.connections += 1
        if not self._pongs:
            await anyio.sleep(300)
        while (await server.receive()).opcode == 9:
            self.answered += 1


async def count(server, connections):
    with anyio.fail_after(20):
        while server.connections < connections:  # noqa: ASYNC110 - a server has no event
            await anyio.sleep(0.01)


async def test_a_connection_that_shows_no_life_is_ended(impostor, monkeypatch):
    """WIRE-60: where it matters now a dead connection is found out in seconds, not in minutes."""
    monkeypatch.setattr(line, "CHECK_TIMEOUT", 0.3)
    server = Quiet()
    async with kept_up(impostor, server) as opened:
        opened.check()
        await count(server, 2)
        await opened.wait_up()
        assert not opened.closed.is_set()


async def test_a_connection_that_works_is_kept(impostor):
    """WIRE-60: one that answers the ping stays, however often it is looked at."""
    server = Quiet(pongs=True)
    async with kept_up(impostor, server) as opened:
        for number in range(1, 4):
            opened.check()
            with anyio.fail_after(20):
                while server.answered < number:  # noqa: ASYNC110 - a server has no event
                    await anyio.sleep(0.01)
        assert server.connections == 1


async def test_the_next_attempt_does_not_wait(impostor, monkeypatch):
    """WIRE-60: however long the delay has grown, it is over when it matters."""
    monkeypatch.setattr(line, "FIRST_DELAY", 300.0)
    server = Server(hangs_up=True)
    async with kept_up(impostor, server) as opened:
        for number in (2, 3):
            with anyio.fail_after(20):
                while server.connections < number:
                    opened.check()
                    await anyio.sleep(0.05)


async def test_an_attempt_that_hangs_is_given_up(impostor, monkeypatch):
    """WIRE-60: a relay that takes the connection and does not greet costs seconds."""
    monkeypatch.setattr(line, "CHECK_TIMEOUT", 0.3)
    server = Server(hangs_up=True)
    started = anyio.Event()

    async def hanging(handler):
        if server.connections == 0:
            await server(handler)
            return
        server.connections += 1
        started.set()
        await anyio.sleep(300)

    async with kept_up(impostor, hanging) as opened:
        with anyio.fail_after(20):
            await started.wait()
            opened.check()
            await count(server, 3)
