"""Who gets a name (spec/identity.md, "Who is pinned"): proven senders, and those who only claim."""

from dataclasses import replace

import anyio
import pytest

from e2ecall.client import peers
from e2ecall.client.contacts import ContactRecord
from e2ecall.client.inbox import Inbox
from e2ecall.client.people import People
from e2ecall.client.sessions import Sealed
from e2ecall.errors import IdentityChangedError, Reason, RemoteProtocolError
from e2ecall.io.store import Change, RecordKind
from e2ecall.protocol.exchange_guard import ExchangeGuard
from e2ecall.protocol.messages import PayloadKind
from e2ecall.protocol.ratchet import skipped_count
from relay.services.signatures import RelayKey
from relay.wire.names import Address
from tests.client.devices import DAY, Device, Impostor, devices

pytestmark = pytest.mark.anyio


async def refuses(device, envelope):
    """Return why an envelope is refused; the store is as before."""
    before = {kind: device.store.all(kind) for kind in RecordKind}
    with pytest.raises(RemoteProtocolError) as caught:
        await device.receive(envelope)
    assert {kind: device.store.all(kind) for kind in RecordKind} == before
    return caught.value.reason


def skipped_keys(peer):
    """Return how many skipped keys each session holds."""
    return [skipped_count(session.ratchet) for session in peer.sessions]


async def test_squatted_name(tmp_path):
    """R5, P12, IDENTITY-11: who claims a name unproven gets neither it nor what is sent to it."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        mallory = Impostor(place, "carol")
        opened = await bob.receive(mallory.send(bob, b"it is me, carol", token=bytes(16)))
        assert (opened.peer, opened.proven) == (carol.address, False)
        assert bob.sessions.identity_key(carol.address) is None
        assert bob.sessions.contacts.all() == ()
        await carol.receive(await bob.send(carol, b"secret"))
        opened = await bob.receive(await carol.send(bob, b"the real carol"))
        assert opened.proven
        assert opened.remote.identity_key == carol.account.local.identity.public
        with pytest.raises(IdentityChangedError):
            await bob.receive(mallory.send(bob, b"again"))


async def test_proven_after_squatted(tmp_path):
    """R5, IDENTITY-12: a proven sender takes the place of an impostor who wrote before."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await bob.receive(Impostor(place, "carol").send(bob, b"first"))
        assert (await bob.receive(await carol.send(bob, b"the real carol"))).proven
        assert bob.store.all(RecordKind.REQUEST) == {}


async def test_unproven_claims_side_by_side(tmp_path):
    """P12, IDENTITY-12: two who claim one name are kept apart, each in its own session."""
    async with devices(tmp_path, "bob") as (place, bob):
        claims = [Impostor(place, "carol") for _ in range(2)]
        for text in (b"1", b"2"):
            for claim in claims:
                opened = await bob.receive(claim.send(bob, text))
                assert opened.remote.identity_key == claim.endpoint.local.identity.public
        assert len(bob.store.all(RecordKind.REQUEST)) == 2


async def test_answering_a_request(tmp_path):
    """P12, IDENTITY-12: who is answered and served by the right relay goes on as proven."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        async with carol.account.lock:
            await carol.account._save(replace(carol.account.local, certificate=None))
        late = await carol.send(bob, b"late")
        assert not (await bob.receive(await carol.send(bob, b"hello"))).proven
        await carol.receive(await bob.send(carol, b"welcome"))
        opened = await bob.receive(late)
        assert (opened.payload.body, opened.proven) == (b"late", True)
        assert (await bob.receive(await carol.send(bob, b"thanks"))).proven
        assert place.fetches == 2


async def test_unproven_calls_leave_no_trace(tmp_path):
    """P12, IDENTITY-12: an unproven sender's call is refused whole: no session, no key used up."""
    async with devices(tmp_path, "bob") as (place, bob):
        mallory = Impostor(place, "carol")
        envelope = mallory.send(bob, b"offer", kind=PayloadKind.CALL)
        assert await refuses(bob, envelope) is Reason.UNEXPECTED_MESSAGE
        assert not (await bob.receive(mallory.send(bob, b"a text"))).proven


