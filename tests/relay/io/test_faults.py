"""A relay that dies, stops or cannot store (spec/wire.md, Delivery and Storage)."""

import contextlib
import socket
import sqlite3

import pytest
import trio
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame
from websockets.uri import parse_uri

from relay.services.mailbox import MAX_TRIES
from relay.wire.codec import decode, encode
from relay.wire.limits import MAX_ENVELOPE, MAX_FRAME
from relay.wire.messages import (
    ClientFrame,
    Done,
    ErrorCode,
    Failure,
    GoingAway,
    OpenBox,
    PrekeyCounts,
    PrekeyStatus,
    ServerFrame,
)
from tests.relay.adminsocket import metrics_of
from tests.relay.readiness import becomes, http_status

pytestmark = pytest.mark.trio


async def test_killed_between_store_and_deliver(start_relay, tmp_path, speak, username):
    """F1: an acknowledged Send survives kill -9 and is delivered after the restart, once."""
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data)
    async with speak.registered(relay.url, username) as (_, identity):
        pass
    letter = speak.letter(username, b"survives")
    async with speak.wire(relay.url) as sender:
        assert await sender.request(letter) == Done()
        relay.kill()
    again = start_relay("--data-dir", data, "--signalling", relay.name)
    async with speak.wire(again.url) as client:
        # The sender does not know whether it arrived, so it sends again.
        assert await client.request(letter) == Done()
        assert await client.request(identity.login(client.hello)) == Done()
        assert await client.deliveries(1) == [b"survives"]
        assert await client.request(speak.letter(username, b"the end")) == Done()
        assert await client.deliveries(1) == [b"the end"]
    again.terminate()


async def test_killed_before_the_acknowledgement(start_relay, tmp_path, speak, username):
    """F1: what was delivered but not acknowledged comes again after kill -9."""
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data)
    async with speak.registered(relay.url, username) as (client, identity):
        await client.request(speak.letter(username, b"again"))
        assert (await client.push()).envelope == b"again"
        relay.kill()
    again = start_relay("--data-dir", data, "--signalling", relay.name)
    async with speak.wire(again.url) as client:
        assert await client.request(identity.login(client.hello)) == Done()
        assert await client.deliveries(1) == [b"again"]
    again.terminate()


async def test_restart_keeps_what_clients_know(start_relay, tmp_path, speak, username):
    """After a restart the relay's key, accounts and boxes are the same."""
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data)
    async with speak.registered(relay.url, username) as (client, identity):
        key = client.hello.relay_key
        box = await client.request(OpenBox(bytes(32)))
    assert relay.terminate()[0] == 0
    assert (data / "relay.key").stat().st_mode & 0o777 == 0o600
    again = start_relay("--data-dir", data, "--signalling", relay.name)
    async with speak.wire(again.url) as client:
        assert client.hello.relay_key == key
        assert await client.request(identity.login(client.hello)) == Done()
        assert await client.request(PrekeyStatus()) == PrekeyCounts(0, 0)
        assert await client.request(OpenBox(bytes(32))) == box
    again.terminate()


async def test_going_away(start_relay, speak, username):
    """SIGTERM: clients are told to come back, connections close with 1001, exit 0 in time."""
    relay = start_relay()
    async with speak.registered(relay.url, username) as (client, _):
        stopped = []

        async def stop():
            stopped.append(await trio.to_thread.run_sync(relay.terminate))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            push = await client.push()
            assert isinstance(push, GoingAway)
            assert push.delay_ms > 0
            with pytest.raises(ConnectionClosed):
                await client.push()
            assert client.socket.close_code == 1001
    ((code, seconds),) = stopped
    assert code == 0
    assert seconds < 10


async def test_stops_with_a_deaf_client(start_relay, speak):
    """SIGTERM: a client that does not answer the closing handshake cannot hold the relay up."""
    relay = start_relay()
    stream = await trio.open_tcp_stream(*relay.address)
    request = (
        "GET /v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with stream:
        await stream.send_all(request.encode())
        assert b"101" in await stream.receive_some()
        code, seconds = await trio.to_thread.run_sync(relay.terminate)
    assert code == 0
    assert seconds < 14


def turn_answers(relay):
    """Tell whether the media relay answers a Binding request at once."""
    host, port = relay.ready["turn"].removeprefix("turn:").partition("?")[0].rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(1)
        udp.sendto(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), (host, int(port)))
        return udp.recv(1500)[:2] == b"\x01\x01"


async def test_locked_database(start_relay, tmp_path, speak, username):
    """F2, STORAGE-08, STORAGE-09: with nothing stored, RETRY and /readyz say so; media goes on."""
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data)
    async with speak.registered(relay.url, username) as (client, _):
        await becomes(relay, 200)
        other = sqlite3.connect(data / "relay.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        letter = speak.letter(username, b"later")
        refused = await client.request(letter)
        assert isinstance(refused, Failure)
        assert refused.code is ErrorCode.RETRY
        await becomes(relay, 503)
        assert await http_status(relay, "/healthz") == 200
        assert await trio.to_thread.run_sync(turn_answers, relay)
        other.execute("ROLLBACK")
        other.close()
        await becomes(relay, 200)
        assert "storage works again" in relay.log.read_text()
        assert await client.request(letter) == Done()
        assert await client.deliveries(1) == [b"later"]
    relay.terminate()


async def test_a_network_that_breaks_down(start_relay, tmp_path, speak, username):
    """WIRE-37: an envelope that never arrives, however often its reader's network breaks down while
    it is sent, is not set aside.
    """
    relay = start_relay("--data-dir", tmp_path / "data")
    envelope = bytes(MAX_ENVELOPE)
    async with contextlib.AsyncExitStack() as stack:
        async with speak.registered(relay.url, username) as (_, identity):
            pass
        async with speak.wire(relay.url) as sender:
            assert await sender.request(speak.letter(username, envelope)) == Done()
        for _ in range(MAX_TRIES + 2):
            # It reads the reply to its log-in, and then nothing comes through any more.
            sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await sock.connect(relay.address)
            stream = await stack.enter_async_context(trio.SocketStream(sock))
            await log_in(stream, relay, identity)
            await given(tmp_path)
        async with speak.wire(relay.url) as client:
            assert await client.request(identity.login(client.hello)) == Done()
            with trio.fail_after(30):
                assert await client.deliveries(1) == [envelope]


async def log_in(stream, relay, identity):
    """Log in on a bare connection, and read no further than the reply."""
    protocol = ClientProtocol(parse_uri(relay.url))
    protocol.send_request(protocol.connect())
    await stream.send_all(b"".join(protocol.data_to_send()))
    frames = []
    with trio.fail_after(30):
        while len(frames) < 2:
            protocol.receive_data(await stream.receive_some(64))
            for event in protocol.events_received():
                if not isinstance(event, Frame):
                    continue
                frames.append(decode(event.data, ServerFrame, limit=MAX_FRAME).body)
                if len(frames) == 1:
                    request = ClientFrame(1, identity.login(frames[0]))
                    protocol.send_binary(encode(request))
                    await stream.send_all(b"".join(protocol.data_to_send()))
    assert frames[1] == Done()


async def given(folder):
    """Wait until the envelope was written for its reader, and the reader before is gone."""
    wanted = ("\ne2ecall_relay_connections 1.0\n", "\ne2ecall_relay_unacknowledged 1.0\n")
    with trio.fail_after(30):
        while True:
            text = await metrics_of(folder)
            if all(line in text for line in wanted):
                return
            await trio.sleep(0.01)
