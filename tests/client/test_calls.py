"""Calls whose relay or peer does harm, or whose program leaves at a bad moment (spec/call.md)."""

import asyncio
import os
import signal
import time

import anyio
import pytest
from msgspec.structs import replace

import e2ecall
from e2ecall.client import call as shell
from e2ecall.client import calls, callsteps
from e2ecall.client.callmedia import CallMedia
from e2ecall.io.store import RecordKind
from e2ecall.media.events import FailureReason, MediaFailed
from e2ecall.protocol import call as protocol
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.identity import IdentityKey
from e2ecall.protocol.messages import Cancel, LeaveReason
from e2ecall.testing import speech_like_sound
from relay.wire.names import Address
from tests.integration.people import (
    PATIENCE,
    ended,
    media,
    next_call,
    person,
    ringing,
    talking,
    until,
)

pytestmark = pytest.mark.anyio


class Frozen:
    """A relay that takes connections and answers nothing, for the length of the block."""

    def __init__(self, relay):
        self._pid = relay.pid

    def __enter__(self):
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self._pid, signal.SIGCONT)


async def settled(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is asked has no event
            await anyio.sleep(0.005)


def unfinished(client, peer):
    """Return how many exchanges ``client`` counts for ``peer``."""
    return client._calls._exchanges.count(Address.parse(peer.address))


# The end of a call.


async def test_the_microphone_is_off_before_the_goodbye_is_out(people, relay, monkeypatch):
    """CALL-17: hanging up ends what is sent at once, also while the relay answers nothing."""
    monkeypatch.setattr(callsteps, "GOODBYE_TIMEOUT", 15.0)
    microphone = speech_like_sound(1)
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob, audio=microphone)
        answered = await incoming.accept()
        await until(call, e2ecall.Connected)
        with Frozen(relay):
            await call.mute()  # a message that will not be answered
            await anyio.sleep(0.1)
            call.leave()
            await settled(lambda: microphone.read() is None)  # closed
            sent = call.media.stats().sent[0].frames
            assert not call.closed.is_set()
            await anyio.sleep(0.2)
            assert call.media.stats().sent[0].frames == sent
        with anyio.fail_after(PATIENCE):
            await call.closed.wait()
            await answered.closed.wait()


async def test_the_goodbye_is_bounded_from_the_end_on(people, relay, monkeypatch):
    """CALL-17: an earlier message that is stuck does not make the goodbye last longer."""
    monkeypatch.setattr(callsteps, "GOODBYE_TIMEOUT", 0.3)
    async with people() as (alice, bob):
        call, _ = await talking(alice, bob)
        with Frozen(relay):
            await call.mute()
            await anyio.sleep(0.1)
            with anyio.fail_after(10):  # a request alone would take 15
                await call.hangup()
        assert call.ended.reason is EndReason.HANGUP


async def test_a_client_closes_while_its_call_cannot(tmp_path, people, relay, monkeypatch):
    """CALL-17: leaving a client whose call does not end in time is quick and raises nothing."""
    monkeypatch.setattr(callsteps, "GOODBYE_TIMEOUT", 60.0)
    monkeypatch.setattr(calls, "CLOSE_TIMEOUT", 0.2)
    with anyio.fail_after(30):
        async with person(tmp_path, relay, "carol") as carol:
            async with person(tmp_path, relay, "dave") as dave:
                call, _ = await talking(dave, carol)
                os.kill(relay.pid, signal.SIGSTOP)
                await call.mute()
                await anyio.sleep(0.1)
            os.kill(relay.pid, signal.SIGCONT)
            assert call.closed.is_set()
            assert call.ended is not None


async def test_events_end_with_a_client_that_is_cancelled(tmp_path, people, relay):
    """A call whose client is left by cancellation ends for whoever follows it."""
    async with person(tmp_path, relay, "erin") as erin:
        with anyio.CancelScope() as scope:
            async with person(tmp_path, relay, "frank") as frank:
                call, answered = await talking(frank, erin)
                scope.cancel()
                await anyio.sleep_forever()
        assert call.closed.is_set()
        assert (await ended(call))[0] is EndReason.HANGUP
        await answered.wait_ended()


