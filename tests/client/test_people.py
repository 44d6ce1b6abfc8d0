"""What the user decides about people (spec/identity.md), over real stores, without a network."""

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from e2ecall.client.people import People
from e2ecall.errors import (
    IdentityChangedError,
    LocalProtocolError,
    Reason,
    RemoteProtocolError,
    VerificationFailedError,
)
from e2ecall.io.store import RecordKind
from e2ecall.protocol.sas import identity_fingerprint
from tests.client.devices import DAY, Device, Impostor, devices

pytestmark = pytest.mark.anyio


def people(device):
    return People(device.store, device.account, device.sessions)


def contact(device, address):
    (found,) = (one for one in people(device).all() if one.address == str(address))
    return found


def kept(device):
    return {kind: device.store.all(kind) for kind in RecordKind}


@asynccontextmanager
async def acquainted(folder):
    """Bob and carol have written to each other."""
    async with devices(folder, "bob", "carol") as (place, bob, carol):
        await carol.receive(await bob.send(carol, b"hello"))
        await bob.receive(await carol.send(bob, b"hello"))
        yield place, bob, carol


@asynccontextmanager
async def another_identity(folder, place, name="carol"):
    """Have the relay vouch for another account of this name, which writes to people."""
    other = Device(place, name, folder / f"other_{name}.db")
    await other.open()
    await other.register()
    yield other
    await other.store.aclose()


async def changed(folder, place, bob):
    """Have bob see another identity of carol; return its fingerprint."""
    async with another_identity(folder, place) as other:
        with pytest.raises(IdentityChangedError):
            await bob.receive(await other.send(bob, b"it is me"))
        identity = other.account.local.identity.public
        return identity_fingerprint(str(other.address), identity)


async def test_who_was_decided_about_is_no_request(tmp_path):
    """REACH-12: who never heard from the user is a request, unless there is a rule for them."""
    async with devices(tmp_path, "bob", "carol") as (_, bob, carol):
        await bob.receive(await carol.send(bob, b"hello"))
        for audio in (None, False, True, None):
            await people(bob).allow(carol.address, audio=audio, video=None)
            assert contact(bob, carol.address).is_request is (audio is None)


async def test_a_loss_that_is_told_after_its_sender_was_forgotten(tmp_path):
    """RATCHET-13: of who was forgotten meanwhile nothing is kept, not even that a loss was told."""
    async with acquainted(tmp_path) as (place, bob, carol):
        await carol.send(bob, b"lost")
        await bob.receive(await carol.send(bob, b"hello"))
        place.now += 200
        gaps, closed = bob.sessions.gaps, anyio.Event()
        await gaps.look(place.now)
        following = gaps.events()
        assert (await following(closed)).count == 1
        await people(bob).forget(carol.address)
        closed.set()
        assert await following(closed) is None
        assert not bob.store.all(RecordKind.GAP)


async def test_verified_by_scanning(tmp_path):
    """SAS-06: after one scan each the two are verified, and stay so when the store is reopened."""
    async with acquainted(tmp_path) as (_, bob, carol):
        assert not contact(bob, carol.address).verified
        await people(bob).verify(carol.address, people(carol).verification_code(bob.address))
        await people(carol).verify(bob.address, people(bob).verification_code(carol.address))
        await bob.reopen()
        assert contact(bob, carol.address).verified
        assert contact(carol, bob.address).verified


async def test_verified_by_digits(tmp_path):
    """SAS-07: the fingerprint that the other one reads out verifies, another one does not."""
    async with acquainted(tmp_path) as (_, bob, carol):
        before = kept(bob)
        with pytest.raises(VerificationFailedError):
            await people(bob).verify(carol.address, people(bob).fingerprint())
        assert kept(bob) == before
        await people(bob).verify(carol.address, people(carol).fingerprint())
        assert contact(bob, carol.address).verified


async def test_unknown_people(tmp_path):
    """Whose identity is not known cannot be verified; no contact comes of the attempt."""
    async with devices(tmp_path, "bob", "carol") as (_, bob, carol):
        for attempt in (people(bob).fingerprint, people(bob).verification_code):
            with pytest.raises(LocalProtocolError, match="not known yet"):
                attempt(carol.address)
        with pytest.raises(LocalProtocolError, match="not known yet"):
            await people(bob).verify(carol.address, people(carol).fingerprint())
        with pytest.raises(LocalProtocolError, match="not among"):
            await people(bob).forget(carol.address)
        assert people(bob).all() == ()


async def test_a_change_stops_the_user(tmp_path):
    """R5, IDENTITY-14: after a change nothing is begun until the user decides; mail is read."""
    async with acquainted(tmp_path) as (place, bob, carol):
        await people(bob).verify(carol.address, people(carol).fingerprint())
        await changed(tmp_path, place, bob)
        assert contact(bob, carol.address).identity_changed
        assert contact(bob, carol.address).verified
        with pytest.raises(IdentityChangedError) as caught:
            bob.sessions.check_identity(carol.address)
        assert caught.value.hint
        await bob.reopen()
        with pytest.raises(IdentityChangedError):
            bob.sessions.check_identity(carol.address)
        assert (await bob.receive(await carol.send(bob, b"still me"))).proven


