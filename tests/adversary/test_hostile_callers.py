"""Callers who send what they like, in any order, to a client that runs (P1, P2, P11, R8)."""

import dataclasses
import itertools
import os
import random
import time

import anyio
import msgspec
import pytest

import e2ecall
from e2ecall import EndReason
from e2ecall.client import calllink, callsteps, home
from e2ecall.protocol.call import Call
from e2ecall.protocol.call_exchange import CallerSecrets, RekeySecrets
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.exchange_guard import MAX_UNFINISHED
from e2ecall.protocol.messages import (
    Answer,
    Candidate,
    Candidates,
    CandidateType,
    MediaState,
    Offer,
    RekeyRequest,
    Renegotiate,
    Reveal,
    Ringing,
    Stream,
    Text,
)
from e2ecall.testing import moving_picture, running_relay
from relay.wire.names import Address
from tests.adversary.captured import datagrams, sent_streams
from tests.adversary.test_offers import Clock
from tests.client.test_glare import acquainted, crossing
from tests.integration.people import (
    PATIENCE,
    ended,
    frames,
    media,
    next_call,
    ringing,
    texts,
    two_people,
    until,
)

pytestmark = pytest.mark.anyio

VIDEO = 97
"""Payload type of a camera (spec/media.md)."""

RELAYED = Candidate(CandidateType.RELAY, "198.18.7.7", 4_711)


@pytest.fixture
def anyio_backend():
    """Only what happens between clients is of interest here."""
    return "trio"


def crafted(call, counters):
    """Return one of each message that a peer could think of, with the counters and MACs due."""
    call_id, mac = call._machine.call_id, bytes(64)
    secrets = RekeySecrets.generate()
    made = [
        Answer(call_id, next(counters), True, True, (RELAYED,), mac),
        Answer(call_id, next(counters), True, False, (), mac),
        Candidates(call_id, next(counters), (RELAYED,), mac),
        MediaState(call_id, next(counters), False, True, True, False, False, mac),
        Renegotiate(call_id, next(counters), True, mac),
        RekeyRequest(call_id, next(counters), 1, mac),
        secrets.rekey(call_id, next(counters), 1),
        Text(call_id, next(counters), "turn it on", mac),
    ]
    return [call._machine._channel.sign(message) for message in made]


async def send(call, messages):
    for message in messages:
        await call._link.send(message, call._machine.peer_box)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("reveals", [True, False], ids=["while it rings", "before it rings"])
async def test_any_message_before_the_accept(tmp_path, monkeypatch, reveals, seed):
    """P1, CALL-07: whatever a caller sends before the accept, in any order, with right MACs, the
    callee sends the relay nothing but its allocation, and its accept still makes a call.
    """
    send_now, kept = Call.messages_to_send, []

    def without_reveal(self):
        messages = send_now(self)
        kept.extend(message for message in messages if isinstance(message, Reveal))
        return [message for message in messages if not isinstance(message, Reveal)]

    if not reveals:
        monkeypatch.setattr(Call, "messages_to_send", without_reveal)
    capture = tmp_path / "capture"
    async with (
        running_relay("--capture", str(capture)) as relay,
        two_people(tmp_path, relay) as (alice, bob),
    ):
        call = await alice.call(bob.address, **media())
        await until(call, e2ecall.Ringing)
        incoming = await next_call(bob) if reveals else None
        victim = bob._calls._call
        while not victim._gathered:  # noqa: ASYNC110 - it has no event
            await anyio.sleep(0.01)
        shuffled = crafted(call, itertools.count(20)) + crafted(call, itertools.count(40))
        random.Random(seed).shuffle(shuffled)
        await send(call, shuffled)
        if not reveals:
            monkeypatch.setattr(Call, "messages_to_send", send_now)
            await send(call, kept)
            incoming = await next_call(bob)
        await alice.message(bob.address, "all of that has arrived")
        await texts(bob, 1)
        await anyio.sleep(0.5)  # nothing tells when something does not happen
        accepted_at = time.time()
        answered = await incoming.accept(**media(video=False))
        await until(answered, e2ecall.Connected)
        assert answered.controls.camera is False
        assert victim is answered
        await call.hangup()
    early = {kind for at, _, kind in datagrams(capture) if at < accepted_at}
    assert early == {"Allocate"}
    assert [kind for at, _, kind in sent_streams(capture) if at < accepted_at] == []
    assert list(sent_streams(capture))


async def test_nobody_turns_a_camera_on_but_its_user(tmp_path):
    """P2, CALL-30: whatever a peer sends in a call, the relay counts no packet of the other end's
    camera, until its own user turns it on.
    """
    capture = tmp_path / "capture"
    async with (
        running_relay("--capture", str(capture)) as relay,
        two_people(tmp_path, relay) as (alice, bob),
    ):
        at_alice, at_bob = media(video=False), media(video=False)
        call, incoming = await ringing(alice, bob, **at_alice)
        answered = await incoming.accept(**at_bob)
        for end in (call, answered):
            await until(end, e2ecall.Connected)
        for start in (100, 120, 140):
            shuffled = crafted(call, itertools.count(start))
            random.Random(start).shuffle(shuffled)
            await send(call, shuffled)
        assert await until(answered, e2ecall.VideoAsked) == e2ecall.VideoAsked(video=True)
        await frames(at_bob["output"], Stream.MICROPHONE, 50)
        assert answered.controls == Controls()
        turned_on_at = time.time()
        await answered.camera(True, moving_picture(1))
        await frames(at_alice["output"], Stream.CAMERA, 5)
        await call.hangup()
    pictures = [at for at, _, kind in sent_streams(capture) if kind == VIDEO]
    assert pictures
    assert min(pictures) >= turned_on_at


