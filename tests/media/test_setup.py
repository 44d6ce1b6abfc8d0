"""How a path comes about, and stays, where much of what sets it up is lost or slow."""

from contextlib import suppress

import aioice.ice
import anyio
import pytest

from e2ecall.media.events import MediaConnected, PathLost
from e2ecall.protocol.messages import Stream
from tests.media import peers
from tests.media.lossy import PICTURE, LossyPath

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """Run the test on one event loop; media has its own in any case."""
    return "asyncio"


@pytest.fixture
def path(turn):
    path = LossyPath(turn.uri)
    yield path
    path.close()


def told(side):
    """Return what a side was told and nobody has read."""
    events = []
    with suppress(anyio.WouldBlock):
        while True:
            events.append(side.peer.events.receive_nowait())
    return events


async def connected(turn, path):
    """Place a call whose callee is behind the path, and wait until both ends are connected."""
    async with peers.call(turn, callee_uri=path.uri) as pair:
        await pair.connected()
        await pair.callee.received(Stream.MICROPHONE, 10)


async def test_requests_are_sent_again_at_one_pace(turn, path):
    """MEDIA-38: a call comes about whose every request of TURN and ICE is lost four times.

    With waits that double the fifth time is after 7.5 s, and there are two requests in a row
    before the relay has to have answered, within 8 s.
    """
    path.lose_first("request", 4)
    await connected(turn, path)


async def test_datagrams_of_the_handshake_are_sent_often(turn, path):
    """MEDIA-37: a call comes about though of each datagram of the handshake three are lost.

    What OpenSSL sends again after a second is another datagram, of which three are lost too.
    """
    path.lose_first("handshake", 3)
    await connected(turn, path)


async def test_a_round_trip_longer_than_half_a_second_is_consent_enough(turn, path, monkeypatch):
    """MEDIA-38: an answer after 700 ms counts, and the path stays."""
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 2)
    path.hold_up(None, 0.7)  # whatever is no RTP
    async with peers.call(turn, callee_uri=path.uri) as pair:
        await pair.connected()
        # Two questions that go unanswered take 1.2 s, and these 4 s.
        await pair.callee.received(Stream.MICROPHONE, 200)
        assert not any(isinstance(event, PathLost) for event in told(pair.callee))


async def test_n4_what_comes_twice_counts_once(turn, path):
    """N4: with every datagram both ways twice a call comes about, SRTP takes each packet once, and
    nothing reaches the keys of frames a second time.
    """
    path.repeat()
    async with peers.call(turn, callee_uri=path.uri) as pair:
        await pair.connected()
        await pair.callee.received(Stream.MICROPHONE, 100)
        await pair.callee.received(Stream.CAMERA, 30)
        came, sent = pair.callee.peer.stats(), pair.caller.peer.stats()
    assert came.refused == sent.refused == 0
    assert came.datagrams_received > 1.5 * sent.sent[Stream.MICROPHONE].frames
    for stream in peers.BOTH:
        assert came.received[stream].frames <= sent.sent[stream].frames


async def test_requests_for_packets_go_on_where_their_numbers_begin_again(turn, path, monkeypatch):
    """MEDIA-20: packets on both sides of number 65535 that are lost come again."""
    monkeypatch.setattr("aiortc.rtcrtpsender.random_sequence_number", lambda: 65_520)
    path.lose_numbers(PICTURE, {65_534, 65_535, 0, 1})
    async with peers.call(turn, callee_uri=path.uri) as pair:
        await pair.start()
        await pair.callee.until(MediaConnected)
        await pair.callee.received(Stream.CAMERA, 60)
    assert path.lost == [PICTURE] * 4
