"""What an operator does about accounts (relay/README.md, Operation)."""

import sqlite3
import subprocess
import sys

import pytest
import trio
from websockets.exceptions import ConnectionClosed

import e2ecall
from relay.wire.codes import read_code
from relay.wire.messages import Displaced, Done, ErrorCode, FetchBundle

pytestmark = pytest.mark.trio


def order(relay, *arguments, verb="account"):
    """Run `account`, or another verb, with these arguments; return exit code and output."""
    socket = next(relay.folder.parent.glob("**/admin.sock"))
    command = [sys.executable, "-m", "relay.cli", verb, *arguments, "--socket", socket]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout + done.stderr


async def ordered(relay, *arguments, **options):
    return await trio.to_thread.run_sync(lambda: order(relay, *arguments, **options))


async def test_delete(start_relay, speak, username, tmp_path):
    """`account delete` ends the account's connection, removes keys and mail, leaves a tombstone for
    the name, and nothing else of it in the database.
    """
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data)
    async with speak.registered(relay.url, username) as (client, one):
        async with speak.wire(relay.url) as sender:
            assert await sender.request(speak.letter(username, b"x" * 500)) == Done()
        code, said = await ordered(relay, "delete", username)
        assert (code, said) == (0, "deleted; the name is retired\n")
        with pytest.raises(ConnectionClosed):
            while not isinstance(await client.push(), Displaced):
                pass
            await client.push()
    async with speak.wire(relay.url) as client:
        assert (await client.request(one.login(client.hello))).code is ErrorCode.LOGIN_FAILED
        assert (await client.request(one.register(client.hello))).code is ErrorCode.USERNAME_TAKEN
        bundle = await client.request(FetchBundle(username, None, None))
        assert bundle.code is ErrorCode.NOT_REACHABLE
    assert relay.terminate()[0] == 0
    with sqlite3.connect(data / "relay.sqlite") as database:
        dump = "\n".join(database.iterdump())
        ((retired,),) = database.execute("SELECT count(*) FROM retired")
    database.close()
    assert retired == 1
    assert username not in dump
    assert username.encode().hex() not in dump.lower()


async def test_nobody_to_delete(start_relay):
    """An account that is not there, or no name at all, is refused in words."""
    relay = start_relay()
    for name in ("nobody_here", "Not A Name", "", "a" * 100):
        code, said = await ordered(relay, "delete", name)
        assert code == 1
        assert "there is no such account" in said
    assert relay.terminate()[0] == 0
    assert "nobody_here" not in relay.log.read_text()


async def test_registration(start_relay, speak, username):
    """`account registration` closes and opens a running relay to new accounts; others go on."""
    relay = start_relay()
    async with speak.registered(relay.url, username) as (client, _):
        assert await ordered(relay, "registration", "closed") == (0, "registration is closed\n")
        async with speak.wire(relay.url) as late:
            other = speak.Identity(f"{username}_2", relay.name)
            refused = await late.request(other.register(late.hello))
            assert refused.code is ErrorCode.REGISTRATION_CLOSED
            assert await client.request(speak.letter(username)) == Done()
            assert await ordered(relay, "registration", "open") == (0, "registration is open\n")
            assert await late.request(other.register(late.hello)) == Done()
    assert (await ordered(relay, "registration", "maybe"))[0] == 2
    assert relay.terminate()[0] == 0


async def test_invite(start_relay, speak, tmp_path):
    """WIRE-19: `invite` makes codes, each good for one account of a relay that wants one; the relay
    does not keep them.
    """
    data = tmp_path / "data"
    relay = start_relay("--data-dir", data, environment={"RELAY__RELAY__REGISTRATION": "invite"})
    code, said = await ordered(relay, "--count", "3", verb="invite")
    texts = said.split()
    assert (code, len(set(texts))) == (0, 3)
    codes = [read_code(text) for text in texts]

    async def register(name, code):
        async with speak.wire(relay.url) as client:
            reply = await client.request(
                speak.Identity(name, relay.name).register(client.hello, code=code)
            )
            return getattr(reply, "code", None)

    for useless in (None, bytes(16)):
        assert await register("first", useless) is ErrorCode.REGISTRATION_CLOSED
    assert await register("first", codes[0]) is None
    assert await register("second", codes[0]) is ErrorCode.REGISTRATION_CLOSED
    assert await register("first", codes[0]) is ErrorCode.REGISTRATION_CLOSED
    assert await register("first", codes[1]) is ErrorCode.USERNAME_TAKEN
    assert await register("second", codes[1]) is None
    for store, invite in (("one", None), ("one", "abc"), ("one", texts[2].upper())):
        path = tmp_path / f"{store}.db"
        async with e2ecall.Client.open(path, passphrase="x", relay=relay.url) as me:
            if invite == texts[2].upper():
                await me.register("third", invite=invite)
                continue
            with pytest.raises(e2ecall.E2ECallError):
                await me.register("third", invite=invite)
    for arguments in (("--count", "0"), ("--days", "400")):
        assert (await ordered(relay, *arguments, verb="invite"))[0] == 1
    assert relay.terminate()[0] == 0
    everything = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    assert not any(code in everything for code in codes)