async def test_requests_are_bounded(tmp_path, monkeypatch):
    """P12, IDENTITY-13: unproven senders are bounded, the longest silent goes, and they expire."""
    monkeypatch.setattr(peers, "MAX_REQUESTS", 3)
    async with devices(tmp_path, "bob") as (place, bob):
        claims = [Impostor(place, f"stranger_{number}") for number in range(5)]
        for claim in claims:
            place.now += 1
            await bob.receive(claim.send(bob, b"hello"))
        assert len(bob.store.all(RecordKind.REQUEST)) == 3
        assert await refuses(bob, claims[0].send(bob, b"more")) is Reason.REPLAYED
        await bob.receive(claims[4].send(bob, b"more"))
        place.now += 30 * DAY
        await bob.sessions.forget_expired()
        assert bob.store.all(RecordKind.REQUEST) == bob.store.all(RecordKind.PEER) == {}


async def test_skipped_keys_of_others(tmp_path, monkeypatch):
    """P12, RATCHET-14: strangers skip less than contacts do, in all their sessions together."""
    monkeypatch.setattr(peers, "MAX_SKIPPED_BY_OTHERS", 4)
    async with devices(tmp_path, "bob", "carol", "dave") as (place, bob, carol, dave):
        mallory = Impostor(place, "mallory")
        for _ in range(2):
            await bob.receive(mallory.send(bob, b"a session", anew=True))
            for _ in range(3):
                mallory.send(bob, b"skipped")
            await bob.receive(mallory.send(bob, b"more"))
        for other in (carol, dave):
            await bob.receive(await other.send(bob, b"hello"))
        await bob.send(dave, b"welcome")
        for other in (carol, dave):
            for _ in range(6):
                await other.send(bob, b"skipped")
            await bob.receive(await other.send(bob, b"more"))
        kept = [
            bob.sessions._peers.request(
                mallory.endpoint.address, mallory.endpoint.local.identity.public
            ),
            bob.sessions._peers.get(carol.address),
            bob.sessions._peers.get(dave.address),
        ]
        assert [skipped_keys(peer) for peer in kept] == [[3, 1], [4], [6]]


async def test_strangers_are_bounded(tmp_path, monkeypatch):
    """P12, IDENTITY-13: so are proven ones to whom the user never wrote; answered ones stay."""
    monkeypatch.setattr(peers, "MAX_STRANGERS", 2)
    async with devices(tmp_path, "bob", "carol", "dave", "eve_1", "eve_2") as (place, bob, *others):
        carol = others[0]
        for other in others:
            place.now += 1
            await bob.receive(await other.send(bob, b"hello"))
            if other is carol:
                await bob.send(carol, b"welcome")
        kept = {key.partition(b"@")[0] for key in bob.store.all(RecordKind.PEER)}
        assert kept == {b"carol", b"eve_1", b"eve_2"}
        assert {record.address for record in bob.sessions.contacts.all()} == {
            f"{key.decode()}@relay.example" for key in kept
        }
        place.now += 180 * DAY
        await bob.sessions.forget_expired()
        assert len(bob.store.all(RecordKind.PEER)) == 1


@pytest.mark.parametrize("decided", ["rule", "invitation"])
async def test_who_was_decided_about_stays(tmp_path, monkeypatch, decided):
    """P12, R5, IDENTITY-13: no flood of strangers, and no time, takes the pin of somebody who was
    let in by a rule, or whose invitation was taken up; another identity is found out after it.
    """
    monkeypatch.setattr(peers, "MAX_STRANGERS", 1)
    async with devices(tmp_path, "bob", "carol", "eve_1", "eve_2") as (place, *everybody):
        bob, carol, *strangers = everybody
        await bob.receive(await carol.send(bob, b"hello"))
        if decided == "rule":
            people = People(bob.store, bob.account, bob.sessions)
            await people.allow(carol.address, audio=True, video=None)
        else:
            await bob.sessions.begin_invited(await carol.sessions.invite(DAY))
        for stranger in strangers:
            place.now += 1
            await bob.receive(await stranger.send(bob, b"hello"))
        assert len(bob.store.all(RecordKind.PEER)) == 2
        place.now += 180 * DAY
        await bob.sessions.forget_expired()
        assert [peer.address for peer in bob.sessions._peers.pinned()] == [carol.address]
        await bob.maintain()
        mallory = Impostor(place, "carol")
        mallory.certified_by(place.key)
        with pytest.raises(IdentityChangedError):
            await bob.receive(mallory.send(bob, b"it is me"))


