"""A client's connection to what may not be a relay (spec/wire.md): clear errors, nothing hangs."""

import anyio
import pytest
from websockets.frames import CloseCode

from e2ecall.errors import ConnectionFailedError, NotReachableError, RelayError
from e2ecall.io import connection, websocket
from e2ecall.io.connection import DisplacedError, GoingAwayError, RelayConnection
from relay.wire.codec import encode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import (
    BoxOpened,
    Deliver,
    Displaced,
    Done,
    ErrorCode,
    Failure,
    GoingAway,
    PrekeyStatus,
    ServerFrame,
)

pytestmark = pytest.mark.anyio


async def raw(server, data):
    await server.stream.send(data)
    await anyio.sleep_forever()


async def frame(server, data):
    await server.handshake()
    await server.send(data)
    await server.receive()


async def refused(impostor, behave, text):
    async with impostor(behave) as endpoint:
        with anyio.fail_after(30), pytest.raises(ConnectionFailedError, match=text):
            await RelayConnection.connect(endpoint, None)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x00" * 100,
        b"x" * 100_000,
    ],
    ids=["404", "200", "101", "ssh", "zeros", "endless"],
)
async def test_no_websocket(impostor, monkeypatch, answer):
    """What answers in another protocol, or never to the end, is not a relay."""
    monkeypatch.setattr(websocket, "CONNECT_TIMEOUT", 0.2)
    await refused(impostor, lambda server: raw(server, answer), "is not a relay|in time")


async def test_hangs_up(impostor):
    """A server that closes at once is reported."""

    async def behave(server):
        await server.stream.receive()

    await refused(impostor, behave, "cannot connect|not a relay|closed")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        encode([0, [99]]),
        encode(ServerFrame(1, Done())),
        encode(ServerFrame(0, Done())),
    ],
    ids=["empty", "no_msgpack", "unknown_type", "a_reply", "another_push"],
)
async def test_no_hello(impostor, data):
    """What begins with anything but a hello is not a relay."""
    await refused(impostor, lambda server: frame(server, data), "not a relay|did not say hello")


async def test_binding_without_tls(impostor):
    """WIRE-45: a relay that speaks of its certificate where there is none is refused."""

    async def behave(server):
        await server.handshake()
        await server.hello(binding=1)
        await server.receive()

    await refused(impostor, behave, "TLS where there is none")


async def test_other_version(impostor):
    """A relay of another protocol version is refused, and both versions are named."""

    async def behave(server):
        await server.handshake()
        await server.hello(version=2)
        await server.receive()

    await refused(impostor, behave, "version 2 .* version 1")


async def test_silent_server(impostor, monkeypatch):
    """Who connects and says nothing is given up on, before the handshake and after it."""
    monkeypatch.setattr(websocket, "CONNECT_TIMEOUT", 0.1)
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.1)
    await refused(impostor, lambda _: anyio.sleep_forever(), "did not answer in time")

    async def behave(server):
        await server.handshake()
        await anyio.sleep_forever()

    await refused(impostor, behave, "not a relay")


async def converse(impostor, behave, talk, *, deliveries=None):
    """Connect, run the connection, and call ``talk(connection)`` meanwhile; return its failure."""

    async def greet(server):
        await server.handshake()
        await server.hello()
        await behave(server)

    failures = []
    async with impostor(greet) as endpoint:
        opened = await RelayConnection.connect(endpoint, None)

        async def run():
            try:
                await opened.run((deliveries or []).append)
            except (ConnectionFailedError, RelayError) as error:
                failures.append(error)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await talk(opened)
                if not failures:
                    await opened.closed.wait()
    return failures[0]


async def nothing(_connection):
    pass


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x92\x00\x91\x00" * 9, encode(ServerFrame(0, Done())), encode([0, [99]])],
    ids=["empty", "no_msgpack", "trailing", "a_reply", "unknown_type"],
)
async def test_garbage(impostor, data):
    """M2: a frame that is not of the protocol ends the connection with an error that says so."""
    failure = await converse(impostor, lambda server: server.send(data), nothing)
    assert isinstance(failure, ConnectionFailedError)


