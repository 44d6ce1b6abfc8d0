"""TURN over TCP and TLS beside UDP: real sockets on loopback, real tickets."""

import contextlib
import itertools
import os
import resource
import socket
import ssl
from functools import partial
from types import SimpleNamespace

import pytest
import trio

from relay.errors import TicketError
from relay.io.connection import MAX_QUEUED, SEND_BUFFER, UNSENT
from relay.io.datagram import open_socket, serve_turn, steady_clock
from relay.io.outlets import Outlets
from relay.io.stream import StreamLimits, StreamListener, open_stream_socket, serve_streams
from relay.io.stream_tls import MAX_HANDSHAKE, LayerError, TLSLayer
from relay.io.tls import Certificates
from relay.services import tickets
from relay.turn.counters import Drop
from relay.turn.five_tuple import Transport, listener_number, sources_of
from relay.turn.server import TURNServer
from tests.relay.authority import make_authority
from tests.relay.io.remembered import tables_with
from tests.relay.turnclients import (
    SECRET,
    client,
    open_channel,
    ticket,
    trusting,
)

pytestmark = pytest.mark.trio

TRANSPORTS = ("udp", "tcp", "tls")
HOSTS = ("127.0.0.1", "::1")
BINDING = bytes.fromhex("000100002112a442") + bytes(range(12))


def identify(username, now):
    try:
        return tickets.open_id(SECRET, username, now)
    except TicketError:
        return None


@contextlib.asynccontextmanager
async def serving(folder, **limits):
    """Serve on UDP, TCP and TLS, each on IPv4 and IPv6; give core, addresses and TLS context."""
    core = TURNServer(
        identify=identify, password=partial(tickets.password, SECRET), nonce_key=bytes(32)
    )
    certificate, key = make_authority(folder)
    certificates = Certificates(str(certificate), str(key))
    datagrams = [open_socket(host, 0) for host in HOSTS]
    streams = [
        StreamListener(open_stream_socket(host, 0), kind)
        for kind in (None, certificates)
        for host in HOSTS
    ]
    sockets = [*datagrams, *(listener.socket for listener in streams)]
    places = itertools.product(TRANSPORTS, ("4", "6"))
    addresses = {
        transport + version: sock.getsockname()
        for (transport, version), sock in zip(places, sockets, strict=True)
    }
    outlets, clock = Outlets(), steady_clock()
    serve = partial(
        serve_streams, streams, core, outlets=outlets, clock=clock, limits=StreamLimits(**limits)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_turn, datagrams, core, outlets=outlets, clock=clock))
        await nursery.start(serve)
        yield SimpleNamespace(
            core=core,
            counters=core.counters,
            addresses=addresses,
            tls=trusting(certificate),
            certificates=certificates,
            folder=folder,
        )
        nursery.cancel_scope.cancel()
    assert core.counters.drops[Drop.INTERNAL] == 0
    assert core.counters.connections == 0


@pytest.fixture
async def server(tmp_path):
    async with serving(tmp_path) as found:
        yield found


@pytest.fixture
async def hasty(tmp_path):
    """A server that waits for a third of a second instead of ten."""
    async with serving(tmp_path, patience=0.3) as found:
        yield found


def at(server, place, credential):
    """Give a client with an allocation over the transport and IP version of ``place``."""
    return client(place[:3], server.addresses[place], credential, server.tls)


def channel(server, place):
    return open_channel(place[:3], server.addresses[place], server.tls)


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - the server's counters have no event
            await trio.sleep(0.005)


async def assert_closed(channel):
    with trio.fail_after(10):
        while await channel.receive():
            pass


PLACES = [transport + version for transport in TRANSPORTS for version in "46"]


@pytest.mark.parametrize(
    ("here", "there"), list(itertools.combinations_with_replacement(PLACES, 2))
)
async def test_mixed_pairs(server, here, there):
    """Two clients exchange data whatever transport and IP version each is on (TURN-70, TURN-71)."""
    a, b = ticket()
    async with at(server, here, a) as one, at(server, there, b) as two:
        assert await one.bind(two.relayed, 0x4000) is None
        assert await two.bind(one.relayed, 0x4123) is None
        for data in (b"", b"x", b"xyz", os.urandom(1201)):
            await one.channel_data(0x4000, data)
            assert await two.frame() == b"\x41\x23" + len(data).to_bytes(2) + data
            await two.channel_data(0x4123, data)
            assert await one.frame() == b"\x40\x00" + len(data).to_bytes(2) + data


