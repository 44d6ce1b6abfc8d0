"""A TURN core with a virtual clock, and clients that check every answer with aioice's STUN code."""

import base64
import contextlib
import hmac
import itertools
import json
import os
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import aioice.stun
import pytest
import trio

from relay.io.datagram import open_socket, serve_turn
from relay.turn.attributes import AttributeType as Type
from relay.turn.attributes import TransportAddress, encode_lifetime, encode_xor_address
from relay.turn.auth import long_term_key
from relay.turn.limits import Limits
from relay.turn.server import TURNServer
from relay.turn.stun import MessageClass, Method, encode_message, parse_message

NOW = 1_800_000_000.0
UDP = (Type.REQUESTED_TRANSPORT, bytes((17, 0, 0, 0)))
SECRET = b"the relay's TURN secret"


@dataclass(frozen=True)
class Identity:
    ticket_id: bytes
    side: int
    expires: int


def identify(username, now):
    """Read ``<expiry>:<ticket>-<side>``: the form of real usernames, without the disguise."""
    try:
        expiry, rest = username.split(":")
        ticket, side = rest.split("-")
        identity = Identity(ticket.encode(), "ab".index(side), int(expiry))
    except ValueError:
        return None
    return identity if now < identity.expires else None


def password(username):
    return base64.b64encode(hmac.digest(SECRET, username.encode(), "sha1")).decode()


def make_core(**options):
    return TURNServer(identify=identify, password=password, nonce_key=bytes(32), **options)


class World:
    """The core, a clock, and any number of clients."""

    def __init__(self, **limits):
        self.limits = Limits(**{"allocations_per_address": 1000, **limits})
        self.core = make_core(limits=self.limits)
        self.now = NOW
        self._ports = itertools.count(20_000)

    def client(self, ticket="ticket", side="a", *, expires_in=7200, address=None):
        username = f"{int(self.now) + expires_in}:{ticket}-{side}"
        five_tuple = (0, address or ("192.0.2.1", next(self._ports)))
        return Client(self, five_tuple, username, password(username))

    def pair(self, **options):
        """Give two clients with allocations, one for each side of a ticket."""
        first, second = self.client(side="a", **options), self.client(side="b", **options)
        first.allocate()
        second.allocate()
        return first, second

    def bound_pair(self):
        """Give two clients that have bound channels 0x4000 and 0x4001 to one another."""
        first, second = self.pair()
        assert first.bind(second.relayed, 0x4000).error_code is None
        assert second.bind(first.relayed, 0x4001).error_code is None
        return first, second

    def pass_time(self, seconds):
        self.now += seconds
        self.core.expire(self.now)


