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
