"""Hostile clients (spec/wire.md, Limits): refused with a code, and harmless to everybody else."""

import contextlib
import itertools
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import msgpack
import pytest
import trio
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.trio.client import connect
from websockets.uri import parse_uri

from relay.wire.codec import encode
from relay.wire.limits import MAX_ENVELOPE, MAX_FRAME
from relay.wire.messages import ClientFrame, Done, FetchBundle, OpenBox, PrekeyStatus

pytestmark = pytest.mark.trio

GOOD = encode(ClientFrame(1, PrekeyStatus()))
GARBAGE = {
    "empty": b"",
    "zeros": bytes(100),
    "text": b"GET / HTTP/1.1",
    "truncated": GOOD[:-1],
    "trailing": GOOD + b"\x00",
    "not_canonical": b"\x92\xd1\x00\x01\x91\x05",
    "id_zero": msgpack.packb([0, [5]]),
    "id_too_long": msgpack.packb([2**32, [5]]),
    "unknown_type": msgpack.packb([1, [99]]),
    "a_reply": msgpack.packb([1, [64]]),
    "extra_field": msgpack.packb([1, [5, 0]]),
    "map": msgpack.packb({1: 2}),
    "float": msgpack.packb([1, [8, 1.0]]),
    "extension": msgpack.packb([1, msgpack.ExtType(5, b"x")]),
    "deep": b"\x91" * 5000 + b"\xc0",
    "huge_array": b"\xdd\xff\xff\xff\xff",
    "huge_bytes": b"\xc6\xff\xff\xff\xff",
    "huge_map": b"\xdf\xff\xff\xff\xff",
    "not_utf8": b"\x92\x01\x94\x06\xa3\xff\xff\xff\xc0\xc0",
    "envelope_too_long": msgpack.packb(
        [1, [11, [2, bytes(32)], bytes(16), bytes(MAX_ENVELOPE + 1), None]]
    ),
    "envelope_empty": msgpack.packb([1, [11, [2, bytes(32)], bytes(16), b"", None]]),
}


def memory(relay):
    """Return the resident kilobytes of a relay."""
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def closed_with(client):
    with pytest.raises(ConnectionClosed):
        while True:
            await client.socket.recv()
    return client.socket.close_code


async def works(relay, speak):
    async with speak.wire(relay.url) as client:
        reply = await client.request(FetchBundle("nobody_at_all", None, None))
        return reply.text == "not reachable"


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage(relay, speak, name):
    """WIRE-04, M2: what is not a frame closes the connection with 1008; the relay lives on."""
    async with speak.wire(relay.url) as client:
        await client.socket.send(GARBAGE[name])
        assert await closed_with(client) == 1008
        assert 0 < len(client.socket.close_reason) < 60
    assert await works(relay, speak)