@pytest.mark.parametrize("place", ["tcp4", "tls6"])
async def test_indications(server, place):
    """Send and Data indications pass between a stream and UDP (TURN-70)."""
    a, b = ticket()
    async with at(server, place, a) as one, at(server, "udp4", b) as two:
        assert await one.permit(two.relayed) is None
        assert await two.permit(one.relayed) is None
        await one.send_indication(two.relayed, b"there")
        assert b"there" in await two.frame()
        await two.send_indication(one.relayed, b"back")
        assert b"back" in await one.frame()


async def test_many_frames_in_one_segment(server):
    """Frames that come together are answered one by one, cut ones are joined (TURN-71)."""
    async with channel(server, "tcp4") as one:
        for size in (len(BINDING) * 3, 7, 1):
            stream = BINDING * 3
            for start in range(0, len(stream), size):
                await one.stream.send_all(stream[start : start + size])
            with trio.fail_after(10):
                for _ in range(3):
                    assert (await one.receive())[8:20] == BINDING[8:20]


@pytest.mark.parametrize("place", ["tcp4", "tls4"])
async def test_end_of_the_connection(server, place):
    """The allocation ends with its connection, and who has the address next has none (TURN-70)."""
    a, b = ticket()
    async with at(server, "udp4", b) as two:
        async with at(server, place, a) as one:
            await one.bind(two.relayed, 0x4000)
            await two.bind(one.relayed, 0x4000)
            assert server.counters.allocations == 2
            gone = one.relayed
        await until(lambda: server.counters.allocations == 1)
        assert await two.permit(gone) == 403
        await two.channel_data(0x4000, b"anybody?")
        await until(lambda: server.counters.drops[Drop.FOREIGN_PEER] == 1)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x80", b"\x40\0\xff\xff", b"\0\1\0\1"]
)
async def test_garbage(server, data):
    """M4: what is no frame ends the connection at once, without an answer (TURN-71)."""
    async with channel(server, "tcp4") as one:
        await one.stream.send_all(data)
        await assert_closed(one)
        assert one.buffer == b""
    assert server.counters.packets_out == 0


async def test_no_tls(server):
    """M4: what is no TLS ends a connection to the TLS port (TURN-70)."""
    host, port = server.addresses["tls4"][:2]
    async with open_channel("tcp", (host, port)) as one:
        await one.stream.send_all(BINDING)
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            while await one.stream.receive_some():
                pass
    await until(lambda: server.counters.connections == 0)
    assert server.counters.connections_timed_out == 0


async def test_old_tls(server):
    """TLS before 1.3 is refused (TURN-70)."""
    server.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(trio.BrokenResourceError):
        async with channel(server, "tls4") as one:
            await one.send(BINDING)


async def test_reload(server):
    """A new certificate is for new connections; the old ones go on (TURN-70)."""
    a, _ = ticket()
    async with at(server, "tls4", a) as one:
        certificate, key = make_authority(server.folder)
        server.certificates.reload(str(certificate), str(key))
        with pytest.raises(trio.BrokenResourceError):
            async with channel(server, "tls4") as other:
                await other.send(BINDING)
        server.tls = trusting(certificate)
        async with channel(server, "tls4") as other:
            await other.send(BINDING)
            assert await other.receive()
        assert await one.refresh(600) is None


# Time limits: attack line T7.


@pytest.mark.parametrize("place", ["tcp4", "tls4"])
async def test_without_allocation(hasty, place):
    """T7: a connection without an allocation is closed, whatever else it asks for (TURN-72)."""
    async with channel(hasty, place) as one:
        with contextlib.suppress(trio.BrokenResourceError), trio.fail_after(10):
            while True:
                await one.send(BINDING)
                if not await one.receive():
                    break
    await until(lambda: hasty.counters.connections == 0)
    assert hasty.counters.connections_timed_out == 1