# The beginning of a call.


async def test_a_cancel_before_the_ringing(people, monkeypatch):
    """CALL-18: a Cancel that comes while the Ringing is prepared ends that; it does not count."""
    async with people() as (alice, bob):
        await alice.message(bob.address, "hello")  # what follows does not wait for a session
        for _ in range(5):  # more often than unfinished exchanges are allowed
            held, let = anyio.Event(), anyio.Event()
            create = CallMedia.create.__func__

            async def late(cls, engine, held=held, let=let, create=create):
                made = await create(cls, engine)
                if engine is bob._calls._engine:
                    held.set()
                    await let.wait()
                return made

            with monkeypatch.context() as patch:
                patch.setattr(CallMedia, "create", classmethod(late))
                call = await alice.call(bob.address)
                with anyio.fail_after(PATIENCE):
                    await held.wait()
                    await call.hangup()
                await settled(lambda: bob._calls._live is None)
        assert unfinished(bob, alice) == 0
        await talking(alice, bob)


async def test_an_offer_too_many_opens_nothing(people, monkeypatch):
    """CALL-08: the fourth exchange is refused before a connection is made for it."""
    async with people() as (alice, bob):
        await alice.message(bob.address, "hello")
        opened = []
        services = type(bob._services)
        open_link = services.open_link

        async def counted(self, peer, *, at):
            opened.append(self)
            return await open_link(self, peer, at=at)

        monkeypatch.setattr(services, "open_link", counted)
        peer = Address.parse(alice.address)
        for number in range(3):
            call_id = bytes([number]) * 16
            await bob._calls._exchanges.start(peer, call_id)
        call = await alice.call(bob.address)
        await settled(lambda: bob._calls._call is None)
        assert bob._services not in opened
        await call.hangup()


async def test_exchanges_that_end_and_begin_at_once_are_both_counted(people):
    """CALL-08: two changes of one peer's count, made at the same moment, do not undo each other."""
    async with people() as (alice, bob):
        peer, exchanges = Address.parse(bob.address), alice._calls._exchanges
        first, second = os.urandom(16), os.urandom(16)
        await exchanges.start(peer, first)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(exchanges.start, peer, second)
            tasks.start_soon(exchanges.finish, peer, first)
        guard = exchanges.guard(peer)
        assert [entry.call_id for entry in guard.unfinished] == [second]
        assert guard.rung == (first, second)


async def test_a_call_stays_with_one_identity(people):
    """CALL-21, IDENTITY-14: if another identity is accepted meanwhile, the call does not go on."""
    async with people() as (alice, bob):
        other = IdentityKey.generate().public
        call, _ = await talking(alice, bob)
        contacts = alice._services.sessions.contacts
        marked = replace(
            contacts.get(Address.parse(bob.address)), identity_changed=True, other_identity=other
        )
        await alice._services.store.write([marked.change()])
        await alice.accept_identity(bob.address, alice.changed_fingerprint(bob.address))
        assert await ended(call) == (EndReason.HANGUP, False)
        with anyio.fail_after(PATIENCE):
            await call.closed.wait()


async def test_a_call_with_somebody_forgotten_ends(people):
    """CALL-21: who is forgotten is talked to no longer."""
    async with people() as (alice, bob):
        call, answered = await talking(alice, bob)
        await alice.forget(bob.address)
        assert await ended(call) == (EndReason.HANGUP, False)
        assert bob.address not in [contact.address for contact in alice.contacts()]
        await answered.hangup()


