"""Sessions with peers (spec/ratchet.md, "Sessions") over real stores, without a network."""

import asyncio
import time

import anyio
import pytest

from e2ecall.client.calllink import CallLink
from e2ecall.errors import LocalProtocolError, NotReachableError, Reason, RemoteProtocolError
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.store import RecordKind
from e2ecall.protocol import ratchet
from e2ecall.protocol.messages import Cancel, LeaveReason, PayloadKind, decode_call_message
from e2ecall.protocol.peerstore import peer_from_bytes
from relay.wire.names import Address
from tests.client.devices import DAY, HOUR, devices

pytestmark = pytest.mark.anyio


async def introduce(one, other):
    """Send a text each way."""
    await other.receive(await one.send(other, b"hello"))
    await one.receive(await other.send(one, b"hello"))


async def test_first_message_may_wait(tmp_path):
    """SESSION-08: a first message is accepted after 13 days at the relay, however old the list."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        for day in range(10):
            place.now += DAY
            await alice.maintain()
            await bob.maintain()
            envelope = await alice.send(bob, b"%d" % day)
        for _ in range(13):
            place.now += DAY
            await bob.maintain()
        assert (await bob.receive(envelope)).payload.body == b"9"


async def test_unanswered_for_weeks(tmp_path):
    """SESSION-08: an unanswered session is begun anew after a day: later messages get through."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await alice.send(bob, b"lost")
        for _ in range(5):
            place.now += 5 * DAY
            await alice.maintain()
            await bob.maintain()
            before = place.fetches
            envelopes = [await alice.send(bob, b"1"), await alice.send(bob, b"2")]
            assert place.fetches == before + 1
            bodies = [(await bob.receive(one)).payload.body for one in envelopes]
            assert bodies == [b"1", b"2"]
        await alice.receive(await bob.send(alice, b"at last"))
        place.now += 5 * DAY
        await alice.maintain()
        before, session = place.fetches, alice.sessions._peers.get(bob.address).active.session_id
        for _ in range(3):
            await alice.send(bob, b"in the same session")
        # After days of silence it looks once whether bob is on another device.
        assert place.fetches == before + 1
        assert alice.sessions._peers.get(bob.address).active.session_id == session


async def test_renewed_handshakes_in_any_order(tmp_path):
    """R7, SESSION-03: handshakes of different days that arrive in reverse end in one session."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        envelopes = []
        for _ in range(3):
            envelopes.append(await alice.send(bob, b"text"))
            place.now += DAY
        for envelope in reversed(envelopes):
            await bob.receive(envelope)
        await alice.receive(await bob.send(alice, b"reply"))
        await bob.receive(await alice.send(bob, b"m"))
        await alice.receive(await bob.send(alice, b"m"))
        at_alice, at_bob = (
            one.sessions._peers.get(other.address).active.session_id
            for one, other in ((alice, bob), (bob, alice))
        )
        assert at_alice == at_bob


async def test_restored_backup(tmp_path):
    """SESSION-02: who went back to an older state begins anew at its next message, not oftener."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        backup = bob.path.read_bytes()
        for _ in range(3):
            await introduce(alice, bob)
        await bob.store.aclose()
        bob.path.write_bytes(backup)
        await bob.open()
        place.now += HOUR
        for _ in range(2):
            with pytest.raises(RemoteProtocolError) as caught:
                await bob.receive(await alice.send(bob, b"unreadable"))
            assert caught.value.reason is Reason.NOT_AUTHENTIC
        before = place.fetches
        await alice.receive(await bob.send(alice, b"I lost something"))
        assert place.fetches == before + 1
        assert (await bob.receive(await alice.send(bob, b"readable"))).payload.body == b"readable"
        await bob.send(alice, b"more")
        assert place.fetches == before + 1


async def test_more_lost_than_can_be_skipped(tmp_path, monkeypatch):
    """SESSION-02, RATCHET-08: who missed too many messages begins anew, and is not deaf."""
    monkeypatch.setattr(ratchet, "MAX_SKIP", 4)
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        for _ in range(5):
            await alice.send(bob, b"lost")
        place.now += HOUR
        with pytest.raises(RemoteProtocolError) as caught:
            await bob.receive(await alice.send(bob, b"too far ahead"))
        assert caught.value.reason is Reason.TOO_MANY_SKIPPED
        await alice.receive(await bob.send(alice, b"I missed a lot"))
        assert (await bob.receive(await alice.send(bob, b"readable"))).payload.body == b"readable"


async def test_silent_foreign_relay(tmp_path):
    """R7, SESSION-09: while a relay answers no fetch, mail is opened and others are written to."""
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        envelope = await alice.send(bob, b"hello")

        async def never(_address, _token):
            await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            eve = Address("eve", "evil.example")
            tasks.start_soon(
                lambda: bob.sessions.seal(eve, PayloadKind.TEXT, b"x", fetch=never, give_token=True)
            )
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                await bob.receive(envelope)
                await bob.maintain()
                await alice.receive(await bob.send(alice, b"hello yourself"))
            tasks.cancel_scope.cancel()


