"""What a relay tells its operator after a full session: logs, metrics, status, error texts."""

import base64
import contextlib
import os
import signal
import socket
import sqlite3
import sys

import pytest
import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.trio.client import connect

from relay.wire.limits import MAX_FRAME
from relay.wire.messages import (
    DeleteAccount,
    Done,
    Failure,
    FetchBundle,
    GoingAway,
    Login,
    MediaTicket,
    OpenBox,
    Policy,
    PublishPrekeys,
    PutTokens,
    SetPolicy,
)
from relay.wire.records import PreKeyKind
from tests.faults.test_drain import order
from tests.faults.test_reload import reloaded
from tests.relay.adminsocket import metrics_of
from tests.relay.conftest import Identity, Wire, letter, token_hash

pytestmark = pytest.mark.trio

ADDRESSES = ("127.86.75.30", "127.86.75.31", "127.86.75.32")
"""From where the clients of the session come: the whole 127/8 is this machine."""


def spellings(secret):
    """Return how bytes or text could be written by a careless program."""
    if isinstance(secret, str):
        return [secret]
    return [secret.hex(), base64.b64encode(secret).decode().rstrip("="), repr(secret)[2:-1]]


def found(seeds, texts):
    return [
        (what, where)
        for what, secret in seeds.items()
        for spelling in spellings(secret)
        for where, text in texts.items()
        if spelling in text
    ]


async def client_from(stack, url, address):
    socket = connect(url, compression=None, max_size=2 * MAX_FRAME, local_address=address)
    client = Wire(await stack.enter_async_context(socket))
    client.hello = (await client.frame()).body
    return client


@pytest.mark.skipif(sys.platform != "linux", reason="127/8 is this machine on Linux only")
async def test_w8_full_session(start_relay, tmp_path):
    """W8: after registrations, mail, refusals, garbage, a failing database, a reload and a drain,
    no log, metric, status or error text holds a username, an address, a token, a ticket or an id.
    """
    data = tmp_path / "data"
    config = tmp_path / "relay.toml"
    config.write_text('[operation]\nlog_level = "debug"\n')
    relay = start_relay("--config", config, "--data-dir", data)
    names = ("seeded_alice", "seeded_bobby", "seeded_nobody")
    token, box_key, message_id = os.urandom(16), os.urandom(32), os.urandom(16)
    seeds = {
        **{f"name {name}": name for name in names},
        **{f"address {address}": address for address in ADDRESSES},
        "token": token,
        "hash of the token": token_hash(token),
        "key of a box": box_key,
        "message id": message_id,
    }
    texts = {}

    def keep(reply):
        if isinstance(reply, Failure):
            texts[f"failure {len(texts)}"] = reply.text
        return reply

    async with contextlib.AsyncExitStack() as stack:
        alice, bob, stranger = [await client_from(stack, relay.url, a) for a in ADDRESSES]
        identities = []
        for client, name in ((alice, names[0]), (bob, names[1])):
            identity = Identity(name, client.hello.relay)
            identities.append(identity)
            seeds[f"identity key of {name}"] = bytes(identity.key.verify_key)
            assert await client.request(identity.register(client.hello)) == Done()
            keep(await client.request(identity.register(client.hello)))
        prekeys = identities[0].basic_prekeys() + identities[0].one_time(
            PreKeyKind.ONE_TIME_X25519, 5, 3
        )
        assert await alice.request(PublishPrekeys(prekeys)) == Done()
        assert await alice.request(SetPolicy(Policy.CONTACTS)) == Done()
        assert await alice.request(PutTokens((token_hash(token),))) == Done()
        seeds["box"] = (await stranger.request(OpenBox(box_key))).box
        for shown in (None, token):
            keep(await stranger.request(FetchBundle(names[0], None, shown)))
            sent = letter(names[0], b"sealed", message_id=message_id, token=shown)
            assert await stranger.request(sent) == Done()
        assert await alice.deliveries(1) == [b"sealed"]
        keep(await stranger.request(FetchBundle(names[2], None, None)))
        keep(await stranger.request(Login(names[2], 1, bytes(64))))
        ticket = await bob.request(MediaTicket())
        seeds["ticket"] = ticket.a.username.partition(":")[2]
        seeds["ticket's password"] = ticket.a.password
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((ADDRESSES[2], 0))
            host, _, port = relay.ready["turn"][5:].partition("?")[0].rpartition(":")
            udp.sendto(names[0].encode(), (host, int(port)))
            udp.sendto(b"\x00\x03" + names[0].encode() * 3, (host, int(port)))
        thief = sqlite3.connect(data / "relay.sqlite", isolation_level=None)
        thief.execute("BEGIN EXCLUSIVE")
        keep(await bob.request(letter(names[0], token=token)))
        thief.close()
        assert await bob.request(DeleteAccount(bytes(64))) != Done()
        await stranger.socket.send(names[0].encode())
        with pytest.raises(ConnectionClosed):
            await stranger.push()
        texts["close reason"] = stranger.socket.close_reason
        for headers in (
            {"X-Forwarded-For": ADDRESSES[0]},
            {"Origin": f"https://{names[0]}.example"},
        ):
            try:
                async with connect(relay.url, additional_headers=headers):
                    pass
            except InvalidHandshake as error:
                texts["handshake"] = str(error)
        texts["status"] = await trio.to_thread.run_sync(order, relay, "status")
        texts["metrics"] = await metrics_of(relay.folder.parent)
        await reloaded(relay)
        relay.process.send_signal(signal.SIGTERM)
        push = await bob.push()
        assert isinstance(push, GoingAway)
    code = await trio.to_thread.run_sync(relay.process.wait)
    relay.process.stdout.close()
    assert code == 0
    texts["log"] = relay.log.read_text()
    assert "storage failed" in texts["log"]
    assert len([name for name in texts if name.startswith("failure")]) >= 5
    assert 'outcome="not_reachable",type="FetchBundle"' in texts["metrics"]
    assert found(seeds, texts) == []
    # The search finds what is there: the database has the names.
    kept = "".join(path.read_bytes().decode("latin-1") for path in data.glob("relay.sqlite*"))
    assert {what for what, _ in found(seeds, {"database": kept})} >= {f"name {names[0]}"}
