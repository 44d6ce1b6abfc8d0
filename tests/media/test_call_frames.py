"""What is in the frames of a call, what the network sees of them, and sinks that fail."""

import secrets
import struct
from itertools import pairwise

import anyio
import numpy as np
import pytest

from e2ecall.media import pacer
from e2ecall.media.description import PAYLOAD_TYPES, payload_types
from e2ecall.media.engine import Settings
from e2ecall.media.events import (
    FailureReason,
    FirstFrame,
    FrameRefused,
    MediaFailed,
    PeerClosed,
)
from e2ecall.media.sources import GeneratedAudio, GeneratedVideo
from e2ecall.protocol.messages import Stream
from tests.media.peers import call, picture, start, tone

pytestmark = pytest.mark.anyio

MICROPHONE, CAMERA = Stream.MICROPHONE, Stream.CAMERA


def rtp(turn, description, stream):
    """Return the RTP packets of one side's stream as the relay saw them, in order."""
    ssrc = next(d.ssrc for d in description.streams if d.stream == stream)
    packets = [data for _, data in turn.forwarded if len(data) > 12 and 128 <= data[0] < 192]
    return [
        data for data in packets if int.from_bytes(data[8:12]) == ssrc and not 192 <= data[1] < 224
    ]


# Frames.


async def test_a_wrong_key_renders_nothing(turn):
    """MEDIA-06, SFRAME-09, R10: frames under another key are counted, never decoded."""
    settings = Settings(watch_interval=0.05, undecryptable_frames=30)
    async with call(turn, callee_secret=secrets.token_bytes(30), settings=settings) as pair:
        await pair.connected()
        refused = await pair.callee.until(FrameRefused)
        assert refused.count == 1
        # Both refuse the other's frames; whose patience ends first tells the other.
        ends = [await side.until(MediaFailed, PeerClosed) for side in (pair.callee, pair.caller)]
        assert MediaFailed(FailureReason.UNDECRYPTABLE) in ends
        all_stats = [side.peer.stats() for side in (pair.callee, pair.caller)]
    assert not pair.callee.sink.frames
    assert not pair.caller.sink.frames
    assert max(stats.refused for stats in all_stats) >= 30
    for stats in all_stats:
        assert all(stream.frames == stream.decoded == 0 for stream in stats.received.values())


async def test_frames_of_one_stream_in_another_are_refused(turn):
    """R9: authentic frames of the same sender, spliced into another stream, are not rendered."""
    async with call(turn) as pair:
        keys = pair.caller.sender_keys
        pair.caller.sender_keys = {MICROPHONE: keys[CAMERA], CAMERA: keys[MICROPHONE]}
        await pair.connected()
        await pair.callee.until(FrameRefused)
        await pair.callee.until(FrameRefused)
        await pair.caller.received(MICROPHONE, 5)
    assert not pair.callee.sink.frames


class Plain:
    """A sender without encryption, as an attacker below the key exchange would be."""

    def encrypt(self, frame, clear_prefix):
        return frame


async def test_unencrypted_frames_are_refused(turn):
    """R10: valid Opus and VP8 in the clear is never decoded."""
    async with call(turn) as pair:
        pair.caller.sender_keys = {MICROPHONE: Plain(), CAMERA: Plain()}
        await pair.connected()
        await pair.callee.until(FrameRefused)
        await pair.caller.received(MICROPHONE, 25)
    assert not pair.callee.sink.frames


async def test_foreign_and_malformed_packets_change_nothing(turn):
    """MEDIA-09, N1: unknown SSRCs are ignored, an authentic packet with bad fields is counted."""
    async with call(turn) as pair:
        await pair.connected()
        await pair.callee.received(CAMERA, 2)
        session = pair.caller.peer._session
        rtx_ssrc = pair.caller.identity.description.streams[1].rtx_ssrc
        bad_extension = struct.pack("!HHI", 0xBEDE, 1, 0x30FF_0000)
        bad_remb = struct.pack("!BBHII4sI", 0x8F, 206, 4, rtx_ssrc, 0, b"REMB", 0xFF00_0000)

        async def inject():
            for ssrc in range(1, 500):
                if ssrc not in payload_types(pair.caller.identity.description):
                    header = struct.pack("!BBHII", 0x80, PAYLOAD_TYPES[CAMERA][0], 1, 1, ssrc)
                    await session._path.dtls._send_rtp(header + b"\x10x")
            # Nothing was sent with the retransmission's SSRC yet, so any sequence number will do.
            header = struct.pack("!BBHII", 0x90, PAYLOAD_TYPES[CAMERA][1], 9, 9, rtx_ssrc)
            await session._path.dtls._send_rtp(header + bad_extension + b"\x10x")
            await session._path.dtls._send_rtp(bad_remb)

        await pair.caller.peer._thread.run(inject)
        before = len(pair.callee.sink.of(MICROPHONE))
        await pair.callee.received(MICROPHONE, before + 10)
        stats = pair.callee.peer.stats()
        assert stats.datagrams_ignored >= 500
        assert len(pair.callee.peer._session._path.dtls._rtp_router.ssrc_table) <= 4


async def test_losses_are_repaired(turn):
    """N4: with every ninth packet lost, pictures go on, whole and in order."""
    async with call(turn) as pair:
        connection = pair.callee.peer._session._path.connection
        take, count = connection.data_received, [0]

        def lossy(data, component):
            count[0] += 1
            if count[0] % 9 or not 128 <= data[0] < 192:
                take(data, component)

        connection.data_received = lossy
        await pair.connected()
        await pair.callee.received(CAMERA, 45)
        await pair.callee.received(MICROPHONE, 40)
        times = [received.rtp_time for received in pair.callee.sink.of(CAMERA)]
        assert times == sorted(set(times))
        assert pair.callee.peer.stats().refused == 0


