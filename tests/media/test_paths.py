"""A transport whose path is replaced (spec/media.md, "Another path"), by a real TURN server."""

import asyncio
import gc
import secrets
import threading
import time
import weakref
from dataclasses import replace

import anyio
import pytest

from e2ecall.errors import LocalProtocolError, MediaError, RemoteProtocolError
from e2ecall.media.engine import MediaIdentity, Settings
from e2ecall.media.epochs import EpochChange
from e2ecall.media.events import (
    FailureReason,
    FirstFrame,
    FrameRefused,
    MediaConnected,
    PathAlive,
    PathFailed,
    PathLost,
    PeerClosed,
    Quality,
)
from e2ecall.protocol.callkeys import FrameKey
from e2ecall.protocol.messages import Candidate, CandidateType, Stream
from e2ecall.protocol.sframe import SFrameSender
from e2ecall.protocol.sframe_header import key_id
from e2ecall.secret import Secret
from tests.media.peers import BOTH, CALLEE, CALLER, call, start

pytestmark = pytest.mark.anyio

QUICK = Settings(watch_interval=0.05, lost_after=1.5, replace_timeout=10.0)
MICROPHONE, CAMERA = Stream.MICROPHONE, Stream.CAMERA


def change(secret, sender, epoch, *, own_epoch=None):
    """Return the keys of an epoch as one end sees them; ``own_epoch`` lets it send in another."""

    def key(stream, of, number):
        return Secret(secret + bytes((number, of, stream))), key_id(number, stream, of)

    number = epoch if own_epoch is None else own_epoch
    senders = {stream: SFrameSender(*key(stream, sender, number)) for stream in BOTH}
    receiving = [key(stream, 1 - sender, epoch) for stream in BOTH]
    keys = tuple(FrameKey(kid, base_key) for base_key, kid in receiving)
    return EpochChange(epoch, senders, keys, True, 10.0)


async def gather(turn, pair, epoch):
    """Allocate another path at both ends; return identities and candidates."""
    made = []
    for side, credential in zip((pair.caller, pair.callee), turn.credentials(), strict=True):
        identity = MediaIdentity.generate(BOTH)
        candidates = await side.peer.gather_path(
            identity, epoch, (turn.uri,), credential.username, credential.password
        )
        made.append((identity.description, candidates))
    return made


async def move(turn, pair, epoch, *, sides=("caller", "callee"), **changes):
    """Have the path replaced; ``changes`` are what the caller is told of the callee's."""
    secret = secrets.token_bytes(29)
    caller, callee = await gather(turn, pair, epoch)
    if "callee" in sides:
        await pair.callee.peer.replace_path(*caller, change(secret, CALLEE, epoch))
    if "caller" in sides:
        described = replace_struct(callee[0], changes)
        await pair.caller.peer.replace_path(described, callee[1], change(secret, CALLER, epoch))


def replace_struct(description, changes):
    from msgspec.structs import replace as changed

    return changed(description, **changes)


async def nowhere(data, component):
    """Send nothing."""


async def test_sound_and_picture_go_over(turn):
    """MEDIA-41: after each move frames come in its epoch, none is refused, and time goes on."""
    async with call(turn) as pair:
        await pair.start()
        for epoch in (1, 2, 3):
            for side in (pair.caller, pair.callee):
                await side.received(CAMERA, len(side.sink.of(CAMERA)) + 5)
            await move(turn, pair, epoch)
            for side in (pair.caller, pair.callee):
                assert await side.until(PathAlive, PathFailed) == PathAlive(epoch)
        for side in (pair.caller, pair.callee):
            await side.received(MICROPHONE, len(side.sink.of(MICROPHONE)) + 10)
            await side.received(CAMERA, len(side.sink.of(CAMERA)) + 5)
            stats = side.peer.stats()
            assert stats.refused == 0
            assert stats.received[CAMERA].decoded >= len(side.sink.of(CAMERA)) - 2
            assert not any(isinstance(event, PathLost | FrameRefused) for event in side.events)
            for stream in BOTH:
                times = [received.rtp_time for received in side.sink.of(stream)]
                assert times == sorted(set(times))
            sound = side.sink.of(MICROPHONE)
            assert sound[-1].rtp_time < (len(sound) + 500) * 960
            firsts = [event.stream for event in side.events if isinstance(event, FirstFrame)]
            assert sorted(firsts) == sorted(set(firsts))


