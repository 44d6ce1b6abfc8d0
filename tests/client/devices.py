"""Devices with real stores, accounts and sessions, at a directory that does what a test wants."""

from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import msgspec

from e2ecall.client.account import Account
from e2ecall.client.moving import changes
from e2ecall.client.sessions import Sessions
from e2ecall.errors import ConnectionFailedError, RelayError
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.store import Store
from e2ecall.protocol import session
from e2ecall.protocol.messages import Payload, PayloadKind, encode_payload
from e2ecall.secret import Secret
from relay.errors import RefusedError
from relay.services import directory
from relay.services.signatures import RelayKey
from relay.wire.messages import (
    Certificate,
    Done,
    Enrol,
    FetchCertificate,
    FetchOwnList,
    Hello,
    Login,
    OwnList,
    PrekeyCounts,
    PrekeyStatus,
    PublishPrekeys,
    Register,
    UpdateDeviceList,
)
from relay.wire.records import PreKeyBundle, PreKeyKind
from tests.protocol.conftest import NOW, Endpoint

RELAY = "relay.example"
DAY = 86_400
HOUR = 3_600


class Directory:
    """The accounts of one relay, without the network; ``lost`` are requests that do not arrive."""

    def __init__(self):
        self.now = NOW
        self.key = RelayKey.generate()
        self.hello = Hello(1, RELAY, self.key.public, bytes(32), (), 0, 0)
        self.accounts, self.prekeys = {}, {}
        self.lost = set()
        self.counts = None
        self.fetches = 0

    def clock(self):
        return self.now

    def ask(self, username):
        async def ask(body, _kind, /):
            await anyio.lowlevel.checkpoint()
            if type(body) in self.lost:
                raise ConnectionFailedError("the request is lost")
            try:
                return self.answer(username, body)
            except RefusedError as error:
                raise RelayError(str(error)) from error

        return ask

    def answer(self, username, body):
        account = self.accounts.get(username)
        match body:
            case Register():
                self.accounts[username] = directory.register(
                    body, relay=RELAY, challenge=self.hello.challenge, now=self.now
                )
                self.prekeys[username] = []
            case Login():
                directory.log_in(
                    account, body, relay=RELAY, challenge=self.hello.challenge,
                    nobody=self.key.public,
                )  # fmt: skip
            case FetchOwnList():
                known = directory.recovered(
                    account, body, relay=RELAY, challenge=self.hello.challenge,
                    nobody=self.key.public,
                )  # fmt: skip
                return OwnList(known.signed_list, known.newest_device_id)
            case Enrol():
                new = directory.enrolled(
                    account, body, relay=RELAY, challenge=self.hello.challenge,
                    nobody=self.key.public, now=self.now,
                )  # fmt: skip
                if new is not account:
                    self.accounts[username], self.prekeys[username] = new, []
            case UpdateDeviceList(device_list):
                new = directory.updated(account, device_list, relay=RELAY, now=self.now)
                self.accounts[username] = new
            case FetchCertificate():
                return Certificate(directory.certify(self.key, account, now=self.now))
            case PrekeyStatus():
                return self.counts or PrekeyCounts(
                    *(sum(key.kind == kind for key in self.prekeys[username]) for kind in (3, 4))
                )
            case PublishPrekeys(prekeys):
                self.prekeys[username] += directory.check_prekeys(
                    prekeys,
                    address=f"{username}@{RELAY}",
                    device=account.device_list.devices[0],
                    now=self.now,
                )
        return Done()

    def bundle(self, username, *, one_time=True):
        def newest(kind):
            return [key for key in self.prekeys[username] if key.kind == kind][-1]

        def take(kind):
            found = [key for key in self.prekeys[username] if key.kind == kind and one_time]
            if found:
                self.prekeys[username].remove(found[0])
            return found[0] if found else None

        account = self.accounts[username]
        return PreKeyBundle(
            account.signed_list,
            account.device_list.devices[0].device_id,
            newest(PreKeyKind.SIGNED_X25519),
            newest(PreKeyKind.SEALING),
            take(PreKeyKind.ONE_TIME_MLKEM1024) or newest(PreKeyKind.LAST_RESORT_MLKEM1024),
            take(PreKeyKind.ONE_TIME_X25519),
        )

    async def fetch(self, address, _token):
        self.fetches += 1
        await anyio.lowlevel.checkpoint()
        return self.bundle(address.username)