# What the network sees.


async def test_sound_packets_tell_nothing(turn, monkeypatch):
    """MEDIA-03, MEDIA-04, MEDIA-13: tone, silence and muted sound differ in nothing but bytes."""
    # A machine that stalls for long would move the schedule: that is not the claim here.
    monkeypatch.setattr(pacer, "MAX_LAG", 60.0)

    def speech(frame):
        return tone(frame) if frame // 5 % 2 else np.zeros(960, np.int16)

    async with call(turn, streams=(MICROPHONE,)) as pair:
        sound = {MICROPHONE: GeneratedAudio(speech)}
        await start(pair.callee, pair.caller, controlling=False, sources={})
        await start(pair.caller, pair.callee, controlling=True, sources=sound)
        await pair.callee.received(MICROPHONE, 30)
        pair.caller.peer.set_muted(MICROPHONE, True)
        muted_from = len(pair.callee.sink.of(MICROPHONE)) + 3
        await pair.callee.received(MICROPHONE, muted_from + 20)
        pair.caller.peer.set_muted(MICROPHONE, False)
        description = pair.caller.identity.description
    heard = pair.callee.sink.of(MICROPHONE)
    assert not np.any(heard[muted_from + 15].frame.to_ndarray())
    assert np.any(heard[8].frame.to_ndarray())
    packets = rtp(turn, description, MICROPHONE)
    assert len(packets) >= 50
    first = len(packets[0])
    # The SFrame counter takes no byte for 0 to 7, one up to 255.
    assert [len(data) - first for data in packets] == [int(n > 7) for n in range(len(packets))]
    assert {data[0] for data in packets} == {0x80}  # no header extension
    timestamps = [int.from_bytes(data[4:8]) for data in packets]
    steps = {(b - a) & 0xFFFF_FFFF for a, b in pairwise(timestamps)}
    assert steps == {960}


async def test_pictures_carry_only_the_send_time(turn):
    """MEDIA-04: the one header extension of video is abs-send-time."""
    async with call(turn) as pair:
        await pair.connected()
        await pair.callee.received(CAMERA, 3)
        description = pair.caller.identity.description
    packets = rtp(turn, description, CAMERA)
    assert len(packets) >= 3
    for data in packets:
        assert data[0] == 0x90
        assert struct.unpack_from("!HH", data, 12) == (0xBEDE, 1)
        assert data[16] == 0x32  # id 3, three bytes


# Sources and sinks that fail.


async def test_sources_that_fail_or_end_do_not_end_the_call(turn):
    """MEDIA-12: silence and a black picture take their place."""

    def broken(frame):
        if frame > 4:
            raise OSError("unplugged")
        return tone(frame)

    async with call(turn) as pair:
        await start(pair.callee, pair.caller, controlling=False)
        failing = {
            MICROPHONE: GeneratedAudio(broken),
            CAMERA: GeneratedVideo(picture, frames=3),
        }
        await start(pair.caller, pair.callee, controlling=True, sources=failing)
        await pair.callee.received(MICROPHONE, 25)
        await pair.callee.received(CAMERA, 4)
        await pair.caller.received(CAMERA, 4)
    assert pair.callee.sink.of(CAMERA)[3].frame.to_ndarray()[:100].max() < 30
    assert not np.any(pair.callee.sink.of(MICROPHONE)[24].frame.to_ndarray() > 50)


async def test_a_muted_camera_is_black_and_comes_back(turn):
    """MEDIA-13: a muted picture is a black one, and the next frame after it is shown again."""
    async with call(turn) as pair:
        pair.caller.peer.set_muted(CAMERA, True)
        await pair.connected()
        await pair.callee.received(CAMERA, 1)
        assert pair.callee.sink.of(CAMERA)[0].frame.to_ndarray()[:100].max() < 30
        pair.caller.peer.set_muted(CAMERA, False)
        await pair.callee.received(CAMERA, 10)
        assert pair.callee.sink.of(CAMERA)[-1].frame.to_ndarray()[:100].max() > 100


class FailingSink:
    async def write(self, stream, frame, rtp_time):
        raise OSError("disk full")

    async def close(self):
        raise OSError("disk full")


async def test_a_sink_that_fails_does_not_end_the_call(turn):
    """Its stream is dropped, the other one goes on."""
    async with call(turn) as pair:
        await start(pair.caller, pair.callee, controlling=True)
        sinks = {MICROPHONE: pair.callee.sink, CAMERA: FailingSink()}
        await start(pair.callee, pair.caller, controlling=False, sinks=sinks)
        await pair.callee.received(MICROPHONE, 20)
        assert pair.callee.peer.stats().received[CAMERA].decoded > 2


class StuckSink:
    async def write(self, stream, frame, rtp_time):
        await anyio.sleep(3600)

    async def close(self):
        pass


async def test_a_slow_sink_grows_nothing_and_closing_is_quick(turn):
    """MEDIA-09: frames that are not taken are dropped; close does not wait for a sink."""
    async with call(turn) as pair:
        await start(pair.caller, pair.callee, controlling=True)
        await start(pair.callee, pair.caller, controlling=False, sinks={CAMERA: StuckSink()})
        await pair.callee.until(FirstFrame)
        await pair.caller.received(CAMERA, 10)
        with anyio.fail_after(20):  # the sink takes an hour
            await pair.callee.peer.close()