async def test_no_handshake(hasty):
    """T7: half a TLS handshake is closed (TURN-72)."""
    host, port = hasty.addresses["tls4"][:2]
    async with open_channel("tcp", (host, port)) as one:
        await one.stream.send_all(b"\x16\x03\x01\x02\x00\x01")
        await assert_closed(one)
    assert hasty.counters.connections_timed_out == 1


async def test_after_the_allocation(hasty):
    """T7: a connection outlives its allocation by no more than the time to make one (TURN-72)."""
    a, b = ticket()
    async with at(hasty, "tcp4", a) as one, at(hasty, "tcp4", b) as two:
        await trio.sleep(0.5)  # longer than one without an allocation lives
        assert await one.refresh(0) is None
        assert await one.allocate() is None
        assert await one.refresh(0) is None
        await assert_closed(one.channel)
        assert await two.refresh(600) is None
    assert hasty.counters.connections_timed_out == 1


@pytest.mark.parametrize("drip", [True, False])
async def test_half_a_frame(hasty, drip):
    """T7: half a frame that never ends is closed, dripping or not; others go on (TURN-72)."""
    a, b = ticket()
    async with at(hasty, "tcp4", a) as one, at(hasty, "tcp4", b) as two:
        await one.channel.stream.send_all(b"\x40\x00\x04\x00")
        with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
            if drip:
                while True:
                    await one.channel.stream.send_all(b"x")
                    await trio.sleep(0.02)
            await assert_closed(one.channel)
        await until(lambda: hasty.counters.allocations == 1)
        assert await two.refresh(600) is None
    assert hasty.counters.connections_timed_out == 1


# Who does not read.


@pytest.mark.parametrize("place", ["tcp4", "tls4"])
async def test_media_is_dropped(server, place):
    """Media for a client that does not read is dropped, not queued; the rest is whole (TURN-73)."""
    a, b = ticket()
    async with at(server, place, a) as one, at(server, "udp4", b) as two:
        await one.bind(two.relayed, 0x4000)
        await two.bind(one.relayed, 0x4001)
        packet = bytes(1000)
        dropped = server.counters.drops
        sent = 0
        with trio.fail_after(20):
            while dropped[Drop.SEND_FAILED] < 100:
                for _ in range(20):
                    await two.channel_data(0x4001, packet)
                sent += 20
                assert await two.refresh(600) is None  # the sender is not disturbed
        await two.channel_data(0x4001, b"last")
        await until(lambda: server.counters.forwarded == sent + 1)
        queued = sent + 1 - dropped[Drop.SEND_FAILED]
        # What the kernels hold: the buffer to send from, and that of the client.
        assert queued * len(packet) < SEND_BUFFER * 2 + UNSENT + 8_000_000
        whole = {b"\x40\x00\x03\xe8" + packet, b"\x40\x00\0\x04last"}
        for _ in range(queued):
            assert await one.frame() in whole
        # Room again: it goes on as before.
        await two.channel_data(0x4001, b"on time")
        assert await one.frame() == b"\x40\x00\0\x07on time"


async def test_responses_are_bounded(server):
    """T7: who asks on without reading answers is closed, with little waiting for it (TURN-73)."""
    a, b = ticket()
    async with at(server, "tcp4", a) as one, at(server, "tcp4", b) as two:
        with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
            while server.counters.connections == 2:
                await one.channel.stream.send_all(BINDING * 500)
        assert await two.refresh(600) is None
        assert server.counters.allocations == 1


async def test_never_reading_again(tmp_path):
    """T7: a client that takes nothing of what waits for it is closed in the end (TURN-72)."""
    async with serving(tmp_path, patience=0.5) as server:
        a, b = ticket()
        async with at(server, "tcp4", a) as one, at(server, "udp4", b) as two:
            await one.bind(two.relayed, 0x4000)
            await two.bind(one.relayed, 0x4001)
            with trio.fail_after(20):
                while server.counters.connections:
                    for _ in range(20):
                        await two.channel_data(0x4001, bytes(1000))
                    await trio.sleep(0.005)
            assert server.counters.allocations == 1
            assert server.counters.connections_timed_out == 1


# How many.


