"""The attack lines of the TURN media relay, T1 to T7, N1 and M4, against a relay that runs."""

import base64
import contextlib
import json
import os
import socket
import time
from pathlib import Path

import pytest
import trio

from relay.services.tickets import issue
from relay.turn.attributes import AttributeType as Type
from relay.turn.attributes import TransportAddress
from relay.turn.stun import MessageClass, Method, encode_message, parse_message
from relay.wire.messages import TurnCredential
from tests.relay.mediarelay import SECRET, TRANSPORTS, media_relay
from tests.relay.turnclients import (
    UDP,
    TURNClient,
    client,
    code_of,
    open_channel,
    ticket,
)

pytestmark = pytest.mark.trio

BINDING = bytes.fromhex("000100002112a442") + bytes(range(12))

OUTSIDE = [
    ("127.0.0.1", 22),
    ("0.0.0.0", 80),
    ("10.0.0.1", 80),
    ("172.16.0.1", 80),
    ("192.168.1.1", 80),
    ("169.254.169.254", 80),
    ("203.0.113.5", 3478),
    ("224.0.0.1", 5353),
    ("198.18.0.0", 49_152),
    ("198.19.255.255", 65_535),
    ("::1", 80),
    ("::ffff:127.0.0.1", 80),
    ("::ffff:169.254.169.254", 80),
    ("fe80::1", 80),
    ("fd00:ec2::254", 80),
    ("64:ff9b::7f00:1", 80),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One relay for all attacks: what one of them breaks, the others and the end notice."""
    with media_relay(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


def pair():
    return ticket(SECRET.encode())


def at(server, transport, credential):
    return client(transport, server.addresses[transport], credential, server.tls)


def channel(server, transport):
    return open_channel(transport, server.addresses[transport], server.tls)


@contextlib.asynccontextmanager
async def call(server, one="udp", two="udp"):
    """Give two clients that are bound to one another, to see that others' calls go on."""
    a, b = pair()
    async with at(server, one, a) as first, at(server, two, b) as second:
        assert await first.bind(second.relayed, 0x4000) is None
        assert await second.bind(first.relayed, 0x4000) is None
        yield first, second


async def assert_call(first, second):
    """The call goes on, and nothing came to it from anywhere else."""
    data = os.urandom(32)
    for sender, receiver in ((first, second), (second, first)):
        await sender.channel_data(0x4000, data)
        assert await receiver.frame() == b"\x40\x00\x00\x20" + data


def sockets(pid):
    links = (str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir())
    return {link for link in links if link.startswith("socket:")}


def memory(pid):
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def bystanders():
    """Give addresses at which somebody listens, who must not hear anything."""
    with contextlib.ExitStack() as stack:
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        for sock in (udp, tcp):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        tcp.listen()
        yield [udp.getsockname(), tcp.getsockname()]
        with pytest.raises(BlockingIOError):
            udp.recv(100)
        with pytest.raises(BlockingIOError):
            tcp.accept()


# T1, T2: out of the relay.


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_t1_no_way_out(server, transport):
    """T1, TURN-31: no address but a peer's allocation is reached, nor a socket opened for one."""
    a, _ = pair()
    stranger, _ = pair()
    with bystanders() as listening:
        async with (
            call(server) as others,
            at(server, transport, a) as one,
            at(server, "udp", stranger) as two,
        ):
            before = sockets(server.pid)
            targets = [TransportAddress.parse(*address) for address in [*OUTSIDE, *listening]]
            targets += [TransportAddress.parse(*address) for address in server.addresses.values()]
            targets.append(TransportAddress.parse(*two.channel.sock.getsockname()))
            targets.append(two.relayed)
            for number, target in enumerate(targets):
                assert await one.permit(target) == 403
                assert await one.bind(target, 0x4000 + number) == 403
                await one.send_indication(target, b"to whom?")
                await one.channel_data(0x4000 + number, b"to whom?")
            assert await one.refresh(600) is None
            assert sockets(server.pid) == before
            assert await two.refresh(600) is None
            assert not two.inbox
            await assert_call(*others)


@pytest.mark.parametrize("method", ["permission", "channel", "send"])
async def test_t2_every_method(server, method):
    """T2, TURN-31: what one method refuses no other allows, one address among good ones neither."""
    a, b = pair()
    stranger, _ = pair()
    async with (
        at(server, "udp", a) as one,
        at(server, "udp", b) as peer,
        at(server, "udp", stranger) as outside,
    ):
        assert await peer.permit(one.relayed) is None
        assert await one.permit(peer.relayed) is None
        for target in (outside.relayed, peer.relayed._replace(port=peer.relayed.port ^ 1)):
            if method == "permission":
                expected = None if target.ip == peer.relayed.ip else 403
                assert await one.permit(target) == expected
            elif method == "channel":
                assert await one.bind(target, 0x4000) == 403
            await one.send_indication(target, b"stray")
            await one.channel_data(0x4000, b"stray")
        await one.send_indication(peer.relayed, b"the first to arrive")
        assert b"the first to arrive" in await peer.frame()
        assert await outside.refresh(600) is None
        assert not outside.inbox


# T3: who is asking.


def expired():
    credential, _ = issue(SECRET.encode(), time.time() - 7200, 3600, os.urandom(16))
    return credential


def tampered():
    credential, _ = pair()
    changed = "B" if credential.username[-1] == "A" else "A"
    return TurnCredential(credential.username[:-1] + changed, credential.password)


def foreign():
    credential, _ = ticket(b"the secret of another relay")
    return credential


def prolonged():
    credential, _ = pair()
    expiry, _, rest = credential.username.partition(":")
    return TurnCredential(f"{int(expiry) + 3600}:{rest}", credential.password)


def guessed():
    credential, other = pair()
    return TurnCredential(credential.username, other.password)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("credential", [expired, tampered, foreign, prolonged, guessed])
async def test_t3_credentials(server, transport, credential):
    """T3, TURN-20: expired, tampered, another relay's, prolonged or guessed credentials: 401."""
    async with channel(server, transport) as connection:
        one = TURNClient(connection, credential())
        assert await one.allocate() == 401
        assert one.response.first(Type.NONCE)


async def test_t3_replay(server):
    """T3, TURN-21: a recorded request, or its nonce, is worth nothing from another address: 438."""
    a, _ = pair()
    async with at(server, "udp", a) as one, channel(server, "udp") as elsewhere:
        thief = TURNClient(elsewhere, a)
        for request in (one.signed(Method.ALLOCATE, UDP), one.signed(Method.REFRESH)):
            assert code_of(await thief.ask(request)) == 438
        thief.realm, thief.nonce = one.realm, one.nonce
        assert await thief.allocate() == 438
        assert await one.refresh(600) is None


async def test_t3_flood(server):
    """T3, TURN-22: floods of requests by nobody get short answers and take no memory."""
    bare = encode_message(Method.ALLOCATE, MessageClass.REQUEST, bytes(12), [UDP])
    async with call(server) as others:
        grown = []
        for _ in range(2):  # the first round warms up
            before = memory(server.pid)
            for _ in range(40):
                async with channel(server, "udp") as one:
                    for _ in range(50):
                        await one.send(bare)
                        with trio.fail_after(10):
                            assert len(await one.receive()) <= 100
            grown.append(memory(server.pid) - before)
            await assert_call(*others)
        assert grown[1] < 1_000_000


# T4, T5, T6.


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_t4_unknown_attributes(server, transport):
    """T4, TURN-05: unknown comprehension-required attributes are a 420 that lists each once."""
    a, _ = pair()
    async with at(server, transport, a) as one:
        unknown = [(0x7001, b"x"), (0x7002, b""), (0x7001, b"y"), (0x8F00, b"")]
        assert await one.request(Method.REFRESH, *unknown) == 420
        assert one.response.first(Type.UNKNOWN_ATTRIBUTES) == bytes.fromhex("70017002")
        binding = encode_message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), unknown)
        assert code_of(await one.ask(binding)) == 420
        assert await one.refresh(600) is None


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_t5_anothers_allocation(server, transport):
    """T5, TURN-15: another's allocation is not touched: 437 from elsewhere, 441 with its place."""
    a, b = pair()
    stranger, _ = pair()
    async with (
        at(server, transport, a) as owner,
        at(server, "udp", b) as peer,
        channel(server, transport) as elsewhere,
    ):
        thief = TURNClient(elsewhere, a)
        lodger = TURNClient(owner.channel, stranger)
        for intruder, code in ((thief, 437), (lodger, 441)):
            assert await intruder.refresh(0) == code
            assert await intruder.permit(peer.relayed) == code
            assert await intruder.bind(peer.relayed, 0x4000) == code
        assert await lodger.allocate() == 437
        assert await owner.refresh(600) is None