async def test_the_known_identity_is_verified_again(tmp_path):
    """IDENTITY-14: who verifies the known identity once more decides against the other one."""
    async with acquainted(tmp_path) as (place, bob, carol):
        await changed(tmp_path, place, bob)
        await people(bob).verify(carol.address, people(carol).fingerprint())
        assert not contact(bob, carol.address).identity_changed
        bob.sessions.check_identity(carol.address)
        assert people(bob).changed_fingerprint(carol.address) is None


async def test_a_confirmed_code_decides_too(tmp_path):
    """IDENTITY-14, SAS-04: so does who confirms a spoken code with the known identity."""
    async with acquainted(tmp_path) as (place, bob, carol):
        await changed(tmp_path, place, bob)
        await bob.sessions.confirm(carol.address, carol.account.local.identity.public)
        assert contact(bob, carol.address).verified
        bob.sessions.check_identity(carol.address)


async def test_accepting_the_other_identity(tmp_path):
    """R5, IDENTITY-14: accepting drops verification, sessions and tokens, and lets messages go."""
    async with acquainted(tmp_path) as (place, bob, carol):
        await people(bob).verify(carol.address, people(carol).fingerprint())
        digits = await changed(tmp_path, place, bob)
        assert people(bob).changed_fingerprint(carol.address) == digits
        before = kept(bob)
        with pytest.raises(LocalProtocolError, match="not the fingerprint"):
            await people(bob).accept_identity(carol.address, people(bob).fingerprint())
        assert kept(bob) == before
        await people(bob).accept_identity(carol.address, digits)
        found = contact(bob, carol.address)
        assert (found.verified, found.identity_changed) == (False, False)
        assert bob.store.all(RecordKind.PEER) == {}
        record = bob.sessions.contacts.get(carol.address)
        assert (record.token, record.given_token) == (None, None)
        bob.sessions.check_identity(carol.address)
        await bob.send(carol, b"to the new one")
        assert people(bob).fingerprint(carol.address) == digits
        assert not contact(bob, carol.address).verified
        with pytest.raises(RemoteProtocolError):  # its session is gone
            await bob.receive(await carol.send(bob, b"from the former one"))


async def test_what_was_accepted_is_pinned(tmp_path):
    """R5, IDENTITY-15: after accepting one key the relay cannot serve or certify a third."""
    async with acquainted(tmp_path) as (place, bob, carol):
        digits = await changed(tmp_path, place, bob)
        await people(bob).accept_identity(carol.address, digits)
        impostor = Impostor(place, "carol")
        impostor.certified_by(place.key)
        with pytest.raises(IdentityChangedError):
            await bob.receive(impostor.send(bob, b"me, once more"))
        assert bob.store.all(RecordKind.PEER) == {}
        with pytest.raises(IdentityChangedError):
            bob.sessions.check_identity(carol.address)
        assert people(bob).fingerprint(carol.address) == digits


async def test_a_third_key_is_served(tmp_path):
    """R5, IDENTITY-15: nor can it serve a third key's bundle; nothing is sent to it."""
    async with acquainted(tmp_path) as (place, bob, carol):
        digits = await changed(tmp_path, place, bob)
        await people(bob).accept_identity(carol.address, digits)
        (tmp_path / "third").mkdir()
        async with another_identity(tmp_path / "third", place):
            with pytest.raises(IdentityChangedError):
                await bob.send(carol, b"secret")
        assert bob.store.all(RecordKind.PEER) == {}


async def test_an_earlier_request_is_no_way_in(tmp_path):
    """R5, IDENTITY-15: who wrote unproven before takes no pinned name by a certificate later."""
    async with acquainted(tmp_path) as (place, bob, carol):
        digits = await changed(tmp_path, place, bob)
        await people(bob).forget(carol.address)
        impostor = Impostor(place, "carol")
        await bob.receive(impostor.send(bob, b"unproven"))
        async with bob.account.lock:
            await bob.sessions._mark_change(carol.address, bytes(32))
        await people(bob).accept_identity(
            carol.address, people(bob).changed_fingerprint(carol.address)
        )
        impostor.certified_by(place.key)
        with pytest.raises(IdentityChangedError):
            await bob.receive(impostor.send(bob, b"proven now"))
        assert bob.store.all(RecordKind.PEER) == {}
        assert digits


async def test_nothing_to_accept(tmp_path):
    """IDENTITY-14: where no other identity was seen there is nothing to accept."""
    async with acquainted(tmp_path) as (_, bob, carol):
        with pytest.raises(LocalProtocolError, match="no other identity"):
            await people(bob).accept_identity(carol.address, people(carol).fingerprint())


