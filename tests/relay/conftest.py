"""A relay as a child process, and a bare client that speaks the wire format and nothing more."""

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from nacl.signing import SigningKey
from websockets.trio.client import connect

from relay.wire.codec import decode, encode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import (
    AccountRecipient,
    Ack,
    Binding,
    ClientFrame,
    Deliver,
    Done,
    Hello,
    Login,
    PublishPrekeys,
    Register,
    Send,
    ServerFrame,
)
from relay.wire.records import (
    PREKEY_BYTES,
    Device,
    DeviceList,
    PreKey,
    PreKeyKind,
    SignedDeviceList,
    bound_challenge,
    device_list_bytes,
    device_list_hash,
    endpoint_hash,
    login_bytes,
    prekey_bytes,
    register_bytes,
)
from tests.relay.cluster import Cluster

START_SECONDS = 60
POSTGRES = pytest.mark.system("postgres", "initdb")
DAY = 86_400


class RelayProcess:
    """``e2ecall-relay serve`` as a child."""

    def __init__(self, folder, *arguments, dev=True, environment=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "stderr.log"
        command = [sys.executable, "-m", "relay.cli", "serve", *(["--dev"] if dev else [])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=log,
                # A relay that is killed leaves its temporary folder: in the test's own.
                env={**os.environ, "TMPDIR": str(self.folder), **(environment or {})},
            )
        self.ready = self._first_line()
        self.url = self.ready["signalling"]
        self.name = self.url.split("/")[2]

    def _first_line(self):
        readable, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            pytest.fail(f"the relay did not start: {self.log.read_text()}")
        return json.loads(line)

    @property
    def address(self):
        host, _, port = self.name.rpartition(":")
        return host, int(port)

    @property
    def is_alive(self):
        return self.process.poll() is None

    def terminate(self):
        """Ask it to stop; return exit code and seconds."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=20)
        self.process.stdout.close()
        return code, time.monotonic() - start

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Identity:
    """Keys of an account with one or more devices, and what they sign."""

    def __init__(self, username, relay):
        self.username, self.relay = username, relay
        self.key = SigningKey.generate()
        self.devices = {1: SigningKey.generate()}
        self.records = {1: self.record(1)}
        self.version, self.previous = 1, b""

    @property
    def address(self):
        return f"{self.username}@{self.relay}"

    def record(self, device_id):
        return Device(device_id, bytes(self.devices[device_id].verify_key), os.urandom(32))

    def device_list(self, **changes):
        fields = {
            "address": self.address,
            "identity_key": bytes(self.key.verify_key),
            "version": self.version,
            "previous": self.previous,
            "devices": tuple(self.records.values()),
            "expires": int(time.time()) + 18 * DAY,
        }
        body = encode(DeviceList(**{**fields, **changes}))
        message = device_list_bytes(SignedDeviceList(body, bytes(64)))
        return SignedDeviceList(body, self.key.sign(message).signature)

    def next_list(self, current, **changes):
        self.version += 1
        self.previous = device_list_hash(current)
        return self.device_list(**changes)

    def register(self, hello, device_list=None, *, code=None):
        signed = device_list or self.device_list()
        message = register_bytes(hello.relay, hello.challenge, signed)
        return Register(self.username, signed, self.key.sign(message).signature, code)

    def login(self, hello, device_id=1):
        message = login_bytes(hello.relay, hello.challenge, self.username, device_id)
        signature = self.devices[device_id].sign(message).signature
        return Login(self.username, device_id, signature)

    def prekey(self, kind, key_id, *, device_id=1, expires=None, **changes):
        fields = {
            "kind": kind,
            "key_id": key_id,
            "expires": expires or int(time.time()) + 18 * DAY,
            "key": os.urandom(PREKEY_BYTES[kind]),
        }
        unsigned = PreKey(**{**fields, **changes}, signature=bytes(64))
        message = prekey_bytes(self.address, device_id, unsigned)
        signature = self.devices[device_id].sign(message).signature
        return PreKey(unsigned.kind, unsigned.key_id, unsigned.expires, unsigned.key, signature)

    def basic_prekeys(self, *, last_resort=True):
        kinds = [PreKeyKind.SIGNED_X25519, PreKeyKind.SEALING]
        if last_resort:
            kinds.append(PreKeyKind.LAST_RESORT_MLKEM1024)
        return tuple(self.prekey(kind, number) for number, kind in enumerate(kinds, 1))

    def one_time(self, kind, first, count):
        return tuple(self.prekey(kind, first + offset) for offset in range(count))


class Wire:
    """One connection; requests are answered in order, pushes are kept in between."""

    def __init__(self, socket):
        self.socket = socket
        self.pushes = deque()
        self.hello = self.bare_challenge = None
        self._id = 0

    async def frame(self):
        data = await self.socket.recv()
        return decode(data, ServerFrame, limit=2 * MAX_FRAME)

    async def send(self, body):
        self._id += 1
        await self.socket.send(encode(ClientFrame(self._id, body)))
        return self._id

    async def reply(self, request_id):
        while True:
            frame = await self.frame()
            if frame.id == 0:
                self.pushes.append(frame.body)
                continue
            assert frame.id == request_id
            return frame.body

    async def request(self, body):
        return await self.reply(await self.send(body))

    async def push(self):
        if self.pushes:
            return self.pushes.popleft()
        frame = await self.frame()
        assert frame.id == 0
        return frame.body

    async def deliveries(self, count):
        """Receive and acknowledge ``count`` envelopes."""
        envelopes = []
        for _ in range(count):
            push = await self.push()
            assert isinstance(push, Deliver)
            envelopes.append(push.envelope)
            assert await self.request(Ack((push.delivery_id,))) == Done()
        return envelopes


@contextlib.asynccontextmanager
async def wire(url, *, ssl=None, origin=None):
    options = {"compression": None, "max_size": 2 * MAX_FRAME}
    async with connect(url, ssl=ssl, origin=origin, **options) as socket:
        client = Wire(socket)
        hello = (await client.frame()).body
        assert isinstance(hello, Hello)
        client.hello, client.bare_challenge = bound(hello, socket), hello.challenge
        yield client


def bound(hello, socket):
    """Return Hello with the challenge that log-ins sign, by WIRE-45."""
    if hello.binding is Binding.NONE:
        return hello
    endpoint = endpoint_hash(socket.stream.getpeercert(binary_form=True))
    return replace(hello, challenge=bound_challenge(hello.challenge, endpoint))


@contextlib.asynccontextmanager
async def registered(url, username, *, prekeys=True):
    """Give a logged-in connection of a new account with its identity."""
    async with wire(url) as client:
        identity = Identity(username, client.hello.relay)
        assert await client.request(identity.register(client.hello)) == Done()
        if prekeys:
            assert await client.request(PublishPrekeys(identity.basic_prekeys())) == Done()
        yield client, identity


def letter(username, envelope=b"sealed", *, message_id=None, token=None, device_id=1):
    """Return a Send to an account."""
    recipient = AccountRecipient(username, device_id)
    return Send(recipient, message_id or os.urandom(16), envelope, token)


def token_hash(token):
    return hashlib.sha256(token).digest()


@pytest.fixture
def start_relay(tmp_path):
    """Start relays with the arguments given; whatever is left of them is killed."""
    started = []

    def start(*arguments, **options):
        folder = tmp_path / f"relay-{len(started)}"
        started.append(RelayProcess(folder, *arguments, **options))
        return started[-1]

    yield start
    for process in started:
        if process.is_alive:
            process.kill()


@pytest.fixture(scope="session")
def relay(tmp_path_factory):
    """One relay for all tests that do not stop it; usernames keep them apart."""
    process = RelayProcess(tmp_path_factory.mktemp("relay"))
    yield process
    assert process.is_alive
    code, _ = process.terminate()
    assert code == 0
    assert "Traceback" not in process.log.read_text()


@pytest.fixture(scope="session")
def cluster(require_program):
    """A PostgreSQL server; tests that use it are marked POSTGRES."""
    server = Cluster(require_program)
    yield server
    server.close()


@pytest.fixture
def username():
    """A username that no other test uses."""
    return "u" + os.urandom(8).hex()


@pytest.fixture(scope="session")
def speak():
    """Give the helpers of this file."""
    return SimpleNamespace(
        Identity=Identity,
        Wire=Wire,
        wire=wire,
        registered=registered,
        letter=letter,
        token_hash=token_hash,
    )