async def test_t6_without_permission(server):
    """T6, TURN-33: data without a permission at both ends is dropped."""
    a, b = pair()
    async with at(server, "udp", a) as one, at(server, "tcp", b) as two:
        await one.send_indication(two.relayed, b"too early")
        assert await one.bind(two.relayed, 0x4000) is None
        await one.channel_data(0x4000, b"too early")
        assert await one.refresh(600) is None
        assert await two.permit(one.relayed) is None
        await one.channel_data(0x4000, b"in time")
        assert b"in time" in await two.frame()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_t6_allocation_flood(server, transport):
    """T6, TURN-40: one credential has two allocations, the rest are 486; others are served."""
    a, b = pair()
    async with call(server) as others, contextlib.AsyncExitStack() as stack:
        codes = []
        while len(codes) < 30:
            connection = await stack.enter_async_context(channel(server, transport))
            code = await TURNClient(connection, a).allocate()
            if code != 437:  # else the port is that of an allocation which an earlier test left
                codes.append(code)
        assert codes == [None, None] + [486] * 28
        async with at(server, transport, b):
            await assert_call(*others)


# T7: slow and silent connections.


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_t7_half_frames(server, transport):
    """T7, TURN-72, TURN-73: connections that stop within a frame are closed after 10 s and hold
    little until then; whoever is connected with them goes on.
    """
    a, _ = pair()
    half = b"\x40\x00\x0f\xf0" + bytes(4000)
    async with (
        call(server, transport, "udp") as others,
        at(server, transport, a) as owner,
        contextlib.AsyncExitStack() as stack,
    ):
        before = memory(server.pid)
        connections = [
            await stack.enter_async_context(channel(server, transport)) for _ in range(100)
        ]
        start = trio.current_time()
        for connection in (*connections, owner.channel):
            await connection.stream.send_all(half)
        await assert_call(*others)
        # A TLS connection takes some 40 KB before a byte of it is TURN's.
        assert memory(server.pid) - before < 100 * 100_000
        with trio.fail_after(20):
            for connection in (*connections, owner.channel):
                assert await connection.receive() == b""
        assert 8 < trio.current_time() - start < 13
        await assert_call(*others)


