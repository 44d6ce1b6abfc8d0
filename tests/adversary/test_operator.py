"""An operator who works on the mail of a running relay: reads, drops, repeats, reorders it."""

import sqlite3
from contextlib import closing

import anyio
import pytest
import trio

from relay.wire.messages import Done
from tests.integration.people import next_call, person, texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """The bare connections of these tests are trio's."""
    return "trio"


@pytest.fixture
def operated(start_relay, tmp_path):
    """Start a relay; give it, and the path of its database."""
    folder = tmp_path / "data"
    return start_relay("--data-dir", folder), folder / "relay.sqlite"


def take_mail(database):
    """Return the envelopes that wait, in their order, and drop them."""
    with closing(sqlite3.connect(database, timeout=10)) as db, db:
        found = db.execute("SELECT envelope FROM mail WHERE envelope IS NOT NULL ORDER BY row")
        envelopes = [envelope for (envelope,) in found]
        db.execute("DELETE FROM mail")
        db.execute("UPDATE mailboxes SET envelopes = 0, bytes = 0")
    return envelopes


async def test_dropped_reordered_repeated(operated, tmp_path, speak):
    """R4, R7: envelopes dropped, in reverse and three times each come once each, in whatever
    order, start no second session, and both go on writing to each other.
    """
    relay, database = operated
    async with person(tmp_path, relay, "alice") as alice:
        async with person(tmp_path, relay, "bob") as bob:
            name, address = bob.address.partition("@")[0], bob.address
        for number in range(5):
            await alice.message(address, f"text {number}")
        envelopes = await trio.to_thread.run_sync(take_mail, database)
        assert len(envelopes) == 5
        del envelopes[2]
        async with speak.wire(relay.url) as operator:
            for envelope in [*reversed(envelopes), *envelopes, *envelopes]:
                assert await operator.request(speak.letter(name, envelope)) == Done()
        async with person(tmp_path, relay, "bob") as bob:
            seen = [message.text for message in await texts(bob, 4)]
            assert seen == ["text 4", "text 3", "text 1", "text 0"]
            await bob.message(alice.address, "all of them?")
            assert (await texts(alice, 1))[0].text == "all of them?"
            await alice.message(address, "but one")
            # The last of the four does not count as taken yet.
            assert [message.text for message in await texts(bob, 2)] == ["text 0", "but one"]


async def test_rings_nobody_or_twice(operated, tmp_path, speak):
    """R14, R4: an Offer that the relay drops rings nobody, and the next call is as any other; one
    that it delivers twice rings once.
    """
    relay, database = operated
    async with person(tmp_path, relay, "alice") as alice:
        async with person(tmp_path, relay, "bob") as bob:
            name, address = bob.address.partition("@")[0], bob.address
        lost = await alice.call(address)
        assert len(await trio.to_thread.run_sync(take_mail, database)) == 1
        await lost.hangup()
        await trio.to_thread.run_sync(take_mail, database)  # the Cancel
        call = await alice.call(address)
        (offer,) = await trio.to_thread.run_sync(take_mail, database)
        async with speak.wire(relay.url) as operator:
            for _ in range(2):
                assert await operator.request(speak.letter(name, offer)) == Done()
            async with person(tmp_path, relay, "bob") as bob:
                await (await next_call(bob)).decline()
                assert await operator.request(speak.letter(name, offer)) == Done()
                with anyio.move_on_after(1.0):
                    await anext(bob.incoming())
                    pytest.fail("it rang again")
        await call.hangup()


async def test_what_is_stored(operated, tmp_path):
    """R13: what the relay has stored holds no text, no sender's name and no token."""
    relay, database = operated
    secret = "a secret that nobody else reads"
    async with person(tmp_path, relay, "alice") as alice:
        async with person(tmp_path, relay, "bob") as bob:
            await bob.message(alice.address, "so that she has a token")
            await texts(alice, 1)
            address = bob.address
        token = alice._services.sessions.contacts.all()[0].token
        await alice.message(address, secret)
        sender = alice.address.partition("@")[0]

        def read():
            with closing(sqlite3.connect(database, timeout=10)) as db:
                mail = db.execute("SELECT * FROM mail").fetchall()
                return mail, "\n".join(db.iterdump()), b"".join(map(bytes.fromhex, _hex(db)))

        mail, dump, binary = await trio.to_thread.run_sync(read)
    assert any(isinstance(value, bytes) and len(value) > 1000 for row in mail for value in row)
    assert sender not in repr(mail)
    for hidden in (secret.encode(), token):
        assert hidden not in binary
        assert hidden.hex() not in dump.lower()
    assert sender.encode() in dump.encode()  # as an account of its own


def _hex(db):
    """Return everything binary in a database."""
    for table in ("mail", "tokens", "invitations", "accounts", "prekeys"):
        for row in db.execute(f"SELECT * FROM {table}"):
            yield from (value.hex() for value in row if isinstance(value, bytes))
