"""Several relay processes over one database, as clients see them (spec/wire.md, Storage)."""

import signal
import time

import psycopg
import pytest
import trio
from websockets.exceptions import ConnectionClosed

from relay.wire.messages import (
    Bundle,
    Displaced,
    Done,
    ErrorCode,
    Failure,
    FetchBundle,
    MediaTicket,
    OpenBox,
    PublishPrekeys,
)
from relay.wire.records import PreKeyKind
from relay.wire.turn_servers import urls_for
from tests.relay.cluster import Cluster
from tests.relay.conftest import POSTGRES, Identity, letter, wire
from tests.relay.killrounds import Relays, kill_rounds
from tests.relay.nodes import NAME, node_config
from tests.relay.readiness import becomes, http_status

pytestmark = pytest.mark.trio


@pytest.fixture
def dsn(cluster):
    return cluster.database()


@pytest.fixture
def start_node(start_relay, tmp_path, dsn):
    """Start nodes of one relay, by name, with what the environment sets for them."""

    def start(name, **environment):
        config = node_config(tmp_path / name, name, dsn)
        return start_relay("--config", config, dev=False, environment=environment)

    return start


@pytest.fixture
def pair(start_node):
    """Two nodes of one relay."""
    return [start_node(name) for name in ("north", "south")]


async def register(client, username="somebody"):
    identity = Identity(username, NAME)
    assert await client.request(identity.register(client.hello)) == Done()
    assert await client.request(PublishPrekeys(identity.basic_prekeys())) == Done()
    return identity


@POSTGRES
async def test_any_node_serves_any_user(pair):
    """STORAGE-06: what is sent at one node arrives at once at the other, to devices and boxes."""
    north, south = pair
    async with wire(north.url) as owner, wire(south.url) as sender:
        await register(owner)
        box = (await owner.request(OpenBox(bytes(32)))).box
        for number in range(20):
            start = time.monotonic()
            envelope = b"%d" % number
            assert await sender.request(letter("somebody", envelope)) == Done()
            assert await owner.deliveries(1) == [envelope]
            assert time.monotonic() - start < 5
        assert len(box) == 32
        assert isinstance(await sender.request(FetchBundle("somebody", None, None)), Bundle)


@POSTGRES
async def test_displaced_at_another_node(pair):
    """WIRE-07, STORAGE-04: a log-in at one node ends the device's connection at the other."""
    north, south = pair
    async with wire(north.url) as before, wire(south.url) as after:
        identity = await register(before)
        assert await after.request(identity.login(after.hello)) == Done()
        with trio.fail_after(10):
            assert await before.push() == Displaced()
            with pytest.raises(ConnectionClosed):
                await before.push()
        assert before.socket.close_code == 4001
        assert await after.request(letter("somebody", b"for the second")) == Done()
        assert await after.deliveries(1) == [b"for the second"]


@POSTGRES
async def test_a_node_dies(pair, dsn):
    """STORAGE-10, F1: a node that dies is noticed within 15 s, and takes nothing with it."""
    north, south = pair
    async with wire(north.url) as owner, wire(north.url) as sender:
        identity = await register(owner)
        for number in range(10):
            assert await sender.request(letter("somebody", b"%d" % number)) == Done()
        start = time.monotonic()
        await trio.to_thread.run_sync(north.kill)
    async with wire(south.url) as owner:
        assert await owner.request(identity.login(owner.hello)) == Done()
        assert await owner.deliveries(10) == [b"%d" % number for number in range(10)]

    def nodes():
        with psycopg.connect(dsn) as connection:
            return connection.execute("SELECT name FROM nodes").fetchall()

    while await trio.to_thread.run_sync(nodes) != [("south",)]:
        assert time.monotonic() - start < 15
        await trio.sleep(0.1)
    assert await http_status(south) == 200


@POSTGRES
async def test_w4_a_hundred_takers(pair):
    """W4, STORAGE-02: of 100 clients at two nodes that take at once no two get the same prekey."""
    north = pair[0]
    kinds = (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024)
    async with wire(north.url) as owner:
        identity = await register(owner)
        for kind in kinds:
            for first in (1, 26, 51, 76):
                batch = identity.one_time(kind, first, 25)
                assert await owner.request(PublishPrekeys(batch)) == Done()
    bundles, ready, go = [], [], trio.Event()

    async def take(relay):
        async with wire(relay.url) as client:
            ready.append(relay)
            if len(ready) == 100:
                go.set()
            await go.wait()
            bundles.append((await client.request(FetchBundle("somebody", None, None))).bundle)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(take, pair[number % 2])
    assert len({bundle.one_time_prekey.key_id for bundle in bundles}) == 100
    assert len({bundle.kem_prekey.key_id for bundle in bundles}) == 100
    assert {bundle.kem_prekey.kind for bundle in bundles} == {kinds[1]}


