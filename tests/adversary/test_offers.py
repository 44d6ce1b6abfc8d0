"""Who rings without the right to: replays, unproven names, withheld or forged nonces."""

import time

import anyio
import msgspec
import pytest

import e2ecall
from e2ecall import EndReason
from e2ecall.crypto.random import generate_bytes
from e2ecall.io.connection import RelayConnection
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.protocol import session
from e2ecall.protocol.call import Call
from e2ecall.protocol.exchange_guard import MAX_UNFINISHED
from e2ecall.protocol.messages import Reveal
from e2ecall.testing import running_relay
from relay.wire.messages import AccountRecipient, Done, Send
from tests.adversary.captured import requests
from tests.integration.people import (
    ended,
    person,
    ringing,
    texts,
    two_people,
    until,
)

pytestmark = pytest.mark.anyio


DAY = 86_400


class Clock:
    def __init__(self, ahead=0.0):
        self.ahead = ahead

    def __call__(self):
        return time.time() + self.ahead


async def send_again(url, sends):
    """Give envelopes to the relay a second time, as messages that it has not seen."""
    connection = await RelayConnection.connect(RelayEndpoint.parse(url), None)

    async def nothing(_delivery):
        pass

    async def run():
        await connection.run(nothing)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        for send in sends:
            fresh = msgspec.structs.replace(send, message_id=generate_bytes(16))
            await connection.request(fresh, Done)
        tasks.cancel_scope.cancel()


async def test_replayed_envelopes(tmp_path):
    """R4: a replayed text does not show again, a replayed Offer does not ring: no restart helps."""
    capture = tmp_path / "capture"
    async with running_relay("--capture", str(capture)) as relay:
        async with two_people(tmp_path, relay) as (alice, bob):
            await alice.message(bob.address, "once")
            call, incoming = await ringing(alice, bob)
            await call.hangup()
            await incoming.call.closed.wait()
            to_bob = [
                send
                for send in requests(capture, Send)
                if send.recipient == AccountRecipient(bob.address.partition("@")[0], 1)
            ]
            assert len(to_bob) >= 2  # the text and the Offer
            await send_again(relay.url, to_bob)
        async with two_people(tmp_path, relay) as (alice, bob):
            await send_again(relay.url, to_bob)
            await alice.message(bob.address, "twice")
            assert [text.text for text in await texts(bob, 2)] == ["once", "twice"]
            # Had one of the replays rung, this call would find bob busy or be the second.
            call, incoming = await ringing(alice, bob)
            assert call.sas == incoming.call.sas
            await call.hangup()


async def test_unproven_name_does_not_ring(people, tmp_path, relay, monkeypatch):
    """P12: without a relay's word for the name a text shows as unproven, and a call is silent."""
    original = session._initial

    def without_certificate(local, *arguments):
        initial = original(local, *arguments)
        if initial is None or "eve" not in str(local.address):
            return initial
        return msgspec.structs.replace(initial, certificate=None)

    monkeypatch.setattr(session, "_initial", without_certificate)
    async with people() as (alice, bob), person(tmp_path, relay, "eve") as eve:
        silent = await eve.call(bob.address)
        await eve.message(bob.address, "it is me")
        (text,) = await texts(bob, 1)
        assert (text.sender, text.proven) == (eve.address, False)
        # The Offer came before the text. Had it been taken, bob would be busy now.
        call, incoming = await ringing(alice, bob)
        assert incoming.caller == alice.address
        await incoming.decline()
        await ended(call)
        await silent.hangup()
        assert await ended(silent) == (EndReason.CANCELLED, False)


async def test_withheld_nonce(people, monkeypatch):
    """P5, P11: who never opens the commitment does not ring; after three tries nothing answers."""
    send = Call.messages_to_send

    def without_reveal(self):
        return [message for message in send(self) if not isinstance(message, Reveal)]

    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        with monkeypatch.context() as patch:
            patch.setattr(Call, "messages_to_send", without_reveal)
            for _ in range(MAX_UNFINISHED):
                call = await alice.call(bob.address)
                await until(call, e2ecall.Ringing)
                clock.ahead += 11
                assert await ended(call) == (EndReason.PEER_FAILED, True)
        refused = await alice.call(bob.address)
        await alice.message(bob.address, "hello?")
        await texts(bob, 1)
        clock.ahead += 61
        assert await ended(refused) == (EndReason.NO_ANSWER, False)
        assert refused.sas is None
        clock.ahead += 600
        call, incoming = await ringing(alice, bob)
        await incoming.decline()
        await ended(call)


async def test_forged_nonce(people, monkeypatch):
    """P5: a nonce that does not open the commitment ends the call visibly, before it rings."""
    send = Call.messages_to_send

    def forged(self):
        return [
            self._channel.sign(msgspec.structs.replace(message, nonce=bytes(32)))
            if isinstance(message, Reveal)
            else message
            for message in send(self)
        ]

    monkeypatch.setattr(Call, "messages_to_send", forged)
    async with people() as (alice, bob):
        rang = []

        async def listen():
            rang.append(await anext(bob.incoming()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            call = await alice.call(bob.address)
            assert await ended(call) == (EndReason.PEER_FAILED, True)
            tasks.cancel_scope.cancel()
        assert not rang


async def test_another_identity_under_a_known_name(tmp_path, relay):
    """R5: a known name with another identity is IdentityChanged; nothing gets through."""
    honest, wiped, impostor = (tmp_path / name for name in ("honest", "wiped", "impostor"))
    for folder in (wiped, impostor):
        folder.mkdir()
    clock = Clock()
    async with person(tmp_path, relay, "alice", clock=clock) as alice:
        async with running_relay("--data-dir", str(honest)) as other:
            listen = ("--signalling", other.url.removeprefix("ws://"))
            # Of a time when its keys still hold for a day.
            async with person(tmp_path, other, "bob", clock=Clock(-17 * DAY)) as bob:
                address = bob.address
                await alice.message(address, "hello")
                await texts(bob, 1)
        # The relay keeps its key and forgets its accounts, so that the name is free again.
        (wiped / "relay.key").write_bytes((honest / "relay.key").read_bytes())
        clock.ahead = 2 * DAY
        async with (
            running_relay("--data-dir", str(wiped), *listen) as other,
            e2ecall.Client.open(impostor / "bob.db", passphrase="x", relay=other.url) as eve,
        ):
            await eve.register(address.partition("@")[0])
            assert eve.address == address
            await eve.message(alice.address, "it is me, with a new phone")
            with pytest.raises(e2ecall.IdentityChangedError):
                await alice.message(address, "secret")
            with pytest.raises(e2ecall.IdentityChangedError):
                await alice.call(address)
            assert await nothing_comes(alice)
            assert await nothing_comes(eve)


async def nothing_comes(client):
    with anyio.move_on_after(0.1):
        await texts(client, 1)
        return False
    return True