class Client:
    """A TURN client; ``relayed`` is its address as (host, port) once it has allocated."""

    def __init__(self, world, five_tuple, username, password):
        self.world = world
        self.five_tuple = five_tuple
        self.username = username
        self.password = password
        self.realm = self.nonce = None
        self.relayed = None

    def send(self, datagram):
        return self.world.core.receive(self.world.now, self.five_tuple, datagram)

    def signed(self, method, attributes, *, transaction_id=None, fingerprint=True):
        """Give the bytes of a request under the last nonce; get a nonce first if need be."""
        if self.nonce is None:
            self.challenge()
        return encode_message(
            method,
            MessageClass.REQUEST,
            transaction_id or os.urandom(12),
            [
                *attributes,
                (Type.USERNAME, self.username.encode()),
                (Type.REALM, self.realm),
                (Type.NONCE, self.nonce),
            ],
            key=long_term_key(self.username, self.realm.decode(), self.password),
            fingerprint=fingerprint,
        )

    def challenge(self):
        bare = encode_message(Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), [UDP])
        ((_, reply),) = self.send(bare)
        self.realm = parse_message(reply).first(Type.REALM)
        self.nonce = parse_message(reply).first(Type.NONCE)

    def request(self, method, *attributes, **options):
        """Send a signed request and give the response, read and verified by aioice."""
        return self.answer(self.signed(method, attributes, **options))

    def answer(self, datagram):
        ((five_tuple, reply),) = self.send(datagram)
        assert five_tuple == self.five_tuple
        message = aioice.stun.parse_message(reply)
        assert message.transaction_id == datagram[8:20]
        if message.error_code not in {401, 438}:
            key = long_term_key(self.username, "e2ecall", self.password)
            assert message.check_message_integrity(key)
        message.raw = reply
        return message

    def allocate(self, *attributes, **options):
        response = self.request(Method.ALLOCATE, UDP, *attributes, **options)
        if response.error_code is None:
            self.relayed = response.attributes["XOR-RELAYED-ADDRESS"]
        return response

    def refresh(self, lifetime):
        return self.request(Method.REFRESH, (Type.LIFETIME, encode_lifetime(lifetime)))

    def permit(self, *peers):
        transaction_id = os.urandom(12)
        values = [(Type.XOR_PEER_ADDRESS, xor(peer, transaction_id)) for peer in peers]
        return self.request(Method.CREATE_PERMISSION, *values, transaction_id=transaction_id)

    def bind(self, peer, number):
        transaction_id = os.urandom(12)
        return self.request(
            Method.CHANNEL_BIND,
            (Type.CHANNEL_NUMBER, number.to_bytes(2) + bytes(2)),
            (Type.XOR_PEER_ADDRESS, xor(peer, transaction_id)),
            transaction_id=transaction_id,
        )

    def send_indication(self, peer, data, *extra):
        transaction_id = os.urandom(12)
        values = [(Type.XOR_PEER_ADDRESS, xor(peer, transaction_id)), (Type.DATA, data), *extra]
        return self.send(
            encode_message(Method.SEND, MessageClass.INDICATION, transaction_id, values)
        )

    def channel_data(self, number, data, padding=b""):
        return self.send(number.to_bytes(2) + len(data).to_bytes(2) + data + padding)


def xor(peer, transaction_id):
    return encode_xor_address(TransportAddress.parse(*peer), transaction_id)


@contextlib.contextmanager
def running(core, *, capture=None):
    """Serve ``core`` on a loopback port, by trio in a thread of its own; give the address."""
    started, state = threading.Event(), {}

    async def main():
        sock = open_socket("127.0.0.1", 0)
        state["address"] = sock.getsockname()
        state["token"] = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as state["scope"]:
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    lambda task_status: serve_turn(
                        [sock], core, capture=capture, task_status=task_status
                    )
                )
                started.set()

    def run():
        try:
            trio.run(main)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="turn-server")
    thread.start()
    try:
        started.wait()
        yield state["address"]
    finally:
        state["token"].run_sync_soon(state["scope"].cancel)
        thread.join()


@pytest.fixture
def world():
    return World()


@pytest.fixture
def turn():
    """Give the helpers of this file to tests that need more than one world."""
    return SimpleNamespace(
        World=World, make_core=make_core, running=running, password=password, NOW=NOW, UDP=UDP
    )


@pytest.fixture(scope="session")
def captured(vectors_dir):
    """Give real STUN messages and ChannelData by name: RFC 5769, browsers, aioice."""
    folder = vectors_dir / "stun-turn"
    found = {
        f"rfc5769-{vector['section']}": bytes.fromhex(vector["hex"])
        for vector in json.loads((folder / "rfc5769.json").read_text())["vectors"]
    }
    for path in sorted((folder / "aioice").glob("*.bin")):
        found[path.stem] = path.read_bytes()
    for path in sorted((folder / "pion").glob("*.hex")):
        for number, line in enumerate(path.read_text().split()):
            found[f"{path.stem}-{number}"] = bytes.fromhex(line)
    lines = (folder / "pion" / "frombrowsers.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines if not line.startswith("#")][1:]
    for number, row in enumerate(rows):
        found[f"browser-{number}"] = base64.b64decode(row[1])
    return found


@pytest.fixture(scope="session")
def rfc5769(vectors_dir):
    path = vectors_dir / "stun-turn" / "rfc5769.json"
    return {v["section"]: v for v in json.loads(path.read_text())["vectors"]}


@pytest.fixture(scope="session")
def fuzz_corpus(vectors_dir):
    """Give byte strings that once upset other parsers."""
    entries = json.loads((vectors_dir / "stun-turn" / "pion-fuzz-corpus.json").read_text())
    texts = [argument for e in entries for argument in e["args"] if isinstance(argument, str)]
    return [bytes.fromhex(text) for text in texts]
