"""The account at its own relay (spec/prekeys.md, spec/identity.md): lost requests, and races."""

import time
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import anyio
import pytest

from e2ecall.client import home as client_home
from e2ecall.client.contacts import ContactRecord
from e2ecall.client.home import MAINTENANCE_INTERVAL, retry_delay
from e2ecall.client.reach import ROTATION, Told
from e2ecall.errors import ConnectionFailedError, RelayError
from e2ecall.io.store import Change, RecordKind
from e2ecall.protocol.exchange_guard import ExchangeGuard
from relay.wire.limits import MAX_INVITATIONS, MAX_TOKENS
from relay.wire.messages import (
    Policy,
    PrekeyCounts,
    PrekeyStatus,
    PublishPrekeys,
    PutInvitations,
    PutTokens,
    UpdateDeviceList,
    UseTokens,
)
from relay.wire.records import PreKeyKind
from tests.client.devices import DAY, HOUR, devices
from tests.integration.people import PATIENCE, person, texts, two_people

pytestmark = pytest.mark.anyio


async def test_unconfirmed_prekeys_do_not_pile_up(tmp_path):
    """PREKEYS-11: while the relay takes no prekeys nothing more is drawn; later all arrives."""
    async with devices(tmp_path, "bob") as (place, bob):
        place.counts, place.lost = PrekeyCounts(0, 0), {PublishPrekeys}
        sizes = set()
        for _ in range(8):
            with pytest.raises(ConnectionFailedError):
                await bob.maintain()
            sizes.add(len(bob.store.get(RecordKind.PREKEYS, b"unpublished")))
        assert len(sizes) == 1
        place.lost, place.counts = set(), None
        await bob.reopen()
        await bob.maintain()
        assert bob.store.get(RecordKind.PREKEYS, b"unpublished") is None
        assert sum(key.kind is PreKeyKind.ONE_TIME_X25519 for key in place.prekeys["bob"]) == 200


async def maintain_in_vain(place, device, request):
    """Have a device see to its account where one kind of request gets lost, and that once."""
    place.lost = {request}
    with pytest.raises(ConnectionFailedError):
        await device.maintain()
    place.lost = set()


async def test_lost_renewal(tmp_path):
    """WIRE-13: a renewal that never arrived does not lock the account out after an absence."""
    async with devices(tmp_path, "bob") as (place, bob):
        place.now += 3 * DAY
        await maintain_in_vain(place, bob, UpdateDeviceList)
        place.now += 9 * DAY
        await bob.reopen()
        await bob.maintain()
        assert place.accounts["bob"].device_list.version == 3