async def test_one_fetch_for_many(tmp_path):
    """R3, SESSION-09: tasks that write to a new peer at once use up one bundle, all get through."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        envelopes = []

        async def write(number):
            envelopes.append(await alice.send(bob, b"%d" % number))

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(write, number)
        assert place.fetches == 1
        texts = {(await bob.receive(envelope)).payload.body for envelope in envelopes}
        assert texts == {b"%d" % number for number in range(10)}


async def test_confirmed_beside_a_send(tmp_path):
    """S3: a confirmed code and a message at the same moment both leave their mark."""
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        await bob.receive(await alice.send(bob, b"hello"))
        identity = alice.account.local.identity.public
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bob.sessions.confirm, alice.address, identity)
            tasks.start_soon(bob.send, alice, b"hello yourself")
        contact = bob.sessions.contacts.get(alice.address)
        assert contact.verified_identity == identity
        assert contact.given_token is not None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_by_asyncio(tmp_path, monkeypatch):
    """S3, STORE-09: a send that asyncio cancels past AnyIO leaves memory and disk the same."""
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        await introduce(alice, bob)
        commit = alice.store._file.commit

        def slow(changes):
            time.sleep(0.05)
            commit(changes)

        monkeypatch.setattr(alice.store._file, "commit", slow)
        for timeout in (0.01, 0.03):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(alice.send(bob, b"cancelled"), timeout)
        monkeypatch.undo()
        key = str(bob.address).encode()
        sent = alice.sessions._peers.get(bob.address).active.ratchet.sending.n
        envelope = await alice.send(bob, b"after it")
        assert (await bob.receive(envelope)).payload.body == b"after it"
        await alice.reopen()
        stored = peer_from_bytes(alice.store.get(RecordKind.PEER, key))
        assert stored.active.ratchet.sending.n == sent + 1 == 3


async def test_a_body_is_made_for_the_session_that_carries_it(tmp_path):
    """CALLKEY-18: ends of a call are those of its Offer's session, whichever is active by then."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await alice.sessions.ensure(bob.address, fetch=place.fetch)
        crossing = await bob.send(alice, b"bob begins, too")
        ends = []

        def made(*parties):
            ends.append(parties)
            return b"offer"

        sent = []

        async def send():
            sent.append(await alice.send(bob, made, kind=PayloadKind.CALL))

        # Alice's sending waits behind what comes in.
        async with anyio.create_task_group() as tasks, alice.account.lock:
            tasks.start_soon(alice.receive, crossing)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
        opened = await bob.receive(sent[0])
        assert ends == [(opened.remote, opened.local)]


async def test_a_call_goes_on_without_a_bundle(tmp_path):
    """SESSION-12, CALL-46: an envelope that comes twice ends no call of a callee who cannot ask the
    caller's relay; a call that begins, and a text, are not sent in a session that is in doubt.
    """
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        place.now += HOUR
        twice = await bob.send(alice, b"an offer", kind=PayloadKind.CALL)
        await alice.receive(twice)
        with pytest.raises(RemoteProtocolError):
            await alice.receive(twice)
        elsewhere = RelayEndpoint.of_name("other.example")
        link = CallLink(alice.sessions, elsewhere, None, bob.address)
        delivered = []

        async def deliver(sealed, box):
            delivered.append((sealed, box))

        link.deliver = deliver
        message = Cancel(bytes(16), 0, LeaveReason.NORMAL, None)
        await link.send(message, bytes(32))
        ((sealed, _),) = delivered
        opened = await bob.receive(sealed.envelope)
        assert decode_call_message(opened.payload.body) == message
        with pytest.raises(NotReachableError):
            await link.send(message, None)
        with pytest.raises(NotReachableError):
            await alice.seal(bob, b"a text", fetch=link.fetch_bundle)
        place.now += 20 * DAY  # the sealing key has expired
        with pytest.raises(NotReachableError):
            await link.send(message, bytes(32))
        assert len(delivered) == 1


async def test_a_body_that_cannot_be_made_changes_nothing(tmp_path):
    """CALLKEY-18: an Offer that is not made leaves the session as it was."""
    async with devices(tmp_path, "alice", "bob") as (_, alice, bob):
        await introduce(alice, bob)
        before = dict(alice.store._records)

        def made(*_):
            raise LocalProtocolError("the peer calls already")

        with pytest.raises(LocalProtocolError):
            await alice.send(bob, made, kind=PayloadKind.CALL)
        assert alice.store._records == before


async def test_an_older_bundle(tmp_path):
    """SESSION-06: a relay that serves an older bundle does not bring back an older sealing key."""
    async with devices(tmp_path, "alice", "bob") as (place, alice, bob):
        await introduce(alice, bob)
        older = place.bundle("bob")
        place.now += 3 * DAY
        await bob.maintain()
        await alice.receive(await bob.send(alice, b"with the newer key"))
        newer = alice.sessions._peers.get(bob.address).sealing_key
        place.now += DAY + 1
        await alice.maintain()

        async def fetch(_address, _token):
            place.fetches += 1
            return older

        before = place.fetches
        await alice.send(bob, b"after a look", fetch=fetch)
        assert place.fetches == before + 1
        assert alice.sessions._peers.get(bob.address).sealing_key == newer