# N1, M4: garbage.


async def test_n1_other_sources(server):
    """N1, TURN-33: ChannelData from a source that is not the client's reaches nobody."""
    async with call(server, "udp", "tcp") as others:
        for transport in TRANSPORTS:
            async with channel(server, transport) as injector:
                for _ in range(50):
                    await injector.send(b"\x40\x00\x00\x05wrong")
                await injector.send(BINDING)  # what was sent before has been dealt with
                with trio.fail_after(10):
                    assert (await injector.receive())[8:20] == BINDING[8:20]
        await assert_call(*others)


async def test_n1_garbage_floods(server):
    """N1, TURN-51: floods of noise take no memory and do not disturb a call."""
    async with call(server) as others, channel(server, "udp") as injector:
        before = memory(server.pid)
        for _ in range(40):
            for first in (0x00, 0x01, 0x16, 0x40, 0x4F, 0x80, 0xFF):
                for size in (0, 3, 20, 1200):
                    await injector.send(bytes((first,)) + os.urandom(size))
            await assert_call(*others)
        assert memory(server.pid) - before < 2_000_000


def real_messages(folder):
    """Yield STUN messages and ChannelData as RFC 5769, browsers and aioice sent them."""
    stun = folder / "stun-turn"
    for vector in json.loads((stun / "rfc5769.json").read_text())["vectors"]:
        yield bytes.fromhex(vector["hex"])
    for path in sorted((stun / "aioice").glob("*.bin")):
        yield path.read_bytes()
    for path in sorted((stun / "pion").glob("*.hex")):
        yield from map(bytes.fromhex, path.read_text().split())
    lines = (stun / "pion" / "frombrowsers.csv").read_text().splitlines()
    for line in [line for line in lines if not line.startswith("#")][1:]:
        yield base64.b64decode(line.split(",")[1])


async def test_m4_cut_and_flipped(server, vectors_dir):
    """M4, TURN-02: real messages, each cut and flipped, get an answer or none; a call goes on."""
    sent = 0
    async with call(server) as others, channel(server, "udp") as injector:
        for message in real_messages(vectors_dir):
            variants = [message[:length] for length in range(len(message))]
            for bit in range(min(len(message), 150) * 8):
                flipped = bytearray(message)
                flipped[bit // 8] ^= 1 << bit % 8
                variants.append(bytes(flipped))
            for number, variant in enumerate(variants):
                await injector.send(variant)
                if number % 100 == 0:  # no faster than it takes them
                    await assert_call(*others)
            sent += len(variants)
    assert sent > 5000


async def test_m4_cut_streams(server, vectors_dir):
    """M4, TURN-71: a stream that ends, or turns bad, anywhere in a message harms nobody."""
    async with call(server, "tcp", "tcp") as others:
        for message in list(real_messages(vectors_dir))[::4]:
            for length in range(1, min(len(message), 64), 7):
                async with channel(server, "tcp") as injector:
                    await injector.stream.send_all(message[:length] + b"\xff" * 8)
        await assert_call(*others)


@pytest.mark.parametrize("count", [33, 300])
async def test_m4_attribute_bombs(server, count):
    """M4, TURN-02: a message of many attributes is dropped, over-long padding or not."""
    body = b"\x80\x22\0\0" * count
    bomb = b"\0\x01" + len(body).to_bytes(2) + BINDING[4:20] + body
    async with channel(server, "udp") as one:
        await one.send(bomb)
        await one.send(bomb[:2] + (len(body) + 4).to_bytes(2) + bomb[4:])
        await one.send(BINDING)
        with trio.fail_after(10):
            assert parse_message(await one.receive()).transaction_id == BINDING[8:20]
