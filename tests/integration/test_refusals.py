"""What a person can get wrong, or a relay: a clear error, and nothing is lost."""

import shutil

import anyio
import pytest

import e2ecall
from e2ecall import Client
from e2ecall.io.connection import DisplacedError
from e2ecall.testing import running_relay
from tests.integration.people import PATIENCE, fresh, person, texts

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("what", ["message", "call"])
async def test_unknown_user(people, what):
    """NotReachableError, with a hint, for a text and for a call; the client works on."""
    async with people() as (alice, bob):
        nobody = fresh("nobody")
        with pytest.raises(e2ecall.NotReachableError, match="no such user") as caught:
            await (alice.message(nobody, "hello") if what == "message" else alice.call(nobody))
        assert caught.value.hint
        await alice.message(bob.address, "still here")
        assert [text.text for text in await texts(bob, 1)] == ["still here"]


async def test_taken_username(people, tmp_path, relay):
    """Somebody else's name is refused; the same store then registers under another one."""
    async with (
        people() as (alice, _),
        Client.open(tmp_path / "eve.db", passphrase="x", relay=relay.url) as eve,
    ):
        with pytest.raises(e2ecall.UsernameTakenError, match="taken") as caught:
            await eve.register(alice.address.partition("@")[0])
        assert caught.value.hint
        assert not eve.is_registered
        await eve.register(fresh("eve"))
        assert eve.is_registered


async def test_bad_username(tmp_path, relay):
    """What is no username is refused before anything is sent, and by its own words."""
    async with Client.open(tmp_path / "a.db", passphrase="x", relay=relay.url) as client:
        for name in ("al", "Alice", "1alice", "al-ice", "älice", "a" * 33, "", "a b", "al@ice"):
            with pytest.raises(e2ecall.LocalProtocolError, match="not a username"):
                await client.register(name)
            assert not client.is_registered
        await client.register(fresh("alice"))


async def test_second_registration(people):
    """A store has one account: registering again is refused and changes nothing."""
    async with people() as (alice, _):
        before = alice.address
        with pytest.raises(e2ecall.LocalProtocolError, match="already"):
            await alice.register(fresh("other"))
        assert alice.address == before


async def test_not_registered(tmp_path, relay):
    """Without an account everything that needs one says to register first."""
    async with Client.open(tmp_path / "a.db", passphrase="x", relay=relay.url) as client:
        for attempt in (
            lambda: client.message("bob", "hello"),
            lambda: client.call("bob"),
            lambda: client.set_policy(e2ecall.Policy.CONTACTS),
            lambda: anext(client.incoming()),
            lambda: anext(client.messages()),
            client.wait_closed,
        ):
            with pytest.raises(e2ecall.LocalProtocolError, match="no account") as caught:
                await attempt()
            assert caught.value.hint


async def test_bad_address(people):
    """What is no address is refused by its own words."""
    async with people() as (alice, _):
        for address in ("", "Bob", "bob@", "bob@UPPER", "bob@a@b", "@relay", "bob@relay:0"):
            with pytest.raises(e2ecall.LocalProtocolError, match="not an address"):
                await alice.message(address, "hello")
        with pytest.raises(e2ecall.LocalProtocolError, match="no valid port"):
            await alice.message("bob@127.0.0.1:99999", "hello")


async def test_oneself(people):
    """Nobody can call or write to themselves."""
    async with people() as (alice, _):
        for attempt in (alice.message(alice.address, "me"), alice.call(alice.address)):
            with pytest.raises(e2ecall.LocalProtocolError, match="your own address"):
                await attempt


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://127.0.0.1", "not the URL of a relay"),
        ("wss://", "not the URL of a relay"),
        ("relay.example", "not the URL of a relay"),
        ("ws://relay.example", "not be protected by TLS"),
        ("wss://relay.example:99999", "no valid port"),
        ("wss://Relay_Example", "not a relay's name"),
    ],
)
async def test_bad_relay_url(tmp_path, url, text):
    """A URL that cannot be a relay's is refused before a store is made."""
    with pytest.raises(e2ecall.LocalProtocolError, match=text):
        async with Client.open(tmp_path / "a.db", passphrase="x", relay=url):
            pass
    assert not (tmp_path / "a.db").exists()


