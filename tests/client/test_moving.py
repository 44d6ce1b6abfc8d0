"""An account that moves to another device (spec/account.md), over real stores."""

from dataclasses import replace

import pytest

from e2ecall.client.callrules import CommonRules
from e2ecall.client.enrolment import Enrolment
from e2ecall.client.moving import exported
from e2ecall.client.people import People
from e2ecall.errors import (
    ConnectionFailedError,
    IdentityChangedError,
    LocalProtocolError,
    Reason,
    RelayError,
    RemoteProtocolError,
)
from e2ecall.io.store import RecordKind
from e2ecall.protocol.account_export import open_export, seal_export
from e2ecall.protocol.devices import sign_device_list
from e2ecall.protocol.identity import IdentityKey
from e2ecall.protocol.invitation import InvitationLink
from e2ecall.secret import Secret
from relay.wire.codec import encode
from relay.wire.messages import Enrol, FetchOwnList, Policy, Register
from tests.client.devices import DAY, HOUR, Device, devices
from tests.protocol.test_account_export import CHEAP

pytestmark = pytest.mark.anyio


async def introduce(one, other):
    await other.receive(await one.send(other, b"hello"))
    await one.receive(await other.send(one, b"hello"))


def moved(device):
    account = exported(device.store, device.account, device.sessions)
    data = seal_export(account, Secret(b"x"), cost=CHEAP, salt=bytes(16), nonce=bytes(24))
    return open_export(data, Secret(b"x"))


async def successor(stack_of, place, account, name="alice"):
    """Open an empty store and import the account into it."""
    new = Device(place, name, stack_of / f"{name}_{place.fetches}_new.db")
    await new.open()
    await new.take_over(account)
    return new


async def test_a_new_device(tmp_path):
    """ACCOUNT-06, IDENTITY-01: the account goes on with a new id, alone in the next list."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        await People(alice.store, alice.account, alice.sessions).block(
            replace(bob.address, username="eve"), blocked=True
        )
        new = await successor(tmp_path, place, moved(alice))
        before, after = alice.account.local, new.account.local
        assert after.identity.public == before.identity.public
        assert after.keys.device_id == before.keys.device_id + 1
        assert after.keys.public != before.keys.public
        body = after.verified_list.body
        assert (body.version, len(body.devices)) == (2, 1)
        assert place.accounts["alice"].device_list == body
        records = {record.address: record for record in new.sessions.contacts.all()}
        assert records["eve@relay.example"].blocked
        assert new.store.all(RecordKind.PEER) == {}
        assert new.sessions.identity_key(bob.address) == bob.account.local.identity.public
        await new.store.aclose()


async def test_rules_and_pins_move(tmp_path):
    """ACCOUNT-01, REACH-09, REACH-12: rules for calls move with the account, and the pin of an
    invitation whose owner was not reached yet: another identity is refused there, too.
    """
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        people = People(alice.store, alice.account, alice.sessions)
        link = await bob.sessions.invite(DAY)
        forged = InvitationLink(link.address, link.token, link.expires, bytes(64))
        await alice.sessions.begin_invited(forged)
        await people.allow(replace(bob.address, username="eve"), audio=False, video=None)
        await people.allow_everybody(audio=None, video=Policy.CONTACTS)
        await alice.account.remember_policy(Policy.EVERYONE, strangers_ring=False)
        new = await successor(tmp_path, place, moved(alice))
        rules = People(new.store, new.account, new.sessions).rules
        assert rules.of(replace(bob.address, username="eve")).audio is False
        assert (rules.common.audio, rules.common.video) == (Policy.EVERYONE, Policy.CONTACTS)
        assert (new.account.policy, new.account.strangers_ring) == (Policy.EVERYONE, False)
        with pytest.raises(IdentityChangedError):
            await new.send(bob, b"hello")
        await new.store.aclose()


async def test_no_secret_of_sessions_moves(tmp_path):
    """ACCOUNT-01: no key of a ratchet, of a prekey or of a device is in what moves."""
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        await introduce(alice, bob)
        plain = encode(exported(alice.store, alice.account, alice.sessions))
        local = alice.account.local
        ratchet = alice.sessions._peers.get(bob.address).active.ratchet
        assert local.identity.to_bytes() in plain
        secrets = [local.keys.signing.seed.expose(), local.keys.dh.private.expose()]
        secrets += [ratchet.root_key.expose(), ratchet.next_sending_header_key.expose()]
        assert not any(secret in plain for secret in secrets)
        prekeys = alice.store.get(RecordKind.PREKEYS)
        assert len(prekeys) > 9_000
        assert not any(prekeys[at : at + 16] in plain for at in range(len(prekeys) - 16))


async def test_peers_follow(tmp_path):
    """SESSION-11, ACCOUNT-04: with the new device's first message a peer's sessions move to it."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        ours = People(bob.store, bob.account, bob.sessions)
        await ours.verify(alice.address, ours.fingerprint(alice.address))
        late = await alice.send(bob, b"from the former device")
        new = await successor(tmp_path, place, moved(alice))
        assert (await bob.receive(await new.send(bob, b"it is me"))).proven
        assert [one.verified for one in ours.all()] == [True]
        await new.receive(await bob.send(new, b"welcome"))
        assert (await bob.receive(await new.send(bob, b"thanks"))).payload.body == b"thanks"
        with pytest.raises(RemoteProtocolError) as caught:
            await bob.receive(late)
        assert caught.value.reason is Reason.UNKNOWN_SESSION
        with pytest.raises(RemoteProtocolError) as caught:  # the former device begins once more
            alice.sessions._undecryptable.add(bob.address)
            place.now += HOUR
            await bob.receive(await alice.send(bob, b"I was first"))
        assert caught.value.reason is Reason.WRONG_ADDRESS
        await new.store.aclose()