ALTERED = {
    "fingerprint": lambda media: msgspec.structs.replace(media, fingerprint=bytes(32)),
    "ICE credential": lambda media: msgspec.structs.replace(media, ice_pwd="x" * 22),
    "codec": lambda media: msgspec.structs.replace(
        media,
        streams=tuple(
            msgspec.structs.replace(stream, payload_type=stream.payload_type + 10)
            for stream in media.streams
        ),
    ),
}


@pytest.mark.parametrize("what", ALTERED)
@pytest.mark.parametrize("kind", [Offer, Ringing])
async def test_altered_on_the_way(people, monkeypatch, kind, what):
    """R8, CALLKEY-02: an Offer or Ringing that arrives with another fingerprint, ICE credential or
    codec, also from inside of the ratchet, ends the call before it rings, and before any media.
    """
    where = home if kind is Offer else calllink
    decode = where.decode_call_message

    def altered(body):
        message = decode(body)
        if isinstance(message, kind):
            return msgspec.structs.replace(message, media=ALTERED[what](message.media))
        return message

    monkeypatch.setattr(where, "decode_call_message", altered)
    victims, ring = [], callsteps.CallSteps.ring

    def watched_ring(self, *arguments):
        victims.append(self)
        ring(self, *arguments)

    monkeypatch.setattr(callsteps.CallSteps, "ring", watched_ring)
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        at_alice, rang = media(), []

        async def listen():
            rang.append(await next_call(bob))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            call = await alice.call(bob.address, **at_alice)
            await until(call, e2ecall.Ringing)
            (victim,) = victims
            with anyio.fail_after(PATIENCE):
                assert (await victim.wait_ended()).reason is EndReason.NOT_AUTHENTIC
            # What bob says of it has no MAC that alice could check: she hears that nobody answers.
            clock.ahead += 61
            assert (await ended(call))[0] in {EndReason.NO_ANSWER, EndReason.PEER_FAILED}
            tasks.cancel_scope.cancel()
        assert not rang
        assert call.media.stats().datagrams_sent == victim.media.stats().datagrams_sent == 0
        assert not at_alice["output"].frames


async def test_a_call_id_that_comes_again(people, monkeypatch):
    """P11, CALL-08: an Offer with the CallId of one that rang does not ring, and nothing goes back
    from which a second spoken code could be had.
    """
    generate, call_id = CallerSecrets.generate.__func__, os.urandom(16)

    def again(cls):
        return dataclasses.replace(generate(cls), call_id=call_id)

    async with people() as (alice, bob):
        with monkeypatch.context() as patch:
            patch.setattr(CallerSecrets, "generate", classmethod(again))
            call, incoming = await ringing(alice, bob)
            first = incoming.call.sas
            await call.hangup()
            await incoming.call.closed.wait()
            second = await alice.call(bob.address)
            await alice.message(bob.address, "did it ring?")
            await texts(bob, 1)
            assert second.sas is None
            await second.hangup()
        third, incoming = await ringing(alice, bob)
        assert incoming.call.sas == third.sas != first
        await incoming.decline()
        with anyio.fail_after(PATIENCE):
            await third.closed.wait()


async def test_broken_off_in_glare(people, monkeypatch):
    """P11, CALL-08, CALL-09: whose Offer wins against the victim's own and is then broken off has
    no more tries than anybody: after three, nothing is answered, and the victim sees each one end.
    """
    send_now = Call.messages_to_send

    def without_reveal(self):
        return [message for message in send_now(self) if not isinstance(message, Reveal)]

    first, generate = [], CallerSecrets.generate.__func__

    def chosen(cls):
        made = generate(cls)
        return dataclasses.replace(made, call_id=first.pop(0) + made.call_id[1:]) if first else made

    monkeypatch.setattr(CallerSecrets, "generate", classmethod(chosen))
    monkeypatch.setattr(Call, "messages_to_send", without_reveal)
    clock = Clock()
    async with people(clock=clock) as (victim, eve):
        await acquainted(victim, eve)
        for tries in range(MAX_UNFINISHED):
            first[:] = [b"\x80", b"\x00"]
            mine, theirs = await crossing(monkeypatch, (victim, {}), (eve, {}))
            await until(theirs, e2ecall.Ringing)
            assert victim._calls._exchanges.count(Address.parse(eve.address)) == tries + 1
            clock.ahead += 11
            assert await ended(mine) == (EndReason.NOT_AUTHENTIC, False)
            assert await ended(theirs) == (EndReason.PEER_FAILED, True)
        first[:] = [b"\x80", b"\x00"]
        mine, theirs = await crossing(monkeypatch, (victim, {}), (eve, {}))
        assert (await ended(mine))[0] is not EndReason.HANGUP
        assert theirs.sas is None
        await theirs.hangup()
        assert theirs.sas is None
