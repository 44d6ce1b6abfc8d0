"""Two peers in one process through the real TURN server, on trio and on asyncio."""

from collections import Counter
from dataclasses import replace

import aioice.stun
import anyio
import msgspec
import numpy as np
import pytest

from e2ecall.errors import LocalProtocolError, MediaError, Reason, RemoteProtocolError
from e2ecall.media import ice
from e2ecall.media.engine import MediaEngine, MediaIdentity, Settings
from e2ecall.media.events import (
    FailureReason,
    FirstFrame,
    MediaConnected,
    MediaFailed,
    PathLost,
    PeerClosed,
)
from e2ecall.media.repeats import HANDSHAKE_TIMES
from e2ecall.media.sources import GeneratedAudio
from e2ecall.protocol.messages import Candidate, CandidateType, Stream
from tests.media.peers import BOTH, call, sources, start, tone

pytestmark = pytest.mark.anyio

# Short, and yet longer than a loaded machine may hold up what goes well.
QUICK = Settings(watch_interval=0.05, silence_timeout=2.0, connect_timeout=10.0)
IMPATIENT = Settings(watch_interval=0.05, connect_timeout=0.5)
MICROPHONE, CAMERA = Stream.MICROPHONE, Stream.CAMERA


# The good case.


async def test_sound_and_picture_arrive_and_decode(turn):
    """Both directions, both streams: what was generated comes out of the decoder."""
    async with call(turn) as pair:
        await pair.start()
        for side in (pair.caller, pair.callee):
            await side.until(MediaConnected)
            await side.received(MICROPHONE, 25)
            await side.received(CAMERA, 20)
            assert {(await side.until(FirstFrame)).stream for _ in BOTH} == set(BOTH)
    for side in (pair.caller, pair.callee):
        sound = side.sink.of(MICROPHONE)
        assert [part.rtp_time for part in sound[:5]] == [n * 960 for n in range(5)]
        assert np.abs(sound[20].frame.to_ndarray().astype(int)).max() > 5000
        pictures = side.sink.of(CAMERA)
        levels = [int(p.frame.to_ndarray()[4:28, 4:28].mean()) for p in pictures[:20]]
        assert levels == pytest.approx([20 + n % 20 * 10 for n in range(20)], abs=6)
        assert side.peer.stats().refused == 0
        assert side.sink.closed


async def test_each_datagram_of_the_handshake_is_sent_twice(turn):
    """MEDIA-37: a handshake survives losses that would cost it seconds."""
    async with call(turn) as pair:
        await pair.connected()
    # An end that repeats a flight by itself gives its records new numbers. What is not answered for
    # a quarter of a second, as on a machine that has much to do, is sent once more.
    handshake = Counter(data for _, data in turn.forwarded if data[0] in (20, 22))
    assert len(handshake) >= 4
    assert all(2 <= times <= 2 + HANDSHAKE_TIMES for times in handshake.values())


async def test_the_answer_may_come_in_any_order(turn, monkeypatch):
    """PATH: checks that crossed are repeated at once, not after a retransmission time-out."""
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 20.0)
    for first, second in (("caller", "callee"), ("callee", "caller")):
        async with call(turn) as pair:
            one, two = getattr(pair, first), getattr(pair, second)
            await start(one, two, controlling=first == "caller")
            with anyio.fail_after(15):
                await anyio.sleep(0.05)  # its check goes out, and the relay drops it
                await start(two, one, controlling=second == "caller")
                await two.until(MediaConnected)
                await one.until(MediaConnected)


async def test_a_call_of_sound_only(turn):
    """A transport can describe and send a microphone alone."""
    async with call(turn, streams=(MICROPHONE,)) as pair:
        await pair.start(streams=(MICROPHONE,))
        await pair.callee.received(MICROPHONE, 5)
        assert pair.callee.peer.stats().received.keys() == {MICROPHONE}


async def test_closing_tells_the_peer(turn):
    """The other side gets an authenticated end, as the last event."""
    async with call(turn) as pair:
        await pair.connected()
        await pair.caller.peer.close()
        await pair.callee.until(PeerClosed)
        await pair.callee.peer.close()
        await pair.callee.peer.close()
        assert [event async for event in pair.callee.peer.events] == []


async def test_calls_in_a_row_on_one_engine(turn):
    """An engine serves one call after another, and two at a time."""
    async with MediaEngine() as engine:
        for _ in range(3):
            identity = MediaIdentity.generate(BOTH)
            credential, _ = turn.credentials()
            peer = await engine.create_peer(local=identity)
            await peer.gather((turn.uri,), credential.username, credential.password)
            await peer.close()
        async with call(turn) as one, call(turn) as two:
            await one.connected()
            await two.connected()