async def test_store_that_does_not_open(tmp_path, relay):
    """S1: a wrong passphrase and a damaged store raise StoreError, and the store is left alone."""
    async with person(tmp_path, relay) as alice:
        address = alice.address
    path = tmp_path / "alice.db"
    whole = path.read_bytes()
    for content, passphrase in (
        (whole, "a guess"),
        (whole[:-5_000], "of alice"),
        (bytes(byte ^ (at % 500 == 0 < at) for at, byte in enumerate(whole)), "of alice"),
    ):
        path.write_bytes(content)
        with pytest.raises(e2ecall.StoreError) as caught:
            async with Client.open(path, passphrase=passphrase, relay=relay.url):
                pass
        assert caught.value.hint
        assert path.read_bytes() == content
    path.write_bytes(whole)
    async with person(tmp_path, relay) as alice:
        assert alice.address == address


async def test_relay_unreachable(tmp_path, relay):
    """Where no relay answers, registering and opening say so; later both work with that store."""
    async with running_relay() as gone:
        await gone.kill()
        async with Client.open(tmp_path / "a.db", passphrase="x", relay=gone.url) as client:
            with pytest.raises(e2ecall.ConnectionFailedError, match="cannot connect") as caught:
                await client.register(fresh("alice"))
            assert caught.value.hint
            assert not client.is_registered
    async with Client.open(tmp_path / "a.db", passphrase="x", relay=relay.url) as client:
        await client.register(fresh("alice"))


async def test_relay_away_at_the_next_start(tmp_path):
    """A registered client that finds its relay gone says so, and works when it is back."""
    async with (
        running_relay("--data-dir", str(tmp_path / "relay")) as first,
        person(tmp_path, first) as alice,
    ):
        address = alice.address
    with pytest.raises(e2ecall.ConnectionFailedError, match="cannot connect"):
        async with person(tmp_path, first):
            pass
    listen = address.partition("@")[2]
    async with (
        running_relay("--data-dir", str(tmp_path / "relay"), "--signalling", listen) as again,
        person(tmp_path, again) as alice,
    ):
        assert alice.address == address


async def test_relay_comes_back(tmp_path):
    """A client outlives a crash of its relay: texts that wait are sent and received afterwards."""
    data = ("--data-dir", str(tmp_path / "relay"))
    async with running_relay(*data) as first:
        listen = first.url.removeprefix("ws://")
        async with person(tmp_path, first, "alice") as alice, person(tmp_path, first, "bob") as bob:
            await alice.message(bob.address, "before")
            await texts(bob, 1)
            await first.kill()
            async with running_relay(*data, "--signalling", listen):
                with anyio.fail_after(PATIENCE):
                    await alice.message(bob.address, "after")
                    assert [text.text for text in await texts(bob, 2)] == ["before", "after"]


async def test_relay_with_another_key(tmp_path):
    """A relay that shows another key than at first sight is refused; the old one still works."""
    old, new = (("--data-dir", str(tmp_path / name)) for name in ("old", "new"))
    async with running_relay(*old) as relay:
        listen = ("--signalling", relay.url.removeprefix("ws://"))
        async with person(tmp_path, relay) as alice:
            address = alice.address
    async with running_relay(*new, *listen) as relay:
        with pytest.raises(e2ecall.RelayError, match="another key than before") as caught:
            async with person(tmp_path, relay):
                pass
        assert caught.value.hint
    async with running_relay(*old, *listen) as relay, person(tmp_path, relay) as alice:
        assert alice.address == address


async def test_relay_with_another_name(tmp_path, relay):
    """A relay that goes by another name than the one that was dialled is refused."""
    url = relay.url.replace("127.0.0.1", "localhost")
    async with Client.open(tmp_path / "a.db", passphrase="x", relay=url) as client:
        with pytest.raises(e2ecall.RelayError, match="calls itself"):
            await client.register(fresh("alice"))


async def test_another_relay_than_registered_at(tmp_path, relay):
    """A store opened with another relay than its own says where it belongs."""
    async with person(tmp_path, relay):
        pass
    async with running_relay() as other:
        with pytest.raises(e2ecall.LocalProtocolError, match="is not an account of"):
            async with person(tmp_path, other):
                pass


async def test_the_same_account_twice(tmp_path, relay):
    """A copy of a store that logs in ends the first one's line, which tells whoever waits on it."""
    async with person(tmp_path, relay):
        pass
    shutil.copy(tmp_path / "alice.db", tmp_path / "copy.db")
    async with (
        person(tmp_path, relay) as alice,
        Client.open(tmp_path / "copy.db", passphrase="of alice", relay=relay.url),
    ):
        for waits in (lambda: anext(alice.incoming()), alice.wait_closed):
            with anyio.fail_after(PATIENCE), pytest.raises(DisplacedError, match="else") as caught:
                await waits()
            assert caught.value.hint