async def test_a_path_that_was_left_leaves_nothing(turn):
    """MEDIA-41: whatever received on it, decoders and queues included, is free after some moves."""
    async with call(turn) as pair:
        await pair.connected()
        sides = (pair.caller, pair.callee)
        for side in sides:
            await side.received(MICROPHONE, 3)
        left = [
            weakref.ref(stream)
            for side in sides
            for stream in side.peer._session._path.incoming.values()
        ]
        for epoch in (1, 2):
            await move(turn, pair, epoch)
            for side in sides:
                assert await side.until(PathAlive, PathFailed) == PathAlive(epoch)
        with anyio.fail_after(60):
            while any(stream() is not None for stream in left):
                await anyio.sleep(0.1)
                gc.collect()
        for side in sides:
            await side.received(MICROPHONE, len(side.sink.of(MICROPHONE)) + 10)


async def test_a_path_that_is_not_up_is_not_replaced(turn):
    """CALL-47: before the handshake of the first path no other is begun at this end."""
    async with call(turn) as pair:
        await start(pair.caller, pair.callee, controlling=True)
        with pytest.raises(LocalProtocolError):
            await gather(turn, pair, 1)
        await start(pair.callee, pair.caller, controlling=False)
        for side in (pair.caller, pair.callee):
            await side.until(MediaConnected)
        await move(turn, pair, 1)
        for side in (pair.caller, pair.callee):
            assert await side.until(PathAlive, PathFailed) == PathAlive(1)


async def test_silence_is_told_and_its_end(turn):
    """MEDIA-40: the path is lost after the time that is set, and alive when it is heard again."""
    async with call(turn, settings=QUICK) as pair:
        await pair.connected()
        await pair.callee.received(MICROPHONE, 3)
        connection = pair.caller.peer._session._path.connection
        send, connection.sendto = connection.sendto, nowhere
        lost = await pair.callee.until(PathLost)
        assert 1.5 < lost.silent < 10
        connection.sendto = send
        assert await pair.callee.until(PathAlive) == PathAlive(0)


async def test_a_machine_that_stood_still_loses_no_path(turn):
    """MEDIA-40: what came while nothing was read counts, though it is read late."""
    async with call(turn, settings=replace(QUICK, quality_interval=0.5)) as pair:
        await pair.connected()
        await pair.callee.received(MICROPHONE, 3)
        peer = pair.callee.peer

        async def stand_still():
            time.sleep(2.0)  # noqa: ASYNC251 - the loop itself is held up

        await peer._thread.run(stand_still)
        for _ in range(3):  # the first may be from before
            assert isinstance(await pair.callee.until(Quality, PathLost), Quality)


async def test_ice_checks_are_no_sign_of_life(turn):
    """MEDIA-40: a path on which nothing but STUN comes through is lost."""
    async with call(turn, settings=QUICK) as pair:
        await pair.connected()
        await pair.callee.received(MICROPHONE, 3)
        transport = pair.caller.peer._session._path.dtls

        async def silent(data):
            """Encrypt and send nothing: ICE below still answers."""

        transport._send_rtp = silent
        await pair.callee.until(PathLost)
        before = pair.callee.peer._session._path.heard_at
        connection = pair.caller.peer._session._path.connection
        await pair.caller.peer._thread.run(connection.sendto, b"\x80\x60" + bytes(30), 1)
        await anyio.sleep(0.3)
        assert pair.callee.peer._session._path.heard_at == before


async def test_a_path_that_nobody_answers_changes_nothing(turn):
    """MEDIA-41: it fails in time, and the present path and its keys stay as they are."""
    settings = replace(QUICK, replace_timeout=1.0)
    async with call(turn, settings=settings) as pair:
        await pair.connected()
        await move(turn, pair, 1, sides=("caller",))
        failed = await pair.caller.until(PathFailed)
        assert failed == PathFailed(1, FailureReason.NOT_CONNECTED)
        for side in (pair.caller, pair.callee):
            await side.received(MICROPHONE, len(side.sink.of(MICROPHONE)) + 25)
            assert side.peer.stats().refused == 0
        await move(turn, pair, 2)
        for side in (pair.caller, pair.callee):
            assert await side.until(PathAlive) == PathAlive(2)


async def test_r8_another_certificate_on_a_new_path(turn):
    """R8, MEDIA-42: who is not the one that was described gets no path, and it is told apart."""
    async with call(turn) as pair:
        await pair.connected()
        await move(turn, pair, 1, fingerprint=secrets.token_bytes(32))
        failed = await pair.caller.until(PathFailed, PathAlive)
        assert failed == PathFailed(1, FailureReason.WRONG_FINGERPRINT)