# Before accept.


async def test_nothing_goes_towards_the_peer_before_start(turn):
    """MEDIA-07: after gathering and preparing, the relay has forwarded nothing."""
    async with call(turn) as pair:
        await pair.caller.peer.prepare(sources())
        await pair.callee.peer.prepare(sources())
        await anyio.sleep(0.05)
        assert turn.forwarded == []
        assert (
            turn.core.counters.packets_forwarded == 0
            if hasattr(turn.core.counters, "packets_forwarded")
            else True
        )
        await start(pair.callee, pair.caller, controlling=False, sources=None)
        await start(pair.caller, pair.callee, controlling=True, sources=None)
        await pair.callee.received(CAMERA, 3)


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate(CandidateType.HOST, "198.18.0.1", 4000),
        Candidate(CandidateType.SRFLX, "198.18.0.1", 4000),
        Candidate(CandidateType.RELAY, "127.0.0.1", 4000),
        Candidate(CandidateType.RELAY, "169.254.169.254", 80),
        Candidate(CandidateType.RELAY, "198.20.0.1", 4000),
        Candidate(CandidateType.RELAY, "::ffff:198.18.0.1", 4000),
        Candidate(CandidateType.RELAY, "198.018.0.1", 4000),
        Candidate(CandidateType.RELAY, "printer.local", 4000),
    ],
)
async def test_any_other_candidate_is_refused(turn, candidate):
    """MEDIA-01: only relayed addresses of the relay's own range; nothing is sent."""
    async with call(turn) as pair:
        with pytest.raises(RemoteProtocolError) as refused:
            await start(pair.caller, pair.callee, controlling=True, remote_candidates=(candidate,))
        assert refused.value.reason is Reason.BAD_CANDIDATE
        assert pair.caller.peer.stats().datagrams_sent == 0
    assert turn.forwarded == []


async def test_a_bad_description_is_refused(turn):
    """MEDIA-05: what the peer describes is checked again where it is used."""
    async with call(turn) as pair:
        description = pair.callee.identity.description
        twice = msgspec.structs.replace(description, streams=description.streams * 2)
        with pytest.raises(RemoteProtocolError) as refused:
            await start(pair.caller, pair.callee, controlling=True, remote=twice)
        assert refused.value.reason is Reason.BAD_MEDIA_DESCRIPTION


async def test_misuse_is_refused(turn):
    """Starting twice, without keys, without gathering, or with a wrong source says so."""
    async with call(turn) as pair:
        caller, callee = pair.caller, pair.callee
        with pytest.raises(LocalProtocolError):
            await start(caller, callee, controlling=True, sender_keys={})
        with pytest.raises(LocalProtocolError):
            await start(caller, callee, controlling=True, sources={CAMERA: GeneratedAudio(tone)})
        with pytest.raises(LocalProtocolError):
            await start(
                caller, callee, controlling=True, sources={Stream.SCREEN: sources()[CAMERA]}
            )
        await start(caller, callee, controlling=True)
        with pytest.raises(LocalProtocolError):
            await start(caller, callee, controlling=True)
        with pytest.raises(LocalProtocolError):
            await caller.peer.prepare(sources())
        with pytest.raises(LocalProtocolError):
            await caller.peer.gather((turn.uri,), "x", "y")
    async with MediaEngine() as engine:
        peer = await engine.create_peer(local=MediaIdentity.generate(BOTH))
        with pytest.raises(LocalProtocolError):
            await start(replace(pair.caller, peer=peer), pair.callee, controlling=True)
    with pytest.raises(MediaError):
        await engine.create_peer(local=MediaIdentity.generate(BOTH))
    with pytest.raises(MediaError):
        peer.set_muted(MICROPHONE, True)


# Gathering.


async def test_a_wrong_credential_is_a_clear_error(turn):
    """The relay's refusal has a reason that a person understands."""
    async with MediaEngine() as engine:
        peer = await engine.create_peer(local=MediaIdentity.generate(BOTH))
        credential, _ = turn.credentials()
        with pytest.raises(MediaError, match="credential"):
            await peer.gather((turn.uri,), credential.username, "wrong")