async def test_bit_flips(relay, speak):
    """M1: every single-bit flip of a request is answered or closes the connection with 1008."""
    for bit in range(len(GOOD) * 8):
        flipped = bytearray(GOOD)
        flipped[bit // 8] ^= 1 << bit % 8
        async with speak.wire(relay.url) as client:
            await client.socket.send(bytes(flipped))
            try:
                await client.frame()
            except ConnectionClosed:
                assert client.socket.close_code == 1008
    assert await works(relay, speak)


async def test_text_frame(relay, speak):
    """WIRE-02: a text message closes the connection with 1003."""
    async with speak.wire(relay.url) as client:
        await client.socket.send("hello")
        assert await closed_with(client) == 1003


@pytest.mark.parametrize("size", [MAX_FRAME + 1, 4 * MAX_FRAME])
async def test_oversize(relay, speak, size):
    """W2: a message of more than 64 KiB closes the connection with 1009."""
    async with speak.wire(relay.url) as client:
        with contextlib.suppress(ConnectionClosed):
            await client.socket.send(bytes(size))
        assert await closed_with(client) == 1009
    assert await works(relay, speak)


async def test_oversize_in_fragments(relay, speak):
    """W2: many small fragments make no larger message."""

    def fragments():
        for _ in range(100):
            yield bytes(1024)

    async with speak.wire(relay.url) as client:
        with contextlib.suppress(ConnectionClosed):
            await client.socket.send(fragments())
        assert await closed_with(client) == 1009


@pytest.mark.parametrize(
    "frame", [b"\x00\x80" + bytes(4), b"\x89\x80" + bytes(4)], ids=["fragments", "pings"]
)
async def test_endless_frames(relay, speak, frame):
    """WIRE-54, W2: frames that make no message, fragments without content among them, close the
    connection with 1008 when there are thousands.
    """
    async with speak.wire(relay.url) as client:
        await client.request(OpenBox(bytes(32)))
        await client.socket.stream.send_all(b"\x02\x80" + bytes(4))
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for _ in range(30):
                await client.socket.stream.send_all(frame * 100)
        assert await closed_with(client) == 1008
    assert await works(relay, speak)


async def test_largest_frame(relay, speak, username):
    """The largest envelope fits."""
    async with speak.registered(relay.url, username) as (client, _):
        envelope = os.urandom(MAX_ENVELOPE)
        assert await client.request(speak.letter(username, envelope)) == Done()
        assert await client.deliveries(1) == [envelope]


async def test_no_compression(relay):
    """WIRE-03, W2: compression is not negotiated, even when asked for."""
    async with connect(relay.url, compression="deflate") as client:
        assert client.protocol.extensions == []


async def test_cross_origin(relay):
    """W7: a web page that the operator did not choose is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(relay.url, origin="https://evil.example"):
            pass
    assert caught.value.response.status_code == 403


async def test_other_paths(relay):
    """WIRE-01: the relay is at /v1; health and readiness answer without a WebSocket."""
    base = f"http://{relay.name}"

    def status(path):
        try:
            with urllib.request.urlopen(base + path, timeout=5) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    codes = {
        path: await trio.to_thread.run_sync(status, path)
        for path in (
            "/healthz",
            "/readyz",
            "/v2",
            "/",
            "/v1",
        )
    }
    assert codes == {"/healthz": 200, "/readyz": 200, "/v2": 404, "/": 404, "/v1": 426}


@pytest.mark.parametrize(
    "data",
    [b"\x00" * 200, b"\x16\x03\x01" + os.urandom(200), b"GET /v1 HTTP/1.1\r\n\r\n", b"A" * 20_000],
    ids=["zeros", "tls", "no_upgrade", "endless_line"],
)
async def test_not_http(relay, speak, data):
    """What is no WebSocket handshake is answered with HTTP or nothing, and closed."""
    stream = await trio.open_tcp_stream(*relay.address)
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            await stream.send_eof()
            while await stream.receive_some():
                pass
    assert await works(relay, speak)


async def test_silent_connection(start_relay, speak):
    """WIRE-09, W1: a connection that asks nothing is closed; one that waits on a box stays."""
    relay = start_relay(
        environment={
            "RELAY__LIMITS__FIRST_REQUEST_SECONDS": "0.2",
            "RELAY__LIMITS__ANONYMOUS_IDLE_SECONDS": "0.2",
        }
    )
    async with speak.wire(relay.url) as waiting:
        await waiting.request(OpenBox(bytes(32)))
        async with speak.wire(relay.url) as silent:
            assert await closed_with(silent) == 1008
        async with speak.wire(relay.url) as idle:
            await idle.request(FetchBundle("nobody_at_all", None, None))
            assert await closed_with(idle) == 1008
        assert await waiting.request(OpenBox(bytes(32)))
    relay.terminate()


async def test_too_many_refusals(start_relay, speak):
    """WIRE-09: who is refused again and again is disconnected, and nothing of the
    connection stays, even with requests still waiting.
    """
    relay = start_relay()
    for _ in range(3):
        async with speak.wire(relay.url) as client:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(500):
                    await client.send(PrekeyStatus())
            assert await closed_with(client) == 1008
    code, seconds = await trio.to_thread.run_sync(relay.terminate)
    assert code == 0
    assert seconds < 6  # a connection that stays is waited for longer


async def test_never_reads(start_relay, speak, username):
    """WIRE-09, W2: who never reads holds up nobody, costs bounded memory, and is cut off."""
    relay = start_relay(environment={"RELAY__LIMITS__WRITE_SECONDS": "0.5"})
    async with speak.registered(relay.url, username):
        pass
    before = memory(relay)
    stream = await deaf_stream(relay)
    async with stream:
        protocol = ClientProtocol(parse_uri(relay.url))
        protocol.send_request(protocol.connect())
        await stream.send_all(b"".join(protocol.data_to_send()))
        protocol.receive_data(await stream.receive_some())
        # Replies of 4 KB each, until the relay's socket takes no more of them.
        request = encode(ClientFrame(1, FetchBundle(username, None, None)))
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(20):
            for number in itertools.count():
                protocol.send_binary(request)
                await stream.send_all(b"".join(protocol.data_to_send()))
                if number % 100 == 0:
                    assert await works(relay, speak)
    assert await works(relay, speak)
    assert memory(relay) - before < 30_000
    code, seconds = await trio.to_thread.run_sync(relay.terminate)
    assert code == 0
    assert seconds < 6


async def deaf_stream(relay):
    """Connect with a receive buffer that is full soon."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(relay.address)
    return trio.SocketStream(sock)


async def test_flood_of_connections(relay, speak):
    """W1: many half-open connections do not keep others out, and memory stays bounded."""
    before = memory(relay)
    streams = [await trio.open_tcp_stream(*relay.address) for _ in range(200)]
    try:
        assert await works(relay, speak)
        assert memory(relay) - before < 30_000
    finally:
        for stream in streams:
            await stream.aclose()


async def test_too_many_connections(start_relay, speak):
    """W1: connections beyond the limit are told to come later; then there is room again."""
    relay = start_relay(environment={"RELAY__LIMITS__CONNECTIONS": "1"})
    async with speak.wire(relay.url), connect(relay.url, compression=None) as second:
        with pytest.raises(ConnectionClosed):
            await second.recv()
        assert second.close_code == 1013
    room = False
    with trio.fail_after(20):
        while not room:
            with contextlib.suppress(ConnectionClosed):  # the relay may see the end later than we
                room = await works(relay, speak)
    relay.terminate()


async def test_logs_name_nobody(start_relay, speak, username):
    """W8: after registrations, refusals and mail, the log holds no username and no address."""
    relay = start_relay()
    async with speak.registered(relay.url, username) as (client, identity):
        await client.request(identity.register(client.hello))
        await client.request(speak.letter(username))
        await client.deliveries(1)
        await client.socket.send(b"garbage " + username.encode())
        assert await closed_with(client) == 1008
    relay.terminate()
    log = relay.log.read_text()
    assert username not in log
    assert "127.0.0.1" not in log
    assert "Traceback" not in log