async def test_bit_flips(impostor):
    """M1: no single-bit flip of a push makes the client raise anything but its own errors."""
    good = encode(ServerFrame(0, Displaced()))
    for at in range(len(good) * 8):
        changed = bytearray(good)
        changed[at // 8] ^= 1 << at % 8
        failure = await converse(impostor, lambda server, d=bytes(changed): server.send(d), nothing)
        assert isinstance(failure, ConnectionFailedError)


async def test_text_and_fragments(impostor):
    """Text messages and fragments are refused: the relay sends whole binary messages."""

    async def text(server):
        server.protocol.send_text(b"hello")
        await server.flush()
        assert (await server.receive()).opcode == 8

    async def fragment(server):
        server.protocol.send_binary(b"part", fin=False)
        await server.flush()
        assert (await server.receive()).opcode == 8

    for behave in (text, fragment):
        failure = await converse(impostor, behave, nothing)
        assert str(CloseCode.UNSUPPORTED_DATA.value) in str(failure) or "closed" in str(failure)


async def test_too_long(impostor):
    """A message above the limit is not taken into memory: the connection ends."""

    async def behave(server):
        await server.send(bytes(MAX_FRAME + 1))
        await server.receive()

    assert isinstance(await converse(impostor, behave, nothing), ConnectionFailedError)


async def test_close_code_is_told(impostor):
    """Why the relay closed is part of the error, without what could control a terminal."""

    async def behave(server):
        server.protocol.send_close(1008, "no\x1b[31m more")
        await server.flush()

    failure = await converse(impostor, behave, nothing)
    assert "1008: no[31m more" in str(failure)


@pytest.mark.parametrize(
    ("push", "kind", "text"),
    [
        (Displaced(), DisplacedError, "logged in somewhere else"),
        (GoingAway(0), GoingAwayError, "going away"),
    ],
)
async def test_farewells(impostor, push, kind, text):
    """The relay's last words become errors of their own."""
    failure = await converse(impostor, lambda server: server.say(push), nothing)
    assert type(failure) is kind
    assert text in str(failure)


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (Failure(ErrorCode.NOT_REACHABLE, "nobody", 0), NotReachableError, "no such user"),
        (Failure(ErrorCode.TOO_MANY, "slow\x1b[2Jer", 7), RelayError, "slow[2Jer"),
        (Failure(ErrorCode.RETRY, "", 5), RelayError, "retry"),
    ],
)
async def test_refusals(impostor, failure, kind, text):
    """A refused request raises what it means; the relay's words cannot control a terminal."""

    async def behave(server):
        await server.receive()
        await server.say(failure, number=1)

    async def talk(opened):
        with pytest.raises(kind) as caught:
            await opened.request(PrekeyStatus(), Done)
        assert text in str(caught.value)
        assert caught.value.retry_after == failure.retry_after
        await opened.aclose()

    await converse(impostor, behave, talk)


async def test_reply_of_another_kind(impostor):
    """A reply that does not fit its request is an error of that request."""

    async def behave(server):
        await server.receive()
        await server.say(BoxOpened(bytes(32)), number=1)

    async def talk(opened):
        with pytest.raises(ConnectionFailedError, match="does not fit"):
            await opened.request(PrekeyStatus(), Done)
        await opened.aclose()

    await converse(impostor, behave, talk)


async def test_replies_in_any_order(impostor):
    """Replies find their requests by number; one that nobody waits for is no error."""

    async def behave(server):
        await server.receive()
        await server.receive()
        for number in (77, 2, 1):
            await server.say(Done(), number)
        await server.receive()

    async def talk(opened):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(opened.request, PrekeyStatus(), Done)
        await opened.aclose()

    await converse(impostor, behave, talk)


async def test_no_answer(impostor, monkeypatch):
    """A request that is not answered fails in time."""
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.1)

    async def talk(opened):
        with pytest.raises(ConnectionFailedError, match="did not answer"):
            await opened.request(PrekeyStatus(), Done)
        await opened.aclose()

    await converse(impostor, lambda _: anyio.sleep_forever(), talk)


async def test_broken_while_waiting(impostor):
    """When the connection breaks every request in flight fails with the reason, later ones too."""

    async def behave(server):
        await server.receive()

    async def talk(opened):
        for _ in range(2):
            with pytest.raises(ConnectionFailedError):
                await opened.request(PrekeyStatus(), Done)

    await converse(impostor, behave, talk)


async def test_dead_connection_is_noticed(impostor, monkeypatch):
    """A relay that falls silent is pinged, and given up on when it does not answer that."""
    monkeypatch.setattr(websocket, "PING_INTERVAL", 0.05)
    failure = await converse(impostor, lambda _: anyio.sleep_forever(), nothing)
    assert "does not answer any more" in str(failure)


async def test_pings_keep_it_alive(impostor, monkeypatch):
    """As long as pings are answered a silent connection stays."""
    monkeypatch.setattr(websocket, "PING_INTERVAL", 0.02)

    async def behave(server):
        for _ in range(5):
            assert (await server.receive()).opcode == 9  # its pong is sent by `receive`

    failure = await converse(impostor, behave, nothing)
    assert "does not answer" not in str(failure)


async def test_deliveries_in_order(impostor):
    """Envelopes are handed on one after the other, in the order in which they came."""
    taken = []

    async def behave(server):
        for number in range(5):
            await server.say(Deliver(number + 1, None, bytes([number])))

    async def take(delivery):
        await anyio.lowlevel.checkpoint()
        taken.append(delivery.envelope[0])

    class Taking(list):
        append = staticmethod(take)

    await converse(impostor, behave, nothing, deliveries=Taking([0]))
    assert taken == [0, 1, 2, 3, 4]