async def test_a_second_device_is_no_successor(tmp_path):
    """SESSION-11: a further device beside the known one does not take its sessions over."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        former = alice.account.local
        new = await successor(tmp_path, place, moved(alice))
        local = new.account.local
        both = sign_device_list(
            local.identity,
            address=local.address,
            version=3,
            previous=local.verified_list.hash,
            devices=(former.keys.public, local.keys.public),
            expires=local.verified_list.body.expires,
        )
        async with new.account.lock:
            await new.account._save(replace(local, device_list=both))
        with pytest.raises(RemoteProtocolError) as caught:
            await bob.receive(await new.send(bob, b"me, too"))
        assert caught.value.reason is Reason.UNKNOWN_KEY
        assert (await bob.receive(await alice.send(bob, b"still here"))).proven
        await new.store.aclose()


async def test_peers_look_after_a_day(tmp_path):
    """SESSION-10: who hears nothing for a day looks, and finds the new device; once a day."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        new = await successor(tmp_path, place, moved(alice))
        envelope = await bob.send(alice, b"into the void")
        with pytest.raises(RemoteProtocolError):
            await new.receive(envelope)
        place.now += DAY
        await bob.maintain()
        before = place.fetches
        assert (await new.receive(await bob.send(new, b"there you are"))).proven
        assert place.fetches == before + 1
        await bob.send(new, b"and")
        assert place.fetches == before + 1
        await new.store.aclose()


async def test_lost_answer(tmp_path):
    """ACCOUNT-05: an enrolment whose answer was lost is taken up with the same keys and id."""
    async with devices(tmp_path, "alice") as (place, alice):
        account = moved(alice)
        new = Device(place, "alice", tmp_path / "new.db")
        await new.open()
        answer = place.answer

        def lost(username, body):
            reply = answer(username, body)
            if isinstance(body, Enrol):
                raise ConnectionFailedError("the answer is lost")
            return reply

        for restart in (False, True):
            place.answer = lost
            with pytest.raises(ConnectionFailedError):
                await new.take_over(account)
            if restart:
                await new.reopen()
        place.answer = answer
        await new.take_over(account)
        assert new.account.local.keys.device_id == 2
        assert new.account.local.verified_list.body.version == 2
        await new.reopen()
        assert new.account.is_registered
        with pytest.raises(LocalProtocolError, match="belongs to"):
            await new.take_over(account)
        await new.store.aclose()


async def test_imported_twice(tmp_path):
    """ACCOUNT-06, IDENTITY-01: one export imported twice makes two devices with different ids."""
    async with devices(tmp_path, "alice") as (place, alice):
        account, ids = moved(alice), []
        for number in range(3):
            new = Device(place, "alice", tmp_path / f"{number}.db")
            await new.open()
            await new.take_over(account)
            ids.append(new.account.local.keys.device_id)
            await new.store.aclose()
        assert ids == [2, 3, 4]


async def test_long_away(tmp_path):
    """ACCOUNT-06: an account whose list expired long ago is taken up all the same."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        account = moved(alice)
        place.now += 100 * DAY
        await bob.maintain()
        new = await successor(tmp_path, place, account)
        await bob.receive(await new.send(bob, b"back again"))
        await new.store.aclose()


async def test_an_old_list_is_refused(tmp_path):
    """ACCOUNT-06, R7: a relay that shows a list from before the export is refused."""
    async with devices(tmp_path, "alice") as (place, alice):
        old = place.accounts["alice"]
        place.now += 3 * DAY
        await alice.maintain()
        account = moved(alice)
        assert account.list_version == 2
        place.accounts["alice"] = old
        new = Device(place, "alice", tmp_path / "new.db")
        await new.open()
        with pytest.raises(RelayError, match="older device list"):
            await new.take_over(account)
        assert not new.account.is_registered
        await new.store.aclose()


async def test_another_identity_key(tmp_path):
    """ACCOUNT-06, WIRE-17: without the account's identity key nothing is told or changed."""
    async with devices(tmp_path, "alice") as (place, alice):
        forged = moved(alice)
        forged = type(forged)(
            1, forged.address, IdentityKey.generate().to_bytes(), 1, 1, forged.policy, (), ()
        )
        before = place.accounts["alice"]
        new = Device(place, "alice", tmp_path / "new.db")
        await new.open()
        with pytest.raises(RelayError, match="not valid"):
            await new.take_over(forged)
        assert place.accounts["alice"] is before
        await new.store.aclose()


