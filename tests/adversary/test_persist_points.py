"""What a kill at the worst moment leaves: no key and no nonce is ever used twice (N2, S2)."""

import subprocess
import sys

import anyio
import pytest

from e2ecall.protocol.chains import Packet
from e2ecall.protocol.sealing import open_envelope
from tests.client.devices import devices

pytestmark = pytest.mark.anyio

SENDER = """
import os, signal, sys, anyio
from pathlib import Path
from e2ecall.client.account import Account
from e2ecall.client.sessions import Sessions
from e2ecall.io.store import Store
from e2ecall.protocol.messages import PayloadKind
from e2ecall.secret import Secret
from relay.wire.names import Address

path, now, peer, point, run = sys.argv[1:]

def reached(where):
    if where == point:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = await Store.open(Path(path), Secret(b"x"))
    account = Account(store, lambda: float(now))
    sessions = Sessions(store, account, lambda: float(now))
    write, writes = store.write, 0

    async def watched(changes):
        nonlocal writes
        writes += 1
        reached(f"before write {writes}")
        await write(changes)
        reached(f"after write {writes}")

    store.write = watched

    async def no_bundle(*_):
        raise SystemExit("there is a session")

    for number in (1, 2, 3):
        text = f"{run}: {number}".encode()
        sealed = await sessions.seal(
            Address.parse(peer), PayloadKind.TEXT, text, fetch=no_bundle, give_token=False
        )
        os.write(1, sealed.envelope.hex().encode() + b"\\n")
        reached(f"sent {number}")

anyio.run(main)
"""

POINTS = [
    f"{where} {number}" for number in (1, 2) for where in ("before write", "after write", "sent")
]
"""Of the first message, with which a chain begins, and of the next one in the chain."""


async def test_killed_at_each_persist_point(tmp_path):
    """N2, S2, RATCHET-06: whatever is sent after a kill uses neither key nor nonce again."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await bob.receive(await alice.send(bob, b"hello"))
        nonces, texts = [], []
        for run, point in enumerate(POINTS):
            # With an answer in between each run begins a chain; every other one goes on in it.
            if run % 2 == 0:
                await alice.receive(await bob.send(alice, b"hello yourself"))
            await alice.store.aclose()
            arguments = (str(alice.path), str(place.now), str(bob.address), point, str(run))
            done = await anyio.run_process(
                [sys.executable, "-c", SENDER, *arguments],
                stdin=subprocess.DEVNULL,
                stderr=None,
                check=False,
            )
            assert done.returncode == -9
            await alice.open()
            for line in done.stdout.split():
                envelope = bytes.fromhex(line.decode())
                frame = open_envelope(bob.account.local, bob.account.prekeys, envelope)
                nonces.append(Packet.from_bytes(frame.message).nonce)
                # A number that was used before would be refused as a replay.
                texts.append((await bob.receive(envelope)).payload.body)
        assert len(set(nonces)) == len(nonces)
        assert texts == [b"2: 1", b"3: 1", b"4: 1", b"5: 1", b"5: 2"]
        last = await alice.send(bob, b"and on")
        assert (await bob.receive(last)).payload.body == b"and on"