async def test_connections_in_a_minute(tmp_path):
    """TURN-75: a source that connects and hangs up again and again is closed before a byte is
    read, over TLS too, once it had its share of a minute; others are served.
    """
    async with serving(tmp_path, connections_per_address_and_minute=3) as server:
        for place in ("tcp4", "tls4", "tcp4"):
            async with channel(server, place):
                pass
        async with channel(server, "tcp4") as refused:
            await refused.send(BINDING)
            assert await refused.receive() == b""
        assert server.counters.connections_refused == 1
        one, _ = ticket()
        async with at(server, "tcp6", one) as other:
            assert other.relayed is not None


async def test_who_connected_is_forgotten(tmp_path):
    """WIRE-62: once it may begin as many as any other again, a server knows no address that came
    (TURN-75).
    """
    async with serving(tmp_path, connections_per_address_and_minute=30) as server:
        (source,) = sources_of((listener_number(Transport.TCP, 0), ("127.0.0.1", 1)))
        stream = await trio.open_tcp_stream(*server.addresses["tcp4"])
        await until(lambda: server.counters.connections == 1)
        await stream.aclose()
        await until(lambda: not tables_with(source.hex()))


async def test_connections_of_one_source(tmp_path):
    """T7: beyond its share a source is closed unread; it may come again when it left (TURN-74)."""
    async with serving(tmp_path, connections_per_address=2) as server:
        a, b = ticket()
        async with at(server, "tcp4", a):
            async with at(server, "tls4", b):
                async with channel(server, "tcp4") as third:
                    await assert_closed(third)
                async with channel(server, "tcp6") as other:
                    await other.send(BINDING)
                    assert await other.receive()
            await until(lambda: server.counters.connections == 1)
            async with at(server, "tcp4", b):
                pass
        assert server.counters.connections_refused == 1


async def test_all_connections(tmp_path):
    """T7: beyond the total every connection is closed unread (TURN-74)."""
    async with serving(tmp_path, connections=3) as server:
        async with contextlib.AsyncExitStack() as stack:
            for place in ("tcp4", "tcp6", "tcp4"):
                one = await stack.enter_async_context(channel(server, place))
                await one.send(BINDING)
                assert await one.receive()
            async with channel(server, "tcp6") as fourth:
                await assert_closed(fourth)
        assert server.counters.connections_refused == 1


async def test_without_descriptors(server):
    """Without a descriptor left accepting waits, and who is connected is served (TURN-74)."""
    a, _ = ticket()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with at(server, "tcp4", a) as one:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM) as late:
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                await late.connect(server.addresses["tcp4"])
                await late.send(BINDING)
                for _ in range(3):
                    await trio.sleep(0.05)
                    assert await one.refresh(600) is None
                assert server.counters.connections == 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            with trio.fail_after(10):
                assert (await late.recv(100))[8:20] == BINDING[8:20]


async def test_thousands_of_halves(server):
    """T7: hundreds of half frames hold less than a frame each, and others are served (TURN-73)."""
    a, b = ticket()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(190):
            one = await stack.enter_async_context(channel(server, "tcp4"))
            await one.stream.send_all(b"\x40\x00\x0f\xf0" + bytes(4000))
        async with at(server, "udp4", a) as first, at(server, "tcp6", b) as second:
            await first.bind(second.relayed, 0x4000)
            await second.bind(first.relayed, 0x4000)
            await first.channel_data(0x4000, b"served")
            assert await second.frame() == b"\x40\x00\0\x06served"
        await until(lambda: server.counters.connections == 190)


async def test_endless_handshake(tmp_path):
    """T7: a client hello that goes on and on is given up (TURN-73)."""
    certificates = Certificates(*map(str, make_authority(tmp_path)))
    layer = TLSLayer(certificates.current.context)
    record = b"\x16\x03\x01\x40\x00" + b"\x01\x01\x00\x00" + bytes(0x4000 - 4)
    with pytest.raises(LayerError):
        for _ in range(MAX_HANDSHAKE // len(record) + 2):
            layer.receive(record)


async def test_cancelled(tmp_path):
    """Cancellation closes all listeners and connections (TURN-50)."""
    async with serving(tmp_path) as server:
        stack = contextlib.AsyncExitStack()
        one = await stack.enter_async_context(channel(server, "tcp4"))
        await one.send(BINDING)
        assert await one.receive()
    await assert_closed(one)
    await stack.aclose()
    assert MAX_QUEUED < SEND_BUFFER