async def test_confirmed_while_it_was_replaced(tmp_path):
    """IDENTITY-14: a code confirmed for a key that was dropped meanwhile verifies nobody."""
    async with acquainted(tmp_path) as (place, bob, carol):
        digits = await changed(tmp_path, place, bob)
        await people(bob).accept_identity(carol.address, digits)
        with pytest.raises(IdentityChangedError):
            await bob.sessions.confirm(carol.address, carol.account.local.identity.public)
        assert not contact(bob, carol.address).verified


async def test_blocked(tmp_path):
    """P8, IDENTITY-16: from who is blocked nothing is taken and nothing changes; nothing goes."""
    async with acquainted(tmp_path) as (_, bob, carol):
        await people(bob).verify(carol.address, people(carol).fingerprint())
        (before,) = bob.sessions.reach.token_hashes()
        await people(bob).block(carol.address, blocked=True)
        assert before not in bob.sessions.reach.token_hashes()
        state = kept(bob)
        with pytest.raises(RemoteProtocolError) as caught:
            await bob.receive(await carol.send(bob, b"hello?"))
        assert caught.value.reason is Reason.BLOCKED
        assert kept(bob) == state
        with pytest.raises(LocalProtocolError, match="you blocked"):
            bob.sessions.check_identity(carol.address)
        assert contact(bob, carol.address).blocked
        await people(bob).block(carol.address, blocked=False)
        assert contact(bob, carol.address).verified
        assert (await bob.receive(await carol.send(bob, b"hello again"))).payload.body
        await carol.receive(await bob.send(carol, b"hello"))
        assert before not in bob.sessions.reach.token_hashes()
        assert carol.sessions.contacts.get(bob.address).token is not None


async def test_who_was_blocked_stays_who_they_are(tmp_path):
    """IDENTITY-16, IDENTITY-13: being blocked for a time makes no stranger of anybody."""
    async with acquainted(tmp_path) as (place, bob, carol):
        identity = carol.account.local.identity.public
        await people(bob).block(carol.address, blocked=True)
        await people(bob).block(carol.address, blocked=False)
        place.now += 200 * DAY
        await bob.sessions.forget_expired()
        assert bob.sessions.identity_key(carol.address) == identity
        assert not bob.sessions.contacts.get(carol.address).is_stranger


async def test_blocked_while_prekeys_are_fetched(tmp_path):
    """IDENTITY-16: who is blocked before a text is sealed gets neither the text nor a token."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):

        async def fetch(address, _token):
            await people(bob).block(address, blocked=True)
            return place.bundle(address.username)

        with pytest.raises(LocalProtocolError, match="you blocked"):
            await bob.seal(carol, b"hello", fetch=fetch)
        assert bob.sessions.reach.token_hashes() == ()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # whose tasks are cancelled past a shield
async def test_a_block_that_nobody_waits_for(tmp_path, monkeypatch):
    """REACH-05: the relay is told of a block whose caller was cancelled while it was written."""
    async with acquainted(tmp_path) as (_, bob, carol):
        commit, writing, go_on = bob.store._file.commit, threading.Event(), threading.Event()

        def slow(changes):
            writing.set()
            go_on.wait(60)
            commit(changes)

        monkeypatch.setattr(bob.store._file, "commit", slow)
        told = bob.sessions.tokens_changed
        blocking = asyncio.create_task(people(bob).block(carol.address, blocked=True))
        assert await asyncio.to_thread(writing.wait, 60)
        blocking.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await blocking
        assert contact(bob, carol.address).blocked
        assert told.is_set()


async def test_blocked_before_first_contact(tmp_path):
    """P8, IDENTITY-16: somebody can be blocked who never wrote; no session comes of a message."""
    async with devices(tmp_path, "bob", "carol") as (_, bob, carol):
        await people(bob).block(carol.address, blocked=True)
        state = kept(bob)
        with pytest.raises(RemoteProtocolError):
            await bob.receive(await carol.send(bob, b"hello"))
        assert kept(bob) == state


async def test_who_was_blocked_stays_invited(tmp_path):
    """REACH-09: a block drops no pin of an invitation, not even of somebody never reached."""
    async with devices(tmp_path, "bob", "carol") as (_, bob, carol):
        link = await carol.sessions.invite(DAY)
        await bob.sessions.begin_invited(replace(link, fingerprint=bytes(64)))
        await people(bob).block(carol.address, blocked=True)
        await people(bob).block(carol.address, blocked=False)
        with pytest.raises(IdentityChangedError):
            await bob.send(carol, b"hello")
        await people(bob).forget(carol.address)
        await bob.send(carol, b"hello, whoever you are")


async def test_forgotten(tmp_path):
    """A forgotten contact is met anew: nothing of keys, tokens or verification is left."""
    async with acquainted(tmp_path) as (_, bob, carol):
        await people(bob).verify(carol.address, people(carol).fingerprint())
        await people(bob).forget(carol.address)
        assert people(bob).all() == ()
        assert bob.store.all(RecordKind.PEER) == bob.store.all(RecordKind.CONTACT) == {}
        await carol.receive(await bob.send(carol, b"hello, stranger"))
        assert not contact(bob, carol.address).verified