@POSTGRES
async def test_a_shared_rate(start_node):
    """STORAGE-07: media tickets are counted per account over all nodes."""
    north, south = (
        start_node(name, RELAY__LIMITS__TICKETS_PER_ACCOUNT_AND_HOUR="3")
        for name in ("north", "south")
    )
    async with wire(north.url) as first, wire(south.url) as second:
        identity = await register(first)
        for _ in range(3):
            assert not isinstance(await first.request(MediaTicket()), Failure)
        assert await second.request(identity.login(second.hello)) == Done()
        refused = await second.request(MediaTicket())
        assert refused.code is ErrorCode.TOO_MANY


@POSTGRES
async def test_tickets_name_their_node(start_node):
    """TICKET-07: whoever asks, both sides of a node's tickets go to this node's TURN server."""
    urls = ("turn:127.0.0.1:3478", "turn:127.0.0.2:3478")
    for number, node in enumerate(("north", "south")):
        relay = start_node(
            node,
            RELAY__TURN__URLS=",".join(urls),
            RELAY__TURN__OWN_HOST=f"127.0.0.{number + 1}",
        )
        async with wire(relay.url) as client:
            await register(client, f"user_of_{node}")
            assert client.hello.turn == urls
            for _ in range(5):
                ticket = await client.request(MediaTicket())
                for side in (ticket.a, ticket.b):
                    assert urls_for(urls, side.username) == (urls[number],)


@POSTGRES
async def test_readiness_follows_the_database(start_relay, tmp_path, require_program):
    """F2, STORAGE-09: a node whose database is gone says RETRY and not ready, and recovers."""
    cluster = Cluster(require_program)
    try:
        config = node_config(tmp_path / "north", "north", cluster.database())
        relay = start_relay("--config", config, dev=False)
        async with wire(relay.url) as sender:
            async with wire(relay.url) as owner:
                identity = await register(owner)
            assert await sender.request(letter("somebody", b"before")) == Done()
            await trio.to_thread.run_sync(cluster.stop)
            message = letter("somebody", b"after")
            refused = await sender.request(message)
            assert refused.code is ErrorCode.RETRY
            await becomes(relay, 503)
            assert await http_status(relay, "/healthz") == 200
            await trio.to_thread.run_sync(cluster.start)
            await becomes(relay, 200)
            with trio.fail_after(60):
                # Some connections to the database may still be those that broke.
                while await sender.request(message) != Done():  # noqa: ASYNC110 - another process
                    await trio.sleep(0.05)
        async with wire(relay.url) as owner:
            assert await owner.request(identity.login(owner.hello)) == Done()
            assert await owner.deliveries(2) == [b"before", b"after"]
        assert relay.terminate()[0] == 0
        assert "Traceback" not in relay.log.read_text()
    finally:
        cluster.close()


@POSTGRES
async def test_a_database_that_hangs(start_node, cluster):
    """F2, STORAGE-08, STORAGE-09: where the database stands still, requests are told to come again
    and the node is not ready; it recovers, and what was sent comes once.
    """
    relay = start_node("north")
    async with wire(relay.url) as owner, wire(relay.url) as sender:
        identity = await register(owner)
        assert await sender.request(letter("somebody", b"before")) == Done()
        assert await owner.deliveries(1) == [b"before"]
        message = letter("somebody", b"after")
        cluster.pause()
        try:
            with trio.fail_after(60):
                assert (await sender.request(message)).code is ErrorCode.RETRY
            await becomes(relay, 503)
        finally:
            cluster.resume()
        await becomes(relay, 200)
        with trio.fail_after(60):
            while await sender.request(message) != Done():  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)
    with trio.fail_after(60):
        async with wire(relay.url) as owner:
            assert await owner.request(identity.login(owner.hello)) == Done()
            assert await owner.request(letter("somebody", b"the end")) == Done()
            assert await owner.deliveries(2) == [b"after", b"the end"]


@POSTGRES
async def test_stops_while_the_database_hangs(start_node, cluster):
    """F2, F3: a node whose database stands still stops when it is told to."""
    relay = start_node("north")
    async with wire(relay.url) as owner:
        await register(owner)
        cluster.pause()
        try:
            await owner.send(letter("somebody", b"never told"))
            relay.process.send_signal(signal.SIGTERM)
            with trio.fail_after(60):
                assert await trio.to_thread.run_sync(relay.process.wait) == 0
        finally:
            cluster.resume()
            relay.process.stdout.close()


async def test_f1_killed_under_load(server, tmp_path):
    """F1: what is killed under load loses nothing that it acknowledged, and gives nothing twice."""
    relays = Relays(tmp_path, server)
    try:
        count = await kill_rounds(relays, 3, 0.5)
    finally:
        relays.close()
    assert count.rounds == 3
    assert (count.lost, count.twice) == (0, 0)
    assert count.acknowledged >= 16