class Connection:
    """What `Account.prepare` uses of a connection."""

    def __init__(self, directory, username):
        self.hello, self.challenge = directory.hello, directory.hello.challenge
        self.endpoint = RelayEndpoint.of_name(RELAY)
        self.request = directory.ask(username)


class Device:
    """The client of one person, without lines, calls and tasks."""

    def __init__(self, directory, username, path):
        self.directory, self.username, self.path = directory, username, path

    async def open(self):
        self.store = await Store.open(self.path, Secret(b"x"))
        self.account = Account(self.store, self.directory.clock)
        self.sessions = Sessions(self.store, self.account, self.directory.clock)

    async def reopen(self):
        await self.store.aclose()
        await self.open()

    async def register(self):
        connection = Connection(self.directory, self.username)
        await self.account.begin_registration(self.username, RELAY)
        await self.sessions.trust_relay(connection.endpoint, connection.hello)
        await self.account.prepare(connection)

    async def take_over(self, moved):
        """Import an exported account."""
        connection = Connection(self.directory, self.username)
        await self.account.begin_import(moved, changes(moved))
        await self.sessions.trust_relay(connection.endpoint, connection.hello)
        await self.account.prepare(connection)

    @property
    def address(self):
        return self.account.local.address

    async def maintain(self):
        await self.account.maintain(self.directory.ask(self.username))

    async def seal(self, to, text, *, kind=PayloadKind.TEXT, fetch=None, give_token=True):
        return await self.sessions.seal(
            to.address, kind, text, fetch=fetch or self.directory.fetch, give_token=give_token
        )

    async def send(self, to, text, **arguments):
        sealed = await self.seal(to, text, **arguments)
        await self.sessions.delivered(sealed)
        return sealed.envelope

    async def receive(self, envelope):
        return await self.sessions.open(envelope)


class Impostor:
    """Whoever writes under any name: keys of its own, no account, no certificate."""

    def __init__(self, directory, name):
        self.directory, self.endpoint = directory, Endpoint.generate(name)
        self.peer = None

    def send(self, to, body, *, kind=PayloadKind.TEXT, token=None, anew=False):
        if self.peer is None or anew:
            self.peer = session.initiate(
                self.endpoint.local,
                self.directory.bundle(to.username, one_time=False),
                address=to.address,
                known=None,
                now=self.directory.now,
            )
        payload = Payload(kind, 1, None, token, body)
        self.peer, envelope = session.seal(
            self.endpoint.local,
            self.endpoint.prekeys,
            self.peer,
            encode_payload(payload),
            call=kind is PayloadKind.CALL,
            now=self.directory.now,
        )
        return envelope

    def certified_by(self, key):
        """Have a relay vouch for this identity, as a relay that lies can."""
        local = self.endpoint.local
        stored = directory.Account(
            local.address.username, local.device_list, local.verified_list.body, 1, None
        )
        self.endpoint.local = local.with_certificate(
            directory.certify(key, stored, now=self.directory.now)
        )


@asynccontextmanager
async def devices(folder, *names):
    """Open registered devices at one directory; yields the directory and them."""
    async with AsyncExitStack() as stack:
        place = Directory()
        made = []
        for name in names:
            device = Device(place, name, folder / f"{name}.db")
            await device.open()
            stack.push_async_callback(lambda device=device: device.store.aclose())
            await device.register()
            made.append(device)
        yield place, *made


def altered(bundle, **changes):
    """Return a bundle with other parts."""
    return msgspec.structs.replace(bundle, **changes)
