"""Connections before anybody is known: handshakes, proxies, origins (spec/wire.md, Limits)."""

import contextlib
import ssl
import sys
import time

import pytest
import trio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.trio.client import connect

from relay.io.listener import Gate, Share
from relay.services.source import SITE
from relay.wire.messages import FetchBundle, OpenBox
from tests.relay.conftest import Wire
from tests.relay.io.test_tls import make_authority

pytestmark = pytest.mark.trio


@pytest.fixture
def limited(start_relay, tmp_path):
    """Start a relay with limits per address, as an operator has it."""

    def start(text="", *, limits="", environment=None):
        config = tmp_path / "relay.toml"
        config.write_text(
            f'[relay]\nname = "relay.example"\n[signalling]\nlisten = "127.0.0.1:0"\n{text}\n'
            '[turn]\nlisten = "127.0.0.1:0"\nsecret = "a secret of the tests"\n'
            f"[limits]\n{limits}\n"
        )
        return start_relay("--config", config, dev=False, environment=environment)

    return start


async def closed_after(stream):
    """Return the seconds until the relay closes a connection."""
    start = time.monotonic()
    with trio.fail_after(15), contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
    return time.monotonic() - start


@pytest.mark.parametrize(
    "sent", [b"", b"GET /v1 HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "half_a_request"]
)
async def test_slow_handshake(limited, sent):
    """WIRE-42, W1: a handshake that does not end is cut off, however many bytes came."""
    relay = limited(limits="handshake_seconds = 0.5")
    async with await trio.open_tcp_stream(*relay.address) as stream:
        await stream.send_all(sent)
        assert 0.3 < await closed_after(stream) < 9
    assert relay.terminate()[0] == 0


async def test_dripping_handshake(limited):
    """WIRE-42, W1: a byte now and then does not keep a handshake alive."""
    relay = limited(limits="handshake_seconds = 0.5")
    async with await trio.open_tcp_stream(*relay.address) as stream:

        async def drip():
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for byte in b"GET /v1 HTTP/1.1\r\n" + b"X: y\r\n" * 1000:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert await closed_after(stream) < 5
            nursery.cancel_scope.cancel()
    assert relay.terminate()[0] == 0


async def test_slow_tls(start_relay, tmp_path):
    """WIRE-42, W1: TLS that does not begin, or stops half-way, counts as the same handshake."""
    certificate, key = make_authority(tmp_path)
    config = tmp_path / "tls.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    relay = start_relay("--config", config, environment={"RELAY__LIMITS__HANDSHAKE_SECONDS": "0.5"})
    hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(*hello, server_hostname="x")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    for sent in (b"", hello[1].read()):
        async with await trio.open_tcp_stream(*relay.address) as stream:
            await stream.send_all(sent)
            assert await closed_after(stream) < 5
    assert relay.terminate()[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="127/8 is this machine on Linux only")
async def test_handshakes_of_one_address(limited):
    """WIRE-42, W1: beyond its share of handshakes an address is closed at once; others, and
    connections that are through, do not notice.
    """
    relay = limited(limits="handshakes_per_address = 3")
    async with (
        connect(f"ws://{relay.name}/v1", compression=None) as through,
        contextlib.AsyncExitStack() as stack,
    ):
        await through.recv()
        for _ in range(3):
            await stack.enter_async_context(await trio.open_tcp_stream(*relay.address))
        fourth = await stack.enter_async_context(await trio.open_tcp_stream(*relay.address))
        assert await closed_after(fourth) < 3
        async with connect(
            f"ws://{relay.name}/v1", compression=None, local_address="127.0.0.2"
        ) as other:
            await other.recv()
        await through.ping()
    async with connect(relay.url, compression=None) as again:
        await again.recv()
    assert relay.terminate()[0] == 0


async def test_handshakes_of_a_minute(limited):
    """WIRE-46, W1: who connects and hangs up again and again is closed at once beyond its share of
    a minute, without an answer.
    """
    relay = limited(limits="handshakes_per_address_and_minute = 3")
    for _ in range(3):
        async with connect(relay.url, compression=None) as through:
            await through.recv()
    async with await trio.open_tcp_stream(*relay.address) as fourth:
        assert await closed_after(fourth) < 10
    assert relay.terminate()[0] == 0


async def test_requests_of_one_address(limited, speak):
    """WIRE-53, W1: requests of an address that come too fast wait for their turn, over all of its
    connections; none is refused.
    """
    relay = limited(limits="requests_per_address_and_second = 1")
    async with speak.wire(relay.url) as one, speak.wire(relay.url) as other:
        for client in (one, other) * 5:
            assert await client.request(OpenBox(bytes(32)))
        with trio.move_on_after(0.5) as waiting:
            await one.request(OpenBox(bytes(32)))
        assert waiting.cancelled_caught
        with trio.fail_after(20):
            assert await other.request(OpenBox(bytes(32)))
    assert relay.terminate()[0] == 0


async def test_endless_request(limited):
    """WIRE-42, W1: who goes on sending headers is cut off after 16 KiB."""
    relay = limited()
    async with await trio.open_tcp_stream(*relay.address) as stream:
        sent = 0
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(20):
            await stream.send_all(b"GET /v1 HTTP/1.1\r\n")
            while sent < 64 * 1024 * 1024:
                await stream.send_all(b"X: " + b"y" * 1000 + b"\r\n")
                sent += 1005
    assert relay.terminate()[0] == 0


async def test_connections_of_one_address(limited, speak):
    """W1: connections of one address are bounded after the handshake too: the next comes later."""
    relay = limited(limits="connections_per_address = 1")
    async with speak.wire(relay.url), connect(relay.url, compression=None) as second:
        with pytest.raises(ConnectionClosed):
            await second.recv()
        assert second.close_code == 1013
    assert relay.terminate()[0] == 0


async def test_handshakes_of_one_network():
    """W1, WIRE-46, WIRE-52: handshakes from the networks of a /48 are bounded together: how many
    are under way, and how many begin in a minute.
    """
    for share, leaves in ((Share(1, 1000), False), (Share(1000, 1), True)):
        gate = Gate(lambda _peer, share=share: share, lambda: 0.0)
        entered = []
        for number in range(18):
            peer = f"2001:db8:7:{number:x}::1"
            entered.append(gate.enter(peer))
            if entered[-1] and leaves:
                gate.leave(peer)
        assert entered == [True] * SITE + [False] * 2
        assert gate.enter("2001:db8:8::1")
        assert gate.enter("192.0.2.1")


async def test_connections_of_one_network(limited):
    """W1, WIRE-52: connections from one /64 after the other of a /48 are bounded together."""
    relay = limited('trusted_proxies = ["127.0.0.1"]', limits="connections_per_address = 1")

    def from_network(number):
        headers = {"X-Forwarded-For": f"2001:db8:7:{number:x}::1"}
        return connect(relay.url, compression=None, additional_headers=headers)

    async with contextlib.AsyncExitStack() as stack:
        for number in range(16):
            socket = await stack.enter_async_context(from_network(number))
            await socket.recv()
        late = await stack.enter_async_context(from_network(16))
        with pytest.raises(ConnectionClosed):
            await late.recv()
        assert late.close_code == 1013
    assert relay.terminate()[0] == 0


async def fetches(url, header):
    """Return how a bundle is refused to who says to come from ``header``'s address."""
    async with connect(url, compression=None, additional_headers=header) as socket:
        client = Wire(socket)
        client.hello = (await client.frame()).body
        return (await client.request(FetchBundle("nobody_at_all", None, None))).text


LIMIT = "fetches_per_address_and_minute = 1"


async def test_forged_forwarding(limited):
    """WIRE-43, W7: without a trusted proxy the header changes nothing: one address, one budget."""
    relay = limited(limits=LIMIT)
    assert await fetches(relay.url, {"X-Forwarded-For": "198.51.100.1"}) == "not reachable"
    assert await fetches(relay.url, {"X-Forwarded-For": "198.51.100.2"}) == "too many requests"
    assert relay.terminate()[0] == 0


async def test_trusted_proxy(limited):
    """WIRE-43, W7: behind a trusted proxy each client has its own budget, and cannot choose it."""
    relay = limited('trusted_proxies = ["127.0.0.1"]', limits=LIMIT)
    assert await fetches(relay.url, {"X-Forwarded-For": "198.51.100.1"}) == "not reachable"
    assert await fetches(relay.url, {"X-Forwarded-For": "198.51.100.2"}) == "not reachable"
    forged = {"X-Forwarded-For": "203.0.113.77, 198.51.100.1"}
    assert await fetches(relay.url, forged) == "too many requests"
    assert await fetches(relay.url, {"Forwarded": "for=198.51.100.3"}) == "not reachable"
    with pytest.raises(InvalidStatus) as caught:
        await fetches(relay.url, {"X-Forwarded-For": "unknown"})
    assert caught.value.response.status_code == 400
    assert relay.terminate()[0] == 0


async def test_origins(limited):
    """WIRE-01, W7: a browser may connect from the pages that the operator chose, and no others."""
    relay = limited('origins = ["https://calls.example"]')
    async with connect(relay.url, compression=None, origin="https://calls.example") as page:
        await page.recv()
    for origin in (
        "https://evil.example",
        "https://calls.example.evil.example",
        "null",
        "http://calls.example",
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(relay.url, compression=None, origin=origin):
                pass
        assert caught.value.response.status_code == 403
    assert relay.terminate()[0] == 0
