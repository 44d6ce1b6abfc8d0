"""Calls that change their keys, through a real relay and real sockets (spec/callkeys.md).

The clock of both ends is set forward, so that five minutes are over at once. Nothing else is
different from a call that runs for as long.
"""

import time

import anyio
import pytest

import e2ecall
from e2ecall import EndReason
from e2ecall.client.calllink import CallLink
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.media import outgoing
from e2ecall.protocol.messages import Rekey, RekeyReply, RekeyRequest, Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from e2ecall.protocol.sframe_header import epoch_of, parse_header
from tests.integration.people import PATIENCE, ended, frames, media, ringing, until

pytestmark = pytest.mark.anyio

SOUND, PICTURE = Stream.MICROPHONE, Stream.CAMERA


class Clock:
    """The time of day, which a test can set forward."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


async def settled(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is asked has no event
            await anyio.sleep(0.005)


async def in_epoch(number, *calls):
    """Wait until these ends send in this epoch."""
    await settled(
        lambda: all(call.ended is None and call._machine.epoch == number for call in calls)
    )


async def connected(alice, bob, *, video=True):
    """Return both ends of a call that is up, and what each receives."""
    at_alice, at_bob = media(video), media(video)
    call, incoming = await ringing(alice, bob, **at_alice)
    answered = await incoming.accept(**at_bob)
    for end in (call, answered):
        await until(end, e2ecall.Connected)
    return call, answered, at_alice["output"], at_bob["output"]


@pytest.fixture
def wire(monkeypatch):
    """Note key id and counter of every frame that is encrypted, and what is refused."""
    seen = {"sent": [], "received": [], "refused": []}
    encrypt, decrypt = SFrameSender.encrypt, SFrameReceiver.decrypt

    def noted_encrypt(sender, frame, clear_prefix):
        protected = encrypt(sender, frame, clear_prefix)
        seen["sent"].append(parse_header(protected, clear_prefix)[:2])
        return protected

    def noted_decrypt(receiver, data, clear_prefix):
        try:
            plain = decrypt(receiver, data, clear_prefix)
        except RemoteProtocolError as error:
            seen["refused"].append((parse_header(data, clear_prefix)[:2], error.reason))
            raise
        seen["received"].append(parse_header(data, clear_prefix)[:2])
        return plain

    monkeypatch.setattr(SFrameSender, "encrypt", noted_encrypt)
    monkeypatch.setattr(SFrameReceiver, "decrypt", noted_decrypt)
    return seen


@pytest.fixture
def lossy(monkeypatch):
    """A set of message types; the first of each that an end sends is lost on the way."""
    to_lose, lost, send = set(), [], CallLink.send

    async def losing(link, message, box):
        if type(message) in to_lose:
            to_lose.discard(type(message))
            lost.append(message)
            return
        await send(link, message, box)

    monkeypatch.setattr(CallLink, "send", losing)
    return to_lose, lost


async def test_a_call_goes_on_through_many_epochs(people, wire):
    """CALLKEY-15, SFRAME-10, N2: no frame is refused, none is missing, no counter comes twice."""
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, answered, at_alice, at_bob = await connected(alice, bob)
        for number in range(1, 5):
            clock.ahead += 300
            await in_epoch(number, call, answered)
            for sink in (at_alice, at_bob):
                await frames(sink, SOUND, len(sink.of(SOUND)) + 10)
                await frames(sink, PICTURE, len(sink.of(PICTURE)) + 6)
        stats = [end.media.stats() for end in (call, answered)]
        await call.hangup()
        assert await ended(answered) == (EndReason.HANGUP, True)
    assert wire["refused"] == []
    assert {epoch_of(kid) for kid, _ in wire["sent"]} == {0, 1, 2, 3, 4}
    assert len(set(wire["sent"])) == len(wire["sent"])
    for kid in {kid for kid, _ in wire["sent"]}:
        for way in ("sent", "received"):  # each frame once and in order, to the last of the epoch
            counters = [ctr for known, ctr in wire[way] if known == kid]
            assert counters == list(range(len(counters)))
        if epoch_of(kid) < 4:
            assert sum(known == kid for known, _ in wire["sent"]) == len(counters)
    for side in stats:
        assert side.refused == 0
        assert not any(received.lost for received in side.received.values())
        assert side.sent[PICTURE].key_frames <= 3  # a gap would have made the peer ask for one


@pytest.mark.parametrize("leaves", ["caller", "callee"])
async def test_hanging_up_as_a_rekey_falls_due(people, leaves):
    """CALL-17, CALLKEY-14: whoever hangs up in the moment in which it is due, the call ends."""
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, answered, *_ = await connected(alice, bob, video=False)
        with anyio.fail_after(PATIENCE):
            clock.ahead += 300
            if leaves == "caller":
                await call.hangup()
            else:  # before any timer of the caller looks at the clock
                call.receive(_signed_hangup(answered))
                await call.closed.wait()
        assert call.ended == e2ecall.Ended(EndReason.HANGUP, leaves == "callee")


def _signed_hangup(call):
    """Return the Hangup with which a call ends at its own end."""
    call._machine.hangup(call._clock())
    (message,) = call._machine.messages_to_send()
    return message


@pytest.mark.parametrize("kind", [Rekey, RekeyReply])
async def test_a_lost_message_is_made_up_for(people, lossy, wire, kind):
    """CALLKEY-13: if a Rekey or its reply is lost, the copy 15 s later has the same effect."""
    to_lose, lost = lossy
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, answered, _, at_bob = await connected(alice, bob, video=False)
        to_lose.add(kind)
        clock.ahead += 300
        await settled(lambda: lost)
        assert call._machine.epoch == 0
        clock.ahead += 15
        await in_epoch(1, call, answered)
        await frames(at_bob, SOUND, len(at_bob.of(SOUND)) + 10)
        await call.hangup()
    assert wire["refused"] == []
    assert len(lost) == 1


@pytest.mark.parametrize("kind", [Rekey, RekeyReply])
async def test_a_relay_that_keeps_rekeys_back_ends_the_call(people, monkeypatch, kind):
    """CALLKEY-17: frames flow, but a minute after the keys were due both ends have left."""
    clock, send = Clock(), CallLink.send

    async def dropping(link, message, box):
        if not isinstance(message, kind):
            await send(link, message, box)

    monkeypatch.setattr(CallLink, "send", dropping)
    async with people(clock=clock) as (alice, bob):
        call, answered, _, at_bob = await connected(alice, bob, video=False)
        for step in (300, 20, 10, 10):
            clock.ahead += step
            await frames(at_bob, SOUND, len(at_bob.of(SOUND)) + 20)
            assert call.ended is answered.ended is None
        clock.ahead += 20
        reasons = [(await ended(end))[0] for end in (call, answered)]
        assert EndReason.KEYS_EXPIRED in reasons
        assert set(reasons) <= {EndReason.KEYS_EXPIRED, EndReason.PEER_FAILED}


async def test_the_callee_asks_at_the_frame_limit(people, monkeypatch, wire):
    """CALLKEY-14, SFRAME-05: a worn key of the callee brings a new epoch, before any time is up."""
    asked, send = [], CallLink.send

    async def noted(link, message, box):
        asked.append(type(message))
        await send(link, message, box)

    monkeypatch.setattr(CallLink, "send", noted)
    monkeypatch.setattr(outgoing, "WORN_FRAMES", 100)
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, incoming = await ringing(alice, bob, **media(video=False))
        monkeypatch.setattr(call.media._peer._session, "_report", _without_worn(call))
        answered = await incoming.accept(**media(video=False))
        await in_epoch(1, call, answered)
        assert asked.count(RekeyRequest) == 1
        await call.hangup()
    assert wire["refused"] == []


def _without_worn(call):
    """Return what a session reports with, but for its own worn keys."""
    session = call.media._peer._session
    report = session._report

    def reported(event):
        if type(event).__name__ != "KeyWorn":
            report(event)

    return reported


async def test_the_caller_changes_at_its_own_frame_limit(people, monkeypatch):
    """CALLKEY-14: worn keys of the caller need no word of the callee."""
    monkeypatch.setattr(outgoing, "WORN_FRAMES", 100)
    async with people() as (alice, bob):
        call, answered, _, at_bob = await connected(alice, bob, video=False)
        await in_epoch(1, call, answered)
        await frames(at_bob, SOUND, len(at_bob.of(SOUND)) + 10)
        await call.hangup()


async def test_rekeying_while_muted(people, wire):
    """CALL-20: a muted caller sends silence in the new epoch, which moves the callee as well."""
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, answered, _, at_bob = await connected(alice, bob, video=False)
        await call.mute()
        await answered.mute()
        clock.ahead += 300
        await in_epoch(1, call, answered)
        await call.unmute()
        assert await until(answered, e2ecall.MediaState) == e2ecall.MediaState(True, False)
        assert await until(answered, e2ecall.MediaState) == e2ecall.MediaState(False, False)
        await frames(at_bob, SOUND, len(at_bob.of(SOUND)) + 10)
        await call.hangup()
        assert await ended(answered) == (EndReason.HANGUP, True)
    assert wire["refused"] == []


async def test_r11_frames_of_a_former_epoch_are_refused_in_a_real_call(people, wire, monkeypatch):
    """R11, CALLKEY-16, SFRAME-11: when old keys are gone, frames that were kept back are too."""
    kept, decrypt = [], SFrameReceiver.decrypt

    def keeping(receiver, data, clear_prefix):
        if not kept:  # the relay keeps the first one of all back
            kept.append((receiver, data, clear_prefix))
            raise RemoteProtocolError(Reason.UNKNOWN_FRAME_KEY)
        return decrypt(receiver, data, clear_prefix)

    monkeypatch.setattr(SFrameReceiver, "decrypt", keeping)
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, answered, *_ = await connected(alice, bob, video=False)
        for number in (1, 2):
            clock.ahead += 300
            await in_epoch(number, call, answered)
        receiver, data, clear_prefix = kept[0]
        with pytest.raises(RemoteProtocolError) as refused:
            decrypt(receiver, data, clear_prefix)
        assert refused.value.reason is Reason.UNKNOWN_FRAME_KEY
        await call.hangup()