async def test_frames_of_the_old_epoch_are_refused_on_the_new_path(turn):
    """CALL-43, MEDIA-41, R9: also if their keys live and they are authentic."""
    async with call(turn) as pair:
        await pair.connected()
        caller, callee = await gather(turn, pair, 1)
        secret = secrets.token_bytes(29)
        mine = change(secret, CALLER, 1)
        old = pair.caller.peer._session._outgoing
        kept = {stream: track._key.encryptor for stream, track in old.items() if track._key}
        # The caller goes on with the keys of epoch 0 on the new path.
        mine = replace(mine, senders={stream: kept[stream] for stream in mine.senders})
        await pair.callee.peer.replace_path(*caller, change(secret, CALLEE, 1))
        await pair.caller.peer.replace_path(*callee, mine)
        assert await pair.callee.until(PathAlive) == PathAlive(1)
        assert (await pair.callee.until(FrameRefused)).count >= 1


async def test_a_path_is_checked_where_it_is_used(turn):
    """MEDIA-05, MEDIA-07: a wrong description, address, epoch or moment sends nothing."""
    async with call(turn) as pair:
        with pytest.raises(LocalProtocolError):
            await gather(turn, pair, 1)  # media has not started
        await pair.connected()
        _, (described, candidates) = await gather(turn, pair, 1)
        keys = change(secrets.token_bytes(29), CALLER, 1)
        outside = (Candidate(CandidateType.HOST, "192.0.2.1", 9),)
        with pytest.raises(RemoteProtocolError):
            await pair.caller.peer.replace_path(described, outside, keys)
        with pytest.raises(RemoteProtocolError):
            streams = {"streams": described.streams[::-1]}
            await pair.caller.peer.replace_path(
                replace_struct(described, streams), candidates, keys
            )
        with pytest.raises(LocalProtocolError):
            other = change(secrets.token_bytes(29), CALLER, 2)
            await pair.caller.peer.replace_path(described, candidates, other)
        await gather(turn, pair, 2)
        with pytest.raises(LocalProtocolError):
            await pair.caller.peer.replace_path(described, candidates, keys)
        for side in (pair.caller, pair.callee):
            await side.received(MICROPHONE, len(side.sink.of(MICROPHONE)) + 10)


async def test_a_relay_that_refuses_a_path_changes_nothing(turn):
    """MEDIA-41: an end that cannot allocate says so, and its present path goes on."""
    async with call(turn) as pair:
        await pair.connected()
        with pytest.raises(MediaError):
            await pair.caller.peer.gather_path(
                MediaIdentity.generate(BOTH), 1, (turn.uri,), "1:nobody", "wrong"
            )
        await pair.callee.received(MICROPHONE, len(pair.callee.sink.of(MICROPHONE)) + 10)


async def test_closing_in_the_middle_of_a_move(turn):
    """MEDIA-41: media that ends while a path is made leaves nothing behind."""
    async with call(turn) as pair:
        await pair.connected()
        await move(turn, pair, 1, sides=("caller",))
        with anyio.fail_after(20):
            await pair.caller.peer.close()
            await pair.callee.peer.close()


async def test_closing_while_a_path_takes_over(turn):
    """MEDIA-41: the former path is closed, whatever media was waiting for when it ended."""
    async with call(turn) as pair:
        await pair.connected()
        session = pair.caller.peer._session
        former, held = session._path, threading.Event()
        stop = former.stop_sending

        async def slow():
            held.set()
            try:
                await asyncio.Event().wait()
            finally:
                await stop()

        former.stop_sending = slow
        await move(turn, pair, 1)
        with anyio.fail_after(40):
            await anyio.to_thread.run_sync(held.wait, 30)
            await pair.caller.peer.close()
        assert former.dtls.state == "closed"
        assert former._closing.done()


async def test_a_peer_that_left_a_path_is_not_gone(turn):
    """MEDIA-41: its old path ends when it moved, which this end may not have been able to."""
    settings = replace(QUICK, replace_timeout=1.0)
    async with call(turn, settings=settings) as pair:
        await pair.connected()
        await move(turn, pair, 1, sides=("caller",))
        await pair.caller.until(PathFailed)
        peer = pair.callee.peer
        await peer._thread.run(peer._session._path.dtls.stop)
        assert isinstance(await pair.caller.until(PathLost, PeerClosed), PathLost)
        await move(turn, pair, 2)
        for side in (pair.caller, pair.callee):
            assert await side.until(PathAlive) == PathAlive(2)
