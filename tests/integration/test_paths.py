"""Calls whose path dies, through a real relay: it is replaced, or the call ends and says why.

Here one end's datagrams are not sent any more, which is what a dead network looks like.
"""

from itertools import pairwise

import anyio
import pytest

import e2ecall
from e2ecall import EndReason, RelayError
from e2ecall.client.calllink import CallLink
from e2ecall.media.events import FailureReason
from e2ecall.media.path import MediaPath
from e2ecall.protocol.messages import Path, PathReady, PathReply, PathRequest, Stream
from tests.integration.people import PATIENCE, ended, frames, until
from tests.integration.test_rekeying import Clock, connected, settled, wire  # noqa: F401

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]

SOUND, PICTURE = Stream.MICROPHONE, Stream.CAMERA


async def nowhere(data, component):
    """Send nothing."""


def cut(*calls):
    """Let nothing of these ends through on the path that they use now."""
    for call in calls:
        call.media._peer._session._path.connection.sendto = nowhere


async def in_epoch(number, *calls):
    """Wait until these ends send in one epoch, this one or a later: a path may have failed."""

    def agreed():
        assert not any(call.ended for call in calls)
        epochs = {call._machine.epoch for call in calls}
        return len(epochs) == 1 and min(epochs) >= number

    await settled(agreed)


async def more(sink, stream, count):
    """Wait until so many more frames of a stream came."""
    await frames(sink, stream, len(sink.of(stream)) + count)


@pytest.fixture
def sent(monkeypatch):
    """Note the types of messages that are sent in calls."""
    kinds, send = [], CallLink.send

    async def noted(link, message, box):
        kinds.append(type(message))
        await send(link, message, box)

    monkeypatch.setattr(CallLink, "send", noted)
    return kinds


@pytest.mark.parametrize("dead", ["caller", "callee", "both"])
async def test_a_dead_path_is_replaced(people, wire, sent, dead):  # noqa: F811
    """CALL-40, MEDIA-41, N2: in the same call, with sound and picture, by whoever misses whom."""
    async with people() as (alice, bob):
        call, answered, at_alice, at_bob = await connected(alice, bob)
        code = call._machine.sas
        silent = {"caller": (call,), "callee": (answered,), "both": (call, answered)}[dead]
        cut(*silent)
        # Whoever still hears the other learns of it, too: it is not heard itself.
        for end in (call, answered):
            await until(end, e2ecall.Reconnecting)
            await until(end, e2ecall.Reconnected)
        await in_epoch(1, call, answered)
        for sink in (at_alice, at_bob):
            await more(sink, SOUND, 25)
            await more(sink, PICTURE, 10)
            times = [received.rtp_time for received in sink.of(SOUND)]
            assert times == sorted(times)
        assert call._machine.sas == answered._machine.sas == code
        assert call.media.stats().refused == answered.media.stats().refused == 0
        await call.hangup()
        assert await ended(answered) == (EndReason.HANGUP, True)
    assert len(set(wire["sent"])) == len(wire["sent"])
    assert {Path, PathReply, PathReady} <= set(sent)
    if dead != "both":  # where both miss each other, the Path may come before the callee asks
        assert (PathRequest in sent) is (dead == "caller")


async def test_one_path_after_the_other(people, wire):  # noqa: F811
    """CALL-44: a path that replaced one is replaced as well."""
    async with people() as (alice, bob):
        call, answered, at_alice, at_bob = await connected(alice, bob, video=False)
        for _ in range(3):
            before = call._machine.epoch
            cut(call, answered)
            for end in (call, answered):
                await until(end, e2ecall.Reconnected)
            await in_epoch(before + 1, call, answered)
            for sink in (at_alice, at_bob):
                await more(sink, SOUND, 25)
        await call.hangup()
    assert wire["refused"] == []


async def test_a_gap_is_no_dead_path(people, sent):
    """CALL-40: a second and a half of nothing brings no message and no new epoch."""
    async with people() as (alice, bob):
        call, answered, _, at_bob = await connected(alice, bob, video=False)
        connection = call.media._peer._session._path.connection
        send, connection.sendto = connection.sendto, nowhere
        await anyio.sleep(1.5)
        connection.sendto = send
        await more(at_bob, SOUND, 50)
        assert call._machine.epoch == answered._machine.epoch == 0
        assert not {Path, PathRequest} & set(sent)
        await call.hangup()


async def test_rekeying_goes_on_after_a_move(people, wire):  # noqa: F811
    """CALLKEY-14, CALLKEY-19: the epoch after the path's begins five minutes later, unheard."""
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, answered, at_alice, at_bob = await connected(alice, bob, video=False)
        cut(call, answered)
        for end in (call, answered):
            await until(end, e2ecall.Reconnected)
        for sink in (at_alice, at_bob):
            await more(sink, SOUND, 25)
        await in_epoch(1, call, answered)
        before = call._machine.epoch  # more than one where a path did not come about in time
        clock.ahead += 300
        await in_epoch(before + 1, call, answered)
        await more(at_bob, SOUND, 25)
        await call.hangup()
    assert wire["refused"] == []