async def test_nothing_is_left_of_a_call_with_somebody_forgotten(people):
    """Who is forgotten in a call is gone with it: its end, which is told, brings nothing back."""
    async with people() as (alice, bob):
        call, answered = await talking(alice, bob)
        address = bob.address.encode()
        await alice.forget(bob.address)
        assert await ended(answered) == (EndReason.HANGUP, True)
        assert call.closed.is_set()
        assert not alice._calls._running
        assert alice.history() == ()
        left = [
            kind
            for (kind, key), value in alice._services.store._records.items()
            if address in key + value
        ]
        assert set(left) <= {RecordKind.GUARD}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_identity_accepted_by_who_was_cancelled(people, monkeypatch):
    """CALL-21: a call with the former identity ends also where nobody waits for it any more."""
    async with people() as (alice, bob):
        call, _ = await talking(alice, bob)
        contacts = alice._services.sessions.contacts
        marked = replace(
            contacts.get(Address.parse(bob.address)),
            identity_changed=True,
            other_identity=IdentityKey.generate().public,
        )
        await alice._services.store.write([marked.change()])
        shown = alice.changed_fingerprint(bob.address)
        store = alice._services.store
        write = store.write

        async def cancelled(changes):
            await write(changes)
            if any(change.kind is RecordKind.PEER and not change.value for change in changes):
                asyncio.current_task().cancel()
                await anyio.lowlevel.checkpoint()

        monkeypatch.setattr(store, "write", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.ensure_future(alice.accept_identity(bob.address, shown))
        assert await ended(call) == (EndReason.HANGUP, False)


async def test_the_link_of_a_call_has_one_identity(people):
    """CALL-21: nothing is sealed for another identity than the first message was for."""
    async with people() as (alice, bob):
        peer = Address.parse(bob.address)
        link = await alice._services.open_link(peer, at=alice._services.endpoint)
        cancel = Cancel(bytes(16), 0, LeaveReason.NORMAL, None)
        await link.send(cancel, None)
        assert link._identity == alice._services.sessions.identity_key(peer)
        link._identity = bytes(32)
        before = dict(alice._services.store._records)
        with pytest.raises(e2ecall.IdentityChangedError):
            await link.send(cancel, None)
        assert alice._services.store._records == before
        link.close()


async def test_prekeys_come_from_the_relay_in_the_address(people):
    """IDENTITY-17, IDENTITY-11: the callee's relay is not asked for a caller of another relay."""
    async with people() as (alice, bob):
        here = Address.parse(bob.address)
        link = await alice._services.open_link(here, at=alice._services.endpoint)
        assert (await link.fetch_bundle(here, None)).device_id == 1
        with pytest.raises(e2ecall.NotReachableError, match="relay in the address"):
            await link.fetch_bundle(Address(here.username, "elsewhere.example"), None)
        link.close()


async def test_calls_that_find_the_line_busy_are_answered_few_at_a_time(people):
    """CALL-18: a flood of Offers makes four connections at a time, not one for each."""
    async with people() as (alice, bob):
        await talking(alice, bob)
        count = bob._calls._answering_busy = calls._MAX_BUSY
        bob._calls._refuse_busy(Address.parse(alice.address), None)
        assert bob._calls._answering_busy == count
        bob._calls._answering_busy = 0


# What goes wrong inside.


async def test_a_relay_that_names_an_impossible_turn_server(people, monkeypatch):
    """MEDIA-16: the call fails, the client lives."""
    from e2ecall.client.calllink import CallLink

    async with people() as (alice, bob):
        with monkeypatch.context() as patch:
            patch.setattr(CallLink, "turn_uris", lambda *_: ("turn:127.0.0.1:99999",))
            call = await alice.call(bob.address)
            assert (await ended(call))[0] in {EndReason.MEDIA_FAILED, EndReason.PEER_FAILED}
        await settled(lambda: bob._calls._live is None)
        await talking(alice, bob)


@pytest.mark.parametrize("jump", [-7200.0, 7200.0], ids=["back", "forward"])
async def test_the_time_of_day_is_set_in_a_call(people, monkeypatch, jump):
    """CALL-13: who sets the time of day neither ends a call that rings or is connected, nor keeps
    one from its end.
    """
    real, ahead, slept = time.time, [0.0], [0.0]
    boot = time.clock_gettime
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    monkeypatch.setattr(time, "clock_gettime", lambda which: boot(which) + slept[0])
    async with people() as (alice, bob):
        call, incoming = await ringing(alice, bob)
        ahead[0] = jump
        for end in (call, incoming.call):
            end.on_time()
            assert end.ended is None
        answered = await incoming.accept(**media(video=False))
        await until(call, e2ecall.Connected)
        await until(answered, e2ecall.Connected)
        for end in (call, answered):
            end.on_time()
            assert end.ended is None
        slept[0] = 361.0  # a machine that slept: no new epoch in time
        assert (await ended(call))[0] is EndReason.KEYS_EXPIRED


async def test_media_that_fails_just_after_the_deadline(tmp_path, relay):
    """CALL-13: a failure that comes when the time is over ends the call with that, and no more."""
    offset = [0.0]
    async with (
        person(tmp_path, relay, "alice", clock=lambda: time.time() + offset[0]) as alice,
        person(tmp_path, relay, "bob") as bob,
    ):
        call, incoming = await ringing(alice, bob)
        held, real = anyio.Event(), call._start_media

        async def fail_late(_):
            held.set()
            offset[0] = 31.0
            call.fail(EndReason.MEDIA_FAILED)

        call._start_media = fail_late
        assert real is not None
        await incoming.accept()
        assert (await ended(call))[0] is EndReason.TIMEOUT
        assert held.is_set()
        offset[0] = 0.0
        await settled(lambda: bob._calls._live is None)
        await alice.message(bob.address, "still here")


@pytest.mark.parametrize("where", ["_first_frame", "_keep_time", "_gather", "receive"])
async def test_an_error_of_the_program_ends_one_call(people, monkeypatch, caplog, where):
    """CALL-19: what should never be raised is logged and ends this call, not the client."""

    def broken(*_):
        raise ZeroDivisionError

    async def broken_task(*_):
        raise ZeroDivisionError

    async with people() as (alice, bob):
        with monkeypatch.context() as patch:
            owner = protocol.Call if where == "receive" else shell.Call
            sync = where in {"_first_frame", "receive"}
            patch.setattr(owner, where, broken if sync else broken_task)
            call = await alice.call(bob.address, **media(video=False))
            if where == "_first_frame":
                incoming = await next_call(bob)
                await incoming.accept(**media(video=False))
            assert (await ended(call))[0] in {EndReason.CONNECTION_LOST, EndReason.PEER_FAILED}
        with anyio.fail_after(PATIENCE):
            await call.closed.wait()
        assert "ended by an error" in caplog.text
        await settled(lambda: bob._calls._live is None)
        await talking(alice, bob)


async def test_a_message_that_cannot_be_taken(people, monkeypatch, caplog):
    """CALL-19: what goes wrong with an Offer does not end the account's line."""
    async with people() as (alice, bob):
        with monkeypatch.context() as patch:
            patch.setattr(shell.Call, "__init__", lambda *_, **__: 1 // 0)
            patch.setattr(bob._calls, "_take_other", lambda *_: 1 // 0)
            from e2ecall.client.receiving import Opened

            opened = Opened(*[None] * (len(Opened.__slots__) - 2), True, False)
            bob._calls.take(opened, None, bob._home)
        assert "could not be taken" in caplog.text
        await talking(alice, bob)


async def test_media_failures_are_told_apart(people):
    """A transport that reports its end ends the call with the reason that belongs to it."""
    async with people() as (alice, bob):
        call, _ = await talking(alice, bob)
        call.media._peer._deliver(MediaFailed(FailureReason.SILENT))
        assert (await ended(call))[0] is EndReason.CONNECTION_LOST
