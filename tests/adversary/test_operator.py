"""An operator who works on the mail of a running relay: reads, drops, repeats, reorders it."""

import sqlite3
import time
from collections import Counter
from contextlib import closing

import anyio
import pytest
import trio

import e2ecall
from e2ecall.client import home
from e2ecall.protocol.gaps import GAP_SECONDS
from relay.wire.messages import Done, Send
from tests.adversary.captured import requests
from tests.integration.people import next_call, person, talking, texts, two_people

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


WORDS = (b"candidate", b"fingerprint", b"sha-256", b"ufrag", b"opus/48000", b"198.18.", b"turn:")
"""Of descriptions of media, and of addresses; none so short that it is in what is random."""


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


async def losses(client, count):
    """Return so many losses; each counts as told once the next is waited for."""
    found = []
    with anyio.fail_after(30):
        async for event in client.missing():
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_dropped_is_told(operated, tmp_path, monkeypatch):
    """R7, RATCHET-12, RATCHET-13: whoever misses messages is told how many and whose, once; not
    before they are overdue, and also after a restart. One that comes late is not missing.
    """
    monkeypatch.setattr(home, "GAP_INTERVAL", 0.05)
    relay, database = operated
    ahead = 0.0

    def clock():
        return time.time() + ahead

    async with person(tmp_path, relay, "alice") as alice:
        async with person(tmp_path, relay, "bob") as bob:
            address = bob.address
        for number in range(6):
            await alice.message(address, f"text {number}")
        await trio.to_thread.run_sync(drop, database, (1, 3, 4))
        async with person(tmp_path, relay, "bob", clock=clock) as bob:
            assert [text.text for text in await texts(bob, 3)] == ["text 0", "text 2", "text 5"]
            with anyio.move_on_after(0.5):
                pytest.fail(f"told too early: {await losses(bob, 1)}")
            ahead = GAP_SECONDS + 2
            expected = e2ecall.MessagesMissing(alice.address, 3)
            assert await losses(bob, 1) == [expected]
        async with person(tmp_path, relay, "bob", clock=clock) as bob:
            assert await losses(bob, 1) == [expected]  # nobody had asked for the next
            missing = bob.missing()
            assert await anext(missing) == expected
            with anyio.move_on_after(0.5):
                pytest.fail(f"told again: {await anext(missing)}")
            ahead *= 2
            await alice.message(address, "no gap before this one")
            await texts(bob, 2)
            with anyio.move_on_after(0.5):
                pytest.fail(f"told again: {await anext(missing)}")


async def test_set_aside_is_told(operated, tmp_path):
    """WIRE-38: a user learns how many messages the relay does not deliver any more."""
    relay, database = operated
    async with person(tmp_path, relay, "alice") as alice:
        async with person(tmp_path, relay, "bob") as bob:
            address = bob.address
        await alice.message(address, "poison")
        await trio.to_thread.run_sync(wear_out, database)
        async with person(tmp_path, relay, "bob") as bob:
            assert await losses(bob, 1) == [e2ecall.MessagesSetAside(1)]


def wear_out(database):
    """Make of what waits what was tried too often."""
    with closing(sqlite3.connect(database, timeout=10)) as db, db:
        db.execute("UPDATE mail SET tries = 5 WHERE envelope IS NOT NULL")


def drop(database, numbers):
    """Drop the envelopes that wait at these places, as an operator who chooses would."""
    with closing(sqlite3.connect(database, timeout=10)) as db, db:
        found = db.execute("SELECT row FROM mail WHERE envelope IS NOT NULL ORDER BY row")
        rows = [row for (row,) in found]
        for number in numbers:
            db.execute("DELETE FROM mail WHERE row = ?", (rows[number],))


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


async def test_a_call_that_is_kept_back(operated, tmp_path, speak):
    """R14, HISTORY-03: an Offer that the relay keeps until its caller has given up does not ring,
    and the callee learns that a call was missed, and whose.
    """
    relay, database = operated
    async with person(tmp_path, relay, "alice") as alice:
        async with person(tmp_path, relay, "bob") as bob:
            name, address = bob.address.partition("@")[0], bob.address
        call = await alice.call(address)
        (offer,) = await trio.to_thread.run_sync(take_mail, database)
        await call.hangup()
        await trio.to_thread.run_sync(take_mail, database)  # the Cancel
        async with (
            speak.wire(relay.url) as operator,
            person(tmp_path, relay, "bob", clock=lambda: time.time() + 120) as bob,
        ):
            assert await operator.request(speak.letter(name, offer)) == Done()
            with anyio.fail_after(30):
                while not bob.history():  # noqa: ASYNC110 - the store tells nobody
                    await anyio.sleep(0.01)
            (entry,) = bob.history()
            assert (entry.missed, entry.peer) == (True, alice.address)
            with anyio.move_on_after(0.5):
                await anext(bob.incoming())
                pytest.fail("it rang")


async def test_what_passes_in_a_call(start_relay, tmp_path):
    """R13: no envelope of a text and a call shows a name, an address, a description of media, a
    word of what was said, or by its size what it is.
    """
    folder = tmp_path / "capture"
    relay = start_relay("--capture", folder)
    async with two_people(tmp_path, relay) as (alice, bob):
        names = [who.address.partition("@")[0].encode() for who in (alice, bob)]
        call, answered = await talking(alice, bob)
        await call.hangup()
        await answered.closed.wait()
        await alice.message(bob.address, "a secret that nobody else reads")
        await texts(bob, 1)
    assert (await trio.to_thread.run_sync(relay.terminate))[0] == 0
    envelopes = [request.envelope for request in requests(folder, Send)]
    sizes = Counter(map(len, envelopes))  # one for the call, one for the text
    assert len(sizes) <= 2
    assert sizes[len(envelopes[0])] >= 5
    joined = b"\n".join(envelopes)
    host, port = relay.name.encode().split(b":")
    for hidden in (*names, host, port, b"secret", *WORDS):
        assert hidden not in joined, hidden
    everything = b"".join(message.read_bytes() for message in folder.glob("signalling.bin"))
    assert all(name in everything for name in names)  # at log-in, and in FetchBundle


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
