"""kill -9 before and after each write of a device: first messages, prekeys, decisions (S2, N2).

The child works on a real store and kills itself at the N-th point, for N = 1, 2, ... until it lives
to its end; what it sent, or would acknowledge, it has written to a pipe before.
"""

import json
import shutil
import subprocess
import sys

import anyio
import pytest

from e2ecall.client.inbox import Inbox
from e2ecall.client.people import People
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import RemoteProtocolError
from relay.wire.codec import decode
from relay.wire.records import PreKey, PreKeyKind
from tests.client.devices import devices

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

SURVIVED, MOST_POINTS = 7, 80

CHILD = """
import json, os, signal, sys, anyio
from pathlib import Path
from e2ecall.client.people import People
from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.io.storefile import StoreFile
from relay.wire.codec import encode
from relay.wire.messages import Certificate, Done, FetchCertificate, PrekeyCounts, PrekeyStatus
from relay.wire.messages import PublishPrekeys
from relay.wire.names import Address
from tests.client.devices import Device, Directory

path, now, what, point, given = sys.argv[1:]
given, points, commit = json.loads(given), 0, StoreFile.commit

def reached():
    global points
    points += 1
    if points == int(point):
        os.kill(os.getpid(), signal.SIGKILL)

def watched(file, changes):
    reached()
    commit(file, changes)
    reached()

def tell(**said):
    os.write(1, json.dumps(said).encode() + b"\\n")

async def ask(body, kind):
    if isinstance(body, PublishPrekeys):
        tell(published=[encode(prekey).hex() for prekey in body.prekeys])
    if isinstance(body, FetchCertificate):
        return Certificate(device.account.local.certificate)
    return PrekeyCounts(0, 0) if isinstance(body, PrekeyStatus) else Done()

async def main():
    await device.open()
    StoreFile.commit = watched
    match what:
        case "receive":
            for number, envelope in enumerate(given):
                await device.receive(bytes.fromhex(envelope))
                tell(acknowledged=number)
        case "publish":
            await device.account.maintain(ask)
        case "decide":
            decided = People(device.store, device.account, device.sessions)
            await decided.verify(Address.parse(given[0]), given[1])
            await decided.block(Address.parse(given[0]), blocked=True)
    os._exit(7)

place = Directory()
place.now = float(now)
device = Device(place, "bob", Path(path))
anyio.run(main)
"""


async def killed_everywhere(place, path, what, given):
    """Yield what the child said before each kill, with its store at ``path`` as it was left."""
    pristine = path.with_name("pristine.db")
    shutil.copy(path, pristine)
    for point in range(1, MOST_POINTS):
        shutil.copy(pristine, path)
        arguments = (str(path), str(place.now), what, str(point), json.dumps(given))
        done = await anyio.run_process(
            [sys.executable, "-c", CHILD, *arguments],
            stdin=subprocess.DEVNULL,
            stderr=None,
            check=False,
        )
        assert done.returncode in {SURVIVED, -9}
        yield [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode == SURVIVED:
            assert point > 4
            return
    pytest.fail("it never survives")


async def inbox(device):
    """Take all texts that wait."""
    over, read = anyio.Event(), Inbox(device.store).messages()
    over.set()
    taken = []
    while (text := await read(over)) is not None:
        taken.append(text.text)
    return taken


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_first_messages(tmp_path):
    """S2, N2, INBOX-01, PQXDH-06: killed at any write, each text of a first contact is read once,
    its one-time prekeys are used once, and the contact is there.
    """
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        given = [(await carol.send(bob, f"{n}".encode())).hex() for n in range(3)]
        await bob.store.aclose()
        async for said in killed_everywhere(place, bob.path, "receive", given):
            await bob.open()
            for envelope in given[len(said) :]:  # what was not acknowledged comes again
                try:
                    await bob.receive(bytes.fromhex(envelope))
                except RemoteProtocolError:
                    assert envelope == given[len(said)]  # it was stored, and the answer was not
            assert await inbox(bob) == ["0", "1", "2"]
            assert [contact.address for contact in People(
                bob.store, bob.account, bob.sessions).all()] == [str(carol.address)]  # fmt: skip
            for envelope in given:
                with pytest.raises(RemoteProtocolError):
                    await bob.receive(bytes.fromhex(envelope))
            await bob.store.aclose()
        await bob.open()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_publication_of_prekeys(tmp_path):
    """S2, N2, PREKEYS-01, PREKEYS-06, PREKEYS-11: killed at any write, no key id is published for
    two keys, and the private part of whatever left is stored.
    """
    async with devices(tmp_path, "bob") as (place, bob):
        await bob.store.aclose()
        known = {}
        async for said in killed_everywhere(place, bob.path, "publish", []):
            seen = {}
            published = [one for line in said for one in line["published"]]
            await bob.open()
            for data in published:
                prekey = decode(bytes.fromhex(data), PreKey, limit=4_096)
                assert seen.setdefault(prekey.key_id, prekey.key) == prekey.key
                assert prekey.key_id < bob.account.prekeys.next_key_id
                if prekey.kind is PreKeyKind.ONE_TIME_X25519:
                    private = bob.account.prekeys.one_time_key(prekey.key_id)
                    assert X25519KeyPair.from_private(private).public == prekey.key
            # Another start draws nothing under an id that left.
            place.prekeys["bob"] = []
            await bob.maintain()
            for prekey in place.prekeys["bob"]:
                assert seen.setdefault(prekey.key_id, prekey.key) == prekey.key
            known |= seen
            await bob.store.aclose()
        assert len(known) >= 200
        await bob.open()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_decisions(tmp_path):
    """S2, IDENTITY-16: killed at any write, each decision was made or not, and nobody is lost."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await carol.receive(await bob.send(carol, b"hello"))
        await bob.receive(await carol.send(bob, b"hello"))
        digits = People(carol.store, carol.account, carol.sessions).fingerprint()
        await bob.store.aclose()
        found = []
        given = [str(carol.address), digits]
        async for _ in killed_everywhere(place, bob.path, "decide", given):
            await bob.open()
            (contact,) = People(bob.store, bob.account, bob.sessions).all()
            found.append((contact.verified, contact.blocked))
            await bob.store.aclose()
        await bob.open()
        assert found == [(False, False), (True, False), (True, False), (True, True), (True, True)]