@pytest.mark.parametrize("unanswered", [PrekeyStatus, PublishPrekeys])
async def test_unanswered_for_weeks(tmp_path, unanswered):
    """PREKEYS-12: a relay that leaves requests open does not keep replaced keys alive."""
    async with devices(tmp_path, "bob") as (place, bob):
        place.now += 3 * DAY
        await bob.maintain()
        place.lost = {unanswered}
        for _ in range(17):
            place.now += DAY
            await bob.sessions.forget_expired()
            with suppress(ConnectionFailedError):
                await bob.maintain()
        kept = bob.account.prekeys.rotated
        assert all(place.now < key.retired + 16 * DAY for key in kept if key.retired)
        ages = sorted({(place.now - key.created) // DAY for key in kept})
        # What was published makes room for more; what was not is the last that was drawn.
        assert ages[0] < 2 if unanswered is PrekeyStatus else ages == [15, 17]


async def test_lost_prekeys(tmp_path):
    """PREKEYS-11: prekeys that expired before they arrived are left out, and new ones take over."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        place.now += 2 * DAY
        await maintain_in_vain(place, bob, PublishPrekeys)
        place.now += 19 * DAY
        await bob.reopen()
        await bob.maintain()
        await carol.maintain()
        assert (await bob.receive(await carol.send(bob, b"hello"))).proven


async def test_maintained_twice_at_once(tmp_path):
    """S3: a reconnection and the hourly look make one renewal between them, and one set of keys."""
    async with devices(tmp_path, "bob") as (place, bob):
        place.now += 10 * DAY
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(bob.maintain)
        own = bob.account.local.verified_list.body.version
        assert (own, place.accounts["bob"].device_list.version) == (2, 2)
        assert len(bob.account.prekeys.sealing_keys()) == 2
        place.counts = PrekeyCounts(0, 0)
        before = bob.account.prekeys.next_key_id
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(bob.maintain)
        assert bob.account.prekeys.next_key_id == before + 200


async def test_maintained_while_messages_come(tmp_path):
    """S3: a rotation and first messages at the same time lose neither keys nor used ones."""
    async with devices(tmp_path, "bob", *(f"friend_{n}" for n in range(8))) as (
        place,
        bob,
        *friends,
    ):
        envelopes = [await friend.send(bob, b"hello") for friend in friends]
        place.now += 2 * DAY
        async with anyio.create_task_group() as tasks:
            for number, envelope in enumerate(envelopes):
                tasks.start_soon(bob.receive, envelope)
                if number == 3:
                    tasks.start_soon(bob.maintain)
        held = {(key.kind, key.key_id) for key in bob.account.prekeys.rotated}
        served = place.bundle("bob", one_time=False)
        for key in (served.signed_prekey, served.sealing_key, served.kem_prekey):
            assert (key.kind, key.key_id) in held
        used = sum(len(key.used_ephemerals) for key in bob.account.prekeys.rotated)
        assert used == len(friends)


async def test_crowded_for_weeks(tmp_path):
    """PREKEYS-09: a flood of handshakes rotates keys daily at most; the record stays readable."""
    async with devices(tmp_path, "bob") as (place, bob):
        crowd = frozenset(number.to_bytes(32) for number in range(1024))
        for _ in range(60):
            state = bob.account.prekeys
            rotated = tuple(
                replace(key, used_ephemerals=crowd) if key.kind is PreKeyKind.SIGNED_X25519 else key
                for key in state.rotated
            )
            async with bob.account.lock:
                await bob.account.save_prekeys(replace(state, rotated=rotated))
            place.now += 12 * HOUR
            await bob.maintain()
        assert len(bob.account.prekeys.sealing_keys()) <= 18
        await bob.reopen()
        assert bob.account.prekeys.sealing_keys()


async def test_more_contacts_than_tokens(tmp_path):
    """WIRE-26, REACH-02: of more contacts than the relay keeps tokens for the latest reach us."""
    async with devices(tmp_path, "bob") as (_, bob):
        records = [
            ContactRecord(
                3, f"friend_{n}@relay.example", given_token=n.to_bytes(16), used=(n * 37) % 1300
            )
            for n in range(1300)
        ]
        before = bob.sessions.reach.token_hashes()
        await bob.store.write([record.change() for record in records])
        hashes = bob.sessions.reach.token_hashes()
        assert len(hashes) == MAX_TOKENS
        await bob.store.write([replaced(records[0], used=1300)])
        assert hashes[0] != bob.sessions.reach.token_hashes()[0]
        assert not before


async def test_tokens_of_many_contacts(tmp_path, relay):
    """WIRE-26: a client with more contacts than fit into one request has the relay learn the tokens
    of all of them at once, also where the connection breaks in between.
    """
    async with person(tmp_path, relay) as alice:
        home = alice._home
        records = [
            ContactRecord(3, f"friend_{n}@relay.example", given_token=n.to_bytes(16))
            for n in range(300)
        ]
        await alice._services.store.write([record.change() for record in records])
        request, done = home.line.request, []

        async def breaking(body, kind):
            reply = await request(body, kind)
            done.append(body)
            if len(done) == 1:
                await home.line._connection.aclose()
            return reply

        home.line.request = breaking
        with anyio.fail_after(PATIENCE):
            async with home._publishing:
                await home._put_tokens()
        *parts, last = done[-4:]
        assert last == UseTokens(300)
        assert [part.begin for part in parts] == [0, 128, 256]
        assert len(done) > 4  # begun anew on another connection
        hashes = {hashed for part in parts for hashed in part.hashes}
        assert hashes == {sha256(n.to_bytes(16)).digest() for n in range(300)}


@pytest.mark.parametrize("said", [0, 7, 86_400])
def test_refusals_are_waited_out(said):
    """WIRE-56: a wait is as long as the relay says, an hour at most, or grows to 10 minutes."""
    error = RelayError("not now", retry_after=said)
    waits = [retry_delay(error, failures) for failures in range(2000)]
    first = min(said, MAINTENANCE_INTERVAL) or 5
    assert first <= waits[0] <= 1.25 * first
    assert max(first, 10) <= waits[1] <= 1.25 * max(first, 10)
    last = max(first, 600)
    assert all(last <= wait <= 1.25 * last for wait in waits[7:])
    assert len(set(waits[7:])) > 1


async def test_refused_tokens_are_given_again(tmp_path, relay):
    """WIRE-56: a set of tokens that the relay refused is given again when it said, unasked."""
    async with person(tmp_path, relay) as alice:
        home, given = alice._home, []
        request, given_again = home.line.request, anyio.Event()

        async def refusing(body, kind):
            if isinstance(body, PutTokens):
                given.append(body)
                if len(given) == 1:
                    raise RelayError("too many requests", retry_after=1)
            reply = await request(body, kind)
            if len(given) > 1:
                given_again.set()
            return reply

        home.line.request = refusing
        alice._services.sessions.tell_tokens_changed()
        with anyio.fail_after(PATIENCE):
            await given_again.wait()


async def test_refused_tokens_are_given_again_after_a_reconnection(tmp_path, relay, monkeypatch):
    """WIRE-56: a set of tokens that did not arrive is given again as soon as the relay is back."""
    monkeypatch.setattr(client_home, "FIRST_RETRY", 600.0)
    async with person(tmp_path, relay) as alice:
        home, failed = alice._home, anyio.Event()
        request, given_again = home.line.request, anyio.Event()

        async def failing(body, kind):
            if isinstance(body, PutTokens) and not failed.is_set():
                failed.set()
                raise ConnectionFailedError("the relay did not answer in time")
            reply = await request(body, kind)
            if isinstance(body, PutTokens):
                given_again.set()
            return reply

        home.line.request = failing
        alice._services.sessions.tell_tokens_changed()
        with anyio.fail_after(PATIENCE):
            await failed.wait()
            await home.line._connection.aclose()
            await given_again.wait()


async def test_the_account_is_closed_whatever_becomes_of_tokens(tmp_path, relay):
    """WIRE-22: who wants to be reached by nobody waits for no set of tokens that is refused."""
    async with person(tmp_path, relay) as alice:
        request = alice._home.line.request

        async def refusing(body, kind):
            if isinstance(body, PutTokens):
                raise RelayError("too many requests", retry_after=600)
            return await request(body, kind)

        alice._home.line.request = refusing
        with pytest.raises(RelayError):
            await alice.set_policy(Policy.CONTACTS)
        await alice.set_policy(Policy.NOBODY)
        assert alice.reachability.policy is Policy.NOBODY


async def test_invitations_that_could_not_be_given(tmp_path, relay):
    """REACH-07: an invitation that the relay was not told of takes no place of another."""
    async with person(tmp_path, relay) as alice:
        request, is_away = alice._home.line.request, True

        async def failing(body, kind):
            if isinstance(body, PutTokens | PutInvitations) and is_away:
                raise ConnectionFailedError("the relay did not answer in time")
            return await request(body, kind)

        alice._home.line.request = failing
        for _ in range(MAX_INVITATIONS + 1):
            with pytest.raises(ConnectionFailedError):
                await alice.invite()
        assert not alice._services.store.all(RecordKind.INVITATION)
        is_away = False
        assert await alice.invite()
        assert len(alice._services.store.all(RecordKind.INVITATION)) == 1


async def test_the_account_is_kept_while_tokens_change(tmp_path, relay, monkeypatch):
    """PREKEYS-12: a client whose tokens change all the time looks after its prekeys no later."""
    monkeypatch.setattr(client_home, "MAINTENANCE_INTERVAL", 1.0)
    async with person(tmp_path, relay) as alice:
        asked = anyio.Event()
        request = alice._home.line.request
        # The relay takes 60 changes in a minute (WIRE-48); this is about how often we look.
        monkeypatch.setattr(alice._home, "publish_tokens", anyio.lowlevel.checkpoint)

        async def followed(body, kind):
            if isinstance(body, PrekeyStatus):
                asked.set()
            return await request(body, kind)

        alice._home.line.request = followed
        with anyio.fail_after(PATIENCE):
            while not asked.is_set():
                alice._services.sessions.tell_tokens_changed()
                await anyio.sleep(0.05)


async def test_what_is_drawn_meanwhile_was_not_published(tmp_path, relay):
    """REACH-04: a token that is drawn while an older set is on its way counts as published after it
    was put itself, and not with that set.
    """
    now = [time.time()]
    async with two_people(tmp_path, relay, clock=lambda: now[0]) as (alice, bob):
        await alice.message(bob.address, "hello")
        now[0] += 1
        await bob.message(alice.address, "hello yourself")
        await texts(alice, 1)
        home, sessions = alice._home, alice._services.sessions
        request, first_done = home.line.request, anyio.Event()
        put, sets, early = set(sessions.reach.token_hashes()), [], []

        async def followed(body, kind):
            if not isinstance(body, PutTokens):
                return await request(body, kind)
            sets.append(body)
            if len(sets) == 1:
                now[0] += ROTATION
                tasks.start_soon(home.publish_tokens)
                await anyio.wait_all_tasks_blocked()
            else:
                with anyio.move_on_after(2):
                    await first_done.wait()
            (contact,) = sessions.contacts.all()
            is_put = sha256(contact.given_token).digest() in put
            if sessions.reach.get(contact.address).told is not Told.DRAWN and not is_put:
                early.append(contact.given_token)
            reply = await request(body, kind)
            put.update(body.hashes)
            return reply

        home.line.request = followed
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                await home.publish_tokens()
                first_done.set()
        assert len(put) == 2
        assert early == []


def replaced(record, **changes):
    return ContactRecord(3, record.address, given_token=record.given_token, **changes).change()


async def test_time_is_over_also_for_who_never_stays(tmp_path, relay):
    """RATCHET-10, IDENTITY-13: what is over goes when a client comes on line, not an hour later."""
    key = b"eve@relay.example"
    idle = Change(RecordKind.GUARD, key, ExchangeGuard().start(bytes(16), 1.0).to_bytes())
    async with person(tmp_path, relay) as alice:
        await alice._services.store.write([idle])
    async with person(tmp_path, relay) as alice:
        with anyio.fail_after(PATIENCE):
            while alice._services.store.get(RecordKind.GUARD, key):  # noqa: ASYNC110 - no event
                await anyio.sleep(0.005)