async def test_imported_keys_are_pinned(tmp_path):
    """IDENTITY-15, ACCOUNT-04, R5: the relay cannot serve an imported contact's name anew."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        new = await successor(tmp_path, place, moved(alice))
        impostor = Device(place, "bob", tmp_path / "impostor.db")
        await impostor.open()
        await impostor.register()
        with pytest.raises(IdentityChangedError):
            await new.send(bob, b"secret")
        with pytest.raises(IdentityChangedError):
            await new.receive(await impostor.send(new, b"it is me"))
        assert new.store.all(RecordKind.PEER) == {}
        for device in (impostor, new):
            await device.store.aclose()


@pytest.mark.parametrize("then", ["import", "register"])
async def test_the_last_attempt_counts(tmp_path, then):
    """ACCOUNT-05: a store becomes the account that was asked for last, and keeps no other keys."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        account = moved(alice)
        new = Device(place, "alice" if then == "import" else "carol", tmp_path / "new.db")
        await new.open()
        place.lost |= {Register, FetchOwnList}
        attempts = [new.register, lambda: new.take_over(account)]
        for attempt in attempts if then == "import" else reversed(attempts):
            with pytest.raises(ConnectionFailedError):
                await attempt()
        place.lost.clear()
        new.username = "alice" if then == "import" else "carol"
        await (new.take_over(account) if then == "import" else new.register())
        assert new.address.username == new.username
        kept = new.store.all(RecordKind.ACCOUNT)
        assert kept.keys() <= {b"", b"policy", b"calls"}
        assert (account.identity_seed in b"".join(kept.values())) == (then == "import")
        await new.store.aclose()


async def given_up(folder, place, account):
    """Open an empty store and begin an import there that the relay never hears of."""
    new = Device(place, "alice", folder / "new.db")
    await new.open()
    place.lost.add(FetchOwnList)
    with pytest.raises(ConnectionFailedError):
        await new.take_over(account)
    place.lost.clear()
    return new


async def test_a_later_export_counts(tmp_path):
    """ACCOUNT-05: where an import broke off, a later export of the account is taken instead: its
    contacts, blocks, rules and list version, with the keys that were drawn.
    """
    async with devices(tmp_path, "alice", "bob", "eve") as (place, alice, bob, eve):
        await introduce(alice, eve)
        earlier = moved(alice)
        new = await given_up(tmp_path, place, earlier)
        drawn = new.account._enrolments.get(b"enrolling")
        place.now += 12 * DAY
        for device in (alice, bob):
            await device.maintain()
        people = People(alice.store, alice.account, alice.sessions)
        await introduce(alice, bob)
        await people.verify(bob.address, People(bob.store, bob.account, bob.sessions).fingerprint())
        await people.block(eve.address, blocked=True)
        await people.allow_everybody(audio=Policy.CONTACTS, video=None)
        later = moved(alice)
        assert later.list_version > earlier.list_version
        assert Enrolment.generate(later).updated(earlier).list_version == later.list_version
        assert drawn.updated(later).list_version == later.list_version
        await new.take_over(later)
        assert new.account.local.keys.signing.seed.expose() == drawn.signing_seed
        theirs = People(new.store, new.account, new.sessions)
        assert {one.address: (one.verified, one.blocked) for one in theirs.all()} == {
            str(bob.address): (True, False),
            str(eve.address): (False, True),
        }
        assert theirs.rules.common.audio is Policy.CONTACTS
        await new.store.aclose()


async def test_nothing_of_an_import_stays_with_another_name(tmp_path):
    """ACCOUNT-05: who registers a name after an import that was given up has nobody's contacts,
    and publishes no token that the other account's relay may know.
    """
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        await alice.account.remember_policy(Policy.NOBODY, strangers_ring=False)
        people = People(alice.store, alice.account, alice.sessions)
        await people.allow(bob.address, audio=True, video=False)
        await people.allow_everybody(audio=Policy.NOBODY, video=None)
        new = await given_up(tmp_path, place, moved(alice))
        new.username = "carol"
        await new.register()
        assert new.sessions.contacts.all() == new.sessions.reach.token_hashes() == ()
        rules = People(new.store, new.account, new.sessions).rules
        assert (rules.all(), rules.common) == ({}, CommonRules())
        assert (new.account.policy, new.account.first_calls_ring) == (Policy.EVERYONE, True)
        await new.store.aclose()


async def test_the_contacts_of_another_export_go(tmp_path):
    """ACCOUNT-05: nobody is pinned or verified by an export whose import was given up."""
    async with devices(tmp_path, "alice", "bob", "carol") as (place, alice, bob, carol):
        await introduce(alice, bob)
        await introduce(carol, alice)
        new = await given_up(tmp_path, place, moved(alice))
        new.username = "carol"
        await new.take_over(moved(carol))
        assert [record.address for record in new.sessions.contacts.all()] == [str(alice.address)]
        await new.store.aclose()