async def test_change_of_identity_is_reported(tmp_path):
    """R5, IDENTITY-07: what a relay vouches for marks the contact; a bare claim does not."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await bob.receive(await carol.send(bob, b"hello"))
        mallory = Impostor(place, "carol")
        for key, marked in ((None, False), (RelayKey.generate(), False), (place.key, True)):
            if key is not None:
                mallory.certified_by(key)
            with pytest.raises(IdentityChangedError):
                await bob.receive(mallory.send(bob, b"it is me", anew=True))
            assert bob.sessions.contacts.get(carol.address).identity_changed is marked
        await bob.reopen()
        assert bob.sessions.contacts.get(carol.address).identity_changed
        assert not bob.sessions.contacts.is_verified(carol.address, bytes(32))
        identity = carol.account.local.identity.public
        await bob.sessions.confirm(carol.address, identity)
        assert not bob.sessions.contacts.get(carol.address).identity_changed
        assert bob.sessions.contacts.is_verified(carol.address, identity)


@pytest.mark.parametrize("days", [0, 19], ids=["new-session", "sealing-key"])
async def test_relay_serves_another_identity(tmp_path, days):
    """R5: another identity is IdentityChanged, also where only a sealing key had to be fetched."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await carol.receive(await bob.send(carol, b"hello"))
        await bob.receive(await carol.send(bob, b"hello"))
        other = Device(place, "carol", tmp_path / "other.db")
        await other.open()
        await other.register()
        place.now += days * DAY
        await bob.maintain()
        if not days:
            bob.sessions._undecryptable.add(carol.address)
            place.now += 3_600
        else:
            await other.maintain()
        with pytest.raises(IdentityChangedError):
            await bob.send(carol, b"secret")
        assert bob.sessions.contacts.get(carol.address).identity_changed
        await other.store.aclose()


async def test_strangers_take_no_room_of_contacts(tmp_path):
    """INBOX-04: texts of unproven senders fill a room of their own, not that of contacts."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        mallory = Impostor(place, "mallory")
        for _ in range(100):
            await bob.receive(mallory.send(bob, b"spam"))
        assert await refuses(bob, mallory.send(bob, b"spam")) is Reason.LIMIT
        await bob.receive(await carol.send(bob, b"important"))
        read, over = Inbox(bob.store).messages(), anyio.Event()
        over.set()
        taken = []
        while (text := await read(over)) is not None:
            taken.append(text)
        assert [text.text for text in taken[-1:]] == ["important"]
        assert [text.proven for text in taken].count(False) == 100
        assert not (await bob.receive(mallory.send(bob, b"room again"))).proven


async def test_counts_of_forgotten_people_go(tmp_path):
    """CALL-08, IDENTITY-13: calls of strangers leave nothing for ever, but what still counts."""
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await bob.receive(await carol.send(bob, b"hello"))
        started = ExchangeGuard().start(bytes(16), place.now)
        keys = [str(carol.address).encode(), b"eve@relay.example"]
        await bob.store.write([Change(RecordKind.GUARD, key, started.to_bytes()) for key in keys])
        await bob.sessions.forget_expired()
        assert list(bob.store.all(RecordKind.GUARD)) == keys
        place.now += 600
        await bob.sessions.forget_expired()
        assert list(bob.store.all(RecordKind.GUARD)) == keys[:1]
        place.now += 180 * DAY
        await bob.sessions.forget_expired()
        assert bob.store.all(RecordKind.GUARD) == {}


@pytest.mark.parametrize("decision", ["forget", "accept"])
async def test_counts_outlast_decisions(tmp_path, decision):
    """CALL-08: unfinished exchanges count on after the contact is forgotten, or another identity
    accepted.
    """
    async with devices(tmp_path, "bob", "carol") as (place, bob, carol):
        await bob.receive(await carol.send(bob, b"hello"))
        key, people = str(carol.address).encode(), People(bob.store, bob.account, bob.sessions)
        started = ExchangeGuard().start(bytes(16), place.now).to_bytes()
        await bob.store.write([Change(RecordKind.GUARD, key, started)])
        if decision == "forget":
            await people.forget(carol.address)
        else:
            mallory = Impostor(place, "carol")
            mallory.certified_by(place.key)
            with pytest.raises(IdentityChangedError):
                await bob.receive(mallory.send(bob, b"it is me"))
            await people.accept_identity(carol.address, people.changed_fingerprint(carol.address))
        await bob.sessions.forget_expired()
        assert bob.store.get(RecordKind.GUARD, key) == started
        place.now += 600
        await bob.sessions.forget_expired()
        assert (bob.store.get(RecordKind.GUARD, key) is None) == (decision == "forget")


async def test_tokens_are_not_shown():
    """S4: neither a contact nor a sealed envelope shows its delivery token."""
    token = b"TOKEN-TOKEN-TOKE"
    record = ContactRecord(3, "carol@relay.example", token=token, given_token=token)
    sealed = Sealed(Address("bob", "relay.example"), 1, token, token)
    assert "TOKEN" not in f"{record!r} {record} {sealed!r} {sealed}"