async def test_a_silent_relay_is_a_clear_error(silent_server, monkeypatch):
    """No answer is reported after the time-out, with a hint."""
    monkeypatch.setattr(ice, "GATHER_TIMEOUT", 0.1)
    async with MediaEngine() as engine:
        peer = await engine.create_peer(local=MediaIdentity.generate(BOTH))
        with pytest.raises(MediaError, match="does not answer") as error:
            await peer.gather((silent_server,), "u", "p")
        assert error.value.hint


async def test_cancelled_gathering_leaves_nothing(silent_server):
    """Cancellation returns at once; so does closing while gathering."""
    async with MediaEngine() as engine:
        for cancel in (True, False):
            peer = await engine.create_peer(local=MediaIdentity.generate(BOTH))
            with anyio.fail_after(ice.GATHER_TIMEOUT - 1):
                async with anyio.create_task_group() as tasks:

                    async def gather(peer=peer, cancel=cancel):
                        try:
                            await peer.gather((silent_server,), "u", "p")
                        except MediaError:
                            assert not cancel

                    tasks.start_soon(gather)
                    await anyio.sleep(0.05)
                    if cancel:
                        tasks.cancel_scope.cancel()
                    else:
                        await peer.close()


@pytest.mark.parametrize(
    "uri",
    ["stun:127.0.0.1:3478", "turn:127.0.0.1", "turn:a@127.0.0.1:1", "turn:127.0.0.1:1?transport=x"],
)
async def test_other_servers_are_refused(uri):
    """MEDIA-01, MEDIA-16: nothing but TURN servers in their known form, no STUN server ever."""
    async with MediaEngine() as engine:
        peer = await engine.create_peer(local=MediaIdentity.generate(BOTH))
        with pytest.raises(MediaError):
            await peer.gather((uri,), "u", "p")


async def test_a_relayed_address_outside_the_range_is_refused(turn):
    """MEDIA-01: a relay that hands out other addresses is not used."""
    from ipaddress import IPv4Network

    settings = Settings(networks=(IPv4Network("10.0.0.0/8"),))
    with pytest.raises(MediaError, match="no call may use"):
        async with call(turn, settings=settings):
            pass


# Who answers.


async def test_another_certificate_is_refused(turn):
    """MEDIA-02, R8: a fingerprint that does not match ends media; nothing is rendered or sent."""
    async with call(turn) as pair:
        remote = msgspec.structs.replace(pair.caller.identity.description, fingerprint=bytes(32))
        await start(pair.callee, pair.caller, controlling=False, remote=remote)
        await start(pair.caller, pair.callee, controlling=True)
        failed = await pair.callee.until(MediaFailed, MediaConnected)
        assert failed == MediaFailed(FailureReason.WRONG_FINGERPRINT)
        assert pair.callee.peer.stats().sent[MICROPHONE].frames == 0
    assert not pair.callee.sink.frames
    assert not pair.caller.sink.frames


async def test_a_peer_that_never_starts_is_noticed(turn):
    """MEDIA-10: without an answer to ICE, media fails after the connect time-out."""
    async with call(turn, settings=IMPATIENT) as pair:
        await start(pair.caller, pair.callee, controlling=True)
        assert await pair.caller.until(MediaFailed) == MediaFailed(FailureReason.NOT_CONNECTED)


async def test_a_peer_that_vanishes_is_noticed(turn):
    """MEDIA-10: silence of the peer ends media within the time-out, without any goodbye."""
    async with call(turn, settings=QUICK) as pair:
        await pair.connected()
        await pair.callee.received(MICROPHONE, 3)

        async def nowhere(data, component):
            pass

        pair.caller.peer._session._path.connection.sendto = nowhere
        assert await pair.callee.until(MediaFailed) == MediaFailed(FailureReason.SILENT)


async def test_a_lost_allocation_is_noticed(turn):
    """MEDIA-40: when the local path is gone, that is told at once, and media waits for another."""
    async with call(turn) as pair:
        await pair.connected()
        await pair.caller.peer._thread.run(pair.caller.peer._session._path.connection.close)
        lost = await pair.caller.until(PathLost, MediaFailed)
        assert lost.silent < 10


async def test_a_relay_that_vanishes_is_noticed_and_closing_does_not_hang(turn):
    """MEDIA-10: both sides fail, and the engines still close within seconds."""
    with anyio.fail_after(40):
        async with call(turn, settings=QUICK) as pair:
            await pair.connected()
            await pair.callee.received(MICROPHONE, 3)
            turn.stop()
            await pair.caller.until(MediaFailed)
            await pair.callee.until(MediaFailed)