@pytest.mark.parametrize("slow", ["caller", "callee"])
async def test_a_path_that_one_end_alone_reaches(people, monkeypatch, slow):
    """CALL-45, MEDIA-41: another one follows, which both reach, and the keys go on changing."""
    clock, connect = Clock(), MediaPath.connect

    async def failing(path, *given):
        failure = await connect(path, *given)
        end = "caller" if path.connection.ice_controlling else "callee"
        return FailureReason.NOT_CONNECTED if (path.epoch, end) == (1, slow) else failure

    monkeypatch.setattr(MediaPath, "connect", failing)
    async with people(clock=clock) as (alice, bob):
        call, answered, at_alice, at_bob = await connected(alice, bob, video=False)
        cut(call, answered)
        await in_epoch(2, call, answered)
        for sink in (at_alice, at_bob):
            await more(sink, SOUND, 25)
        before = call._machine.epoch
        clock.ahead += 300
        await in_epoch(before + 1, call, answered)
        await more(at_bob, SOUND, 25)
        await call.hangup()


async def test_a_path_that_dies_during_a_rekey(people, monkeypatch):
    """CALLKEY-19: a callee that waits for a frame which cannot come takes the Path for it."""
    clock = Clock()
    async with people(clock=clock) as (alice, bob):
        call, answered, _, at_bob = await connected(alice, bob, video=False)
        cut(call, answered)
        clock.ahead += 300
        await in_epoch(2, call, answered)
        await until(answered, e2ecall.Reconnected)
        await more(at_bob, SOUND, 25)
        await call.hangup()


@pytest.mark.parametrize("lost", [Path, PathReply, PathReady, PathRequest])
async def test_a_lost_message_is_made_up_for(people, monkeypatch, lost):
    """CALL-45: whichever message of a move is lost, its copy has the same effect."""
    gone, send = [], CallLink.send

    async def losing(link, message, box):
        if isinstance(message, lost) and not gone:
            gone.append(message)
            return
        await send(link, message, box)

    monkeypatch.setattr(CallLink, "send", losing)
    async with people() as (alice, bob):
        call, answered, _, at_bob = await connected(alice, bob, video=False)
        cut(call)
        with anyio.fail_after(PATIENCE):
            await in_epoch(1, call, answered)
        await until(answered, e2ecall.Reconnected)
        await more(at_bob, SOUND, 25)
        assert gone
        await call.hangup()


async def test_the_call_ends_where_no_path_comes_about(people, monkeypatch):
    """CALL-46: a relay that carries messages and no media ends the call; both ends say the same."""
    clock = Clock()

    async def dropping(link, message, box):
        """Lose what would replace the path."""

    async with people(clock=clock) as (alice, bob):
        call, answered, *_ = await connected(alice, bob, video=False)
        monkeypatch.setattr(CallLink, "send", dropping)
        cut(call, answered)
        for end in (call, answered):
            await until(end, e2ecall.Reconnecting)
        clock.ahead += 27
        for end in (call, answered):
            assert await ended(end) == (EndReason.CONNECTION_LOST, False)


async def test_an_allocation_that_comes_at_the_end(people, caplog):
    """CALL-43: who hangs up in the moment in which it has allocated answers no Path any more."""
    async with people() as (alice, bob):
        call, answered, *_ = await connected(alice, bob, video=False)
        gather = answered._gather_path

        async def and_leave(*asked):
            made = await gather(*asked)
            answered.leave()
            return made

        answered._gather_path = and_leave
        cut(call, answered)
        assert await ended(answered) == (EndReason.HANGUP, False)
        assert await ended(call) == (EndReason.HANGUP, True)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_callee_that_waits_is_understood(people, monkeypatch):
    """CALLKEY-16: who hangs up before a PathReady came is not taken for somebody who was lost."""
    clock, send = Clock(), CallLink.send

    async def losing(link, message, box):
        if not isinstance(message, PathReady):
            await send(link, message, box)

    monkeypatch.setattr(CallLink, "send", losing)
    async with people(clock=clock) as (alice, bob):
        call, answered, *_ = await connected(alice, bob, video=False)
        cut(call, answered)
        await in_epoch(1, call)
        clock.ahead += 11
        await answered.hangup()
        assert await ended(call) == (EndReason.HANGUP, True)


async def test_a_callee_that_gets_no_ticket_asks_less_and_less(people):
    """CALL-45: after one, two and four seconds; with the first that it gets the call goes on."""
    asked = []
    async with people() as (alice, bob):
        call, answered, *_ = await connected(alice, bob, video=False)
        fetch = answered.fetch_ticket

        async def refused():
            asked.append(anyio.current_time())
            if len(asked) < 4:
                raise RelayError("not now")
            return await fetch()

        answered.fetch_ticket = refused
        cut(call, answered)
        for end in (call, answered):
            await until(end, e2ecall.Reconnected)
        await call.hangup()
    pauses = [later - earlier for earlier, later in pairwise(asked[:4])]
    assert all(pause >= least for pause, least in zip(pauses, (1, 2, 4), strict=True))


@pytest.mark.parametrize("dead", ["caller", "callee", "both"])
async def test_a_path_that_dies_before_the_first_frame(people, monkeypatch, dead):
    """CALL-47: whoever saw one, both ends are connected over the path that takes its place."""
    send = MediaPath.send

    async def dying(path, outgoing):
        end = "caller" if path.connection.ice_controlling else "callee"
        if path.epoch == 0 and dead in (end, "both"):
            path.connection.sendto = nowhere
        await send(path, outgoing)

    monkeypatch.setattr(MediaPath, "send", dying)
    async with people() as (alice, bob):
        call, answered, *sinks = await connected(alice, bob, video=False)
        await in_epoch(1, call, answered)
        for sink in sinks:
            await more(sink, SOUND, 25)
        await call.hangup()
        assert await ended(answered) == (EndReason.HANGUP, True)
