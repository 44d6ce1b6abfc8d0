"""Clients that come back (spec/wire.md, Staying connected)."""

import contextlib
import random
import time
from contextlib import asynccontextmanager

import pytest
import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from e2ecall import Client
from relay.wire.messages import Deliver, Done, Login
from tests.integration.people import fresh, texts

pytestmark = pytest.mark.trio

CROWD = 500
REFUSALS = (OSError, TimeoutError, trio.BrokenResourceError, ConnectionClosed, InvalidHandshake)
ONE_WAY = 0.1
"""Seconds that the network of these tests takes in each direction."""
ENVELOPE = 4000
"""More bytes than anything but an envelope has here."""


@pytest.mark.timeout(240)
async def test_everybody_at_once(start_relay, speak, tmp_path, username):
    """F4: 500 clients whose relay was killed come back at once; each is logged in and gets the mail
    that waited for it.
    """
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data)
    people, served, complete = [], [], trio.Event()

    async def join(number):
        async with speak.registered(relay.url, f"{username}_{number}", prekeys=False) as (_, one):
            people.append(one)
            if len(people) == CROWD:
                complete.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for number in range(CROWD):
            nursery.start_soon(join, number)
        with trio.fail_after(60):
            await complete.wait()
        async with speak.wire(relay.url) as sender:
            for one in people:
                letter = speak.letter(one.username, one.username.encode())
                assert await sender.request(letter) == Done()
        relay.kill()
        nursery.cancel_scope.cancel()

    again = start_relay("--data-dir", data, "--signalling", relay.name)

    async def come_back(one):
        # As a client does: a handshake that took too long is begun anew, a little later.
        while True:
            with contextlib.suppress(*REFUSALS):
                async with speak.wire(again.url) as client:
                    assert await client.request(one.login(client.hello)) == Done()
                    assert await client.deliveries(1) == [one.username.encode()]
                    served.append(one.username)
                    return
            await trio.sleep(random.uniform(0.1, 1))

    start = time.monotonic()
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            for one in people:
                nursery.start_soon(come_back, one)
    print(f"{CROWD} clients were back after {time.monotonic() - start:.1f} s")
    assert sorted(served) == sorted(one.username for one in people)
    assert again.terminate()[0] == 0
    assert "Traceback" not in again.log.read_text()


class SlowNetwork:
    """A TCP path with a delay; keeps which way the bytes of each connection went."""

    def __init__(self, listener):
        self.listener = listener
        self.name = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        self.target = None
        self.connections = []
        self._scopes = []

    async def serve(self):
        await trio.serve_listeners(self._handle, [self.listener])

    def cut(self):
        """Break every connection, as a change of network does."""
        for scope in self._scopes:
            scope.cancel()
        self._scopes.clear()

    async def _handle(self, client):
        log = []
        self.connections.append(log)
        with trio.CancelScope() as scope:
            self._scopes.append(scope)
            relay = await trio.open_tcp_stream(*self.target)
            async with client, relay, trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, client, relay, "up", log, nursery)
                nursery.start_soon(self._carry, relay, client, "down", log, nursery)

    async def _carry(self, source, sink, way, log, nursery):
        send, receive = trio.open_memory_channel(1000)

        async def deliver():
            async for due, data in receive:
                await trio.sleep_until(due)
                await sink.send_all(data)
                log.append((way, len(data), trio.current_time()))

        nursery.start_soon(deliver)
        try:
            async for data in source:
                await send.send((trio.current_time() + ONE_WAY, data))
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def slow_network():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    network = SlowNetwork(listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.serve)
        yield network
        nursery.cancel_scope.cancel()


def has_mail(log):
    return any(way == "down" and size > ENVELOPE for way, size, _ in log)


def flights(log):
    """Return how often the client had to speak before the first envelope came down."""
    ways = []
    for way, size, _ in log:
        if not ways or ways[-1] != way:
            ways.append(way)
        if way == "down" and size > ENVELOPE:
            return ways.count("up")
    raise AssertionError("no envelope came")


async def test_one_round_trip(start_relay, tmp_path):
    """After a change of network a client has its waiting mail one round trip after the connection
    stands: it speaks twice, for the WebSocket handshake and for the log-in.
    """
    async with slow_network() as network:
        environment = {"RELAY__RELAY__NAME": network.name}
        relay = start_relay(environment=environment)
        network.target = relay.address
        url = f"ws://{network.name}"
        stores = {"passphrase": "x", "relay": url}
        async with (
            Client.open(tmp_path / "a.db", **stores) as alice,
            Client.open(tmp_path / "b.db", **stores) as bob,
        ):
            await alice.register(fresh("alice"))
            await bob.register(fresh("bob"))
            await bob.message(alice.address, "before")
            assert [text.text for text in await texts(alice, 1)] == ["before"]
            count = len(network.connections)
            network.cut()
            await bob.message(alice.address, "after")
            assert [text.text for text in await texts(alice, 2)] == ["before", "after"]
            logs = [
                log
                for log in network.connections[count:]
                if any(s > ENVELOPE and w == "down" for w, s, _ in log)
            ]
            assert [flights(log) for log in logs] == [2]
            (log,) = logs
            opened = next(at for way, _, at in log if way == "down")
            came = next(at for way, size, at in log if way == "down" and size > ENVELOPE)
            print(f"log-in and mail: {(came - opened) / (2 * ONE_WAY):.2f} round trips")
    assert relay.terminate()[0] == 0


async def test_log_in_brings_the_mail(start_relay, speak, username):
    """After Login, waiting mail comes without the client saying anything more."""
    relay = start_relay()
    async with speak.registered(relay.url, username, prekeys=False) as (client, one):
        pass
    async with speak.wire(relay.url) as sender:
        for _ in range(3):
            assert await sender.request(speak.letter(username)) == Done()
    async with speak.wire(relay.url) as client:
        login = one.login(client.hello)
        assert isinstance(login, Login)
        assert await client.request(login) == Done()
        with trio.fail_after(10):
            assert [type(await client.push()) for _ in range(3)] == [Deliver] * 3
    assert relay.terminate()[0] == 0
