"""What a peer or relay sends to do harm, after the call's keys are agreed (spec/media.md)."""

import asyncio
import ssl
import struct
import threading

import anyio
import av
import numpy as np
import pytest
from aiortc import RTCDtlsTransport, RTCIceGatherer, RTCIceTransport
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtcpByePacket, RtcpReceiverInfo

from e2ecall.errors import MediaError
from e2ecall.media import hooks, incoming, video_jitter
from e2ecall.media.encoders.vp8 import VP8Encoder, check_picture
from e2ecall.media.engine import MediaEngine, MediaIdentity
from e2ecall.media.events import FirstFrame, MediaConnected, PeerClosed
from e2ecall.media.ice import allocate, relay_gatherer
from e2ecall.media.incoming import IncomingStream
from e2ecall.media.jitter import Fragment
from e2ecall.media.lips import Lips
from e2ecall.media.sinks import NullSink
from e2ecall.media.video_jitter import VideoJitterBuffer
from e2ecall.protocol.messages import Stream
from tests.media.peers import BOTH, call, start

MICROPHONE, CAMERA = Stream.MICROPHONE, Stream.CAMERA


# What the relay says.


@pytest.mark.parametrize(
    "server",
    [
        "127.0.0.1:99999",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "a..b:3478",
        "-a.example:3478",
        "a" * 64 + ".example:3478",
        ".:3478",
        "a" * 300 + ":3478",
        "\x00:3478",
        " :3478",
        "[]:1",
        "[::g]:1",
        "[1.2.3.4]:1",
        "::1:3478",
        "é\ud7ff:3478",
        "[fe80::1%eth0]:1",
        "127.0.0.1:1?transport=tls",
        "127.0.0.1:1?transport=udp&x",
    ],
)
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_turn_server_that_cannot_be(server):
    """MEDIA-16: what is no host and port is refused before a resolver or socket sees it."""
    with pytest.raises(MediaError, match="form"):
        relay_gatherer([f"turn:{server}"], "u", "p", ice_ufrag="abcd", ice_pwd="x" * 22)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_turn_servers_that_can_be():
    """MEDIA-16: a name, an IPv4 and an IPv6 address are hosts; UDP is first, and TLS last."""
    for host in ("relay.example", "relay.example.", "127.0.0.1", "[::1]", "a" * 63 + ".example"):
        _, connection = relay_gatherer(
            [f"turn:{host}:65535"], "u", "p", ice_ufrag="abcd", ice_pwd="x" * 22
        )
        assert connection.turn_server == (host.strip("[]"), 65535)
    uris = ["turns:a.example:1", "turn:a.example:2?transport=tcp", "turn:a.example:3?transport=udp"]
    own = {"ice_ufrag": "abcd", "ice_pwd": "x" * 22}
    for tls, ports in ((None, [3, 2]), (ssl.create_default_context(), [3, 2, 1])):
        _, connection = relay_gatherer(uris, "u", "p", tls=tls, **own)
        assert [server.port for server in connection.servers] == ports
    with pytest.raises(MediaError):  # a certificate that nobody checks is none
        relay_gatherer(uris[:1], "u", "p", **own)


@pytest.mark.parametrize("error", [ValueError, OverflowError, UnicodeError, KeyError, struct.error])
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_whatever_allocation_raises_is_a_media_error(error, monkeypatch):
    """MEDIA-16: a relay's answer that a library stumbles over fails the gathering, no more."""
    _, connection = relay_gatherer(
        ["turn:127.0.0.1:1"], "u", "p", ice_ufrag="abcd", ice_pwd="x" * 22
    )

    async def stumble():
        raise error

    monkeypatch.setattr(connection, "gather_candidates", stumble)
    with pytest.raises(MediaError, match="does not answer"):
        await allocate(connection)


# What comes through the relay.


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_only_described_packets_reach_srtp():
    """MEDIA-15: unknown SSRCs, and unknown payload types of known ones, are dropped unseen."""
    _, connection = relay_gatherer(
        ["turn:127.0.0.1:1"], "u", "p", ice_ufrag="abcd", ice_pwd="x" * 22
    )
    connection.expected = {1: {96}, 2: {97}}
    for second in range(256):
        for ssrc in (1, 2, 3):
            # Read as RTP the SSRC is unknown or has another payload type; as RTCP it is known.
            connection.data_received(struct.pack("!BBHII", 0x80, second, 0, 1, ssrc) + b"x", 1)
    taken = [(data[1], int.from_bytes(data[8:12])) for data, _ in connection._queue._queue]
    rtcp = [(second, ssrc) for second in range(192, 209) for ssrc in (1, 2, 3)]
    assert sorted(taken) == sorted([*rtcp, (96, 1), (96 | 128, 1), (97, 2), (97 | 128, 2)])


@pytest.mark.anyio
async def test_malformed_stun_is_dropped_without_a_word(turn, caplog):
    """MEDIA-15: STUN that no parser expects is dropped; no log record, and the call goes on."""
    truncated = struct.pack("!HHI", 1, 4, 0x2112A442) + bytes(12) + struct.pack("!HH", 0x24, 0)
    async with call(turn) as pair:
        await pair.connected()
        session, peer = pair.callee.peer._session, pair.caller.candidates[0]

        async def send():
            for _ in range(50):
                transport = session._path.connection._protocols[0].transport
                transport.sendto(truncated, (peer.address, peer.port))

        await pair.callee.peer._thread.run(send)
        await pair.caller.received(MICROPHONE, len(pair.caller.sink.of(MICROPHONE)) + 10)
        assert pair.caller.peer.stats().datagrams_ignored >= 50
    assert not caplog.records


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_malformed_message_of_the_relay_itself():
    """MEDIA-15: the relay's own malformed STUN does not raise in the loop either."""
    from e2ecall.media.ice import _TURNClient

    client = _TURNClient(("127.0.0.1", 1), "u", "p", 600, 500)
    truncated = struct.pack("!HHI", 0x103, 4, 0x2112A442) + bytes(12) + struct.pack("!HH", 0xC, 0)
    for data in (truncated, b"", b"\x40", b"\x40\x00\xff\xff", bytes(20)):
        client.datagram_received(data, ("127.0.0.1", 1))


# Reports and timestamps.


@pytest.mark.anyio
async def test_a_jitter_beyond_32_bits_fits_into_a_report(turn):
    """MEDIA-17: timestamps that jump over their whole range do not end the reports."""
    async with call(turn) as pair:
        await pair.connected()
        await pair.callee.received(CAMERA, 1)
        receiver = pair.callee.peer._session._path.incoming[CAMERA]._receiver
        (statistics,) = receiver._RTCRtpReceiver__remote_streams.values()
    statistics._jitter_q4 = (1 << 32) << 4
    assert StreamStatistics.jitter.fget(statistics) == 1 << 32
    assert statistics.jitter == 0xFFFF_FFFF
    bytes(RtcpReceiverInfo(1, 0, 0, 0, statistics.jitter, 0, 0))


# Decoders and sinks.


def large_key_frame():
    rows = np.zeros((2160 * 3 // 2, 3840), np.uint8)
    frame = av.VideoFrame.from_ndarray(rows, format="yuv420p")
    return VP8Encoder(1, 500_000).encode(frame, key_frame=True)


class AsItIs:
    """Stands for the key: what comes is taken for decrypted."""

    def decrypt(self, data, prefix):
        return data


def receiving(report=lambda event: None, stream=CAMERA):
    identity = MediaIdentity.generate((stream,))
    dtls = RTCDtlsTransport(RTCIceTransport(RTCIceGatherer(iceServers=[])), [identity.certificate])
    stream = IncomingStream(
        identity.description.streams[0],
        decryptor=AsItIs(),
        sink=NullSink(),
        report=report,
        verdict=lambda authentic: None,
        authenticated=lambda epoch: None,
        lips=Lips(),
    )
    return stream, dtls


def test_a_bye_does_not_touch_the_decoder():
    """MEDIA-18: neither RTCP BYE nor the end of the transport waits for a decoder on the loop."""

    async def main():
        stream, dtls = receiving()
        await stream.start(dtls, 1)
        frame, receiver = large_key_frame(), stream._receiver
        for number in range(incoming.MAX_DECODER_BACKLOG):
            hooks.decoder_queue(receiver).put((stream._codec, JitterFrame(frame, number * 3000)))
        thread = receiver._RTCRtpReceiver__decoder_thread
        await receiver._handle_rtcp_packet(RtcpByePacket(sources=[1]))
        receiver._handle_disconnect()
        assert thread.is_alive()
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        await stream.stop()
        counting.cancel()
        assert not thread.is_alive()
        assert turns > 2  # the loop went on while the decoder ended
        assert hooks.decoder_queue(receiver).qsize() <= 1

    asyncio.run(main())


def test_sound_of_another_layout_is_refused_whole(monkeypatch):
    """MEDIA-32: a frame that is authentic and not laid out as it should be is not played."""
    monkeypatch.setattr(incoming, "parse_header", lambda data, prefix: (int(MICROPHONE), 0, 0))

    async def main():
        stream, dtls = receiving(stream=MICROPHONE)
        await stream.start(dtls, 1)
        for number, frame in enumerate((b"", b"opus", b"\x60", b"\x60opus")):
            stream._add_sound(Fragment(number, number * 960, True, True, frame), 0.0)
        stats = stream.stats
        await stream.stop()
        assert (stats.frames, stats.refused) == (1, 3)

    asyncio.run(main())


def test_the_backlog_is_bounded_in_pixels(monkeypatch):
    """MEDIA-09: of pictures of the largest size seven wait for a decoder, not sixty-four."""
    monkeypatch.setattr(incoming, "parse_header", lambda data, prefix: (int(CAMERA), 0, 0))
    frame = large_key_frame()
    pixels = check_picture(frame)
    assert (pixels, check_picture(b"\x01")) == (3840 * 2160, 0)

    class Waiting:
        def __init__(self):
            self.frames = []

        def put(self, frame):
            self.frames.append(frame)

        def qsize(self):
            return len(self.frames)

    async def main():
        stream, _ = receiving()
        stream._receiver, waiting = object(), Waiting()
        monkeypatch.setattr(hooks, "decoder_queue", lambda receiver: waiting)
        for number in range(20):
            stream._pass_on(stream._open(frame, 0.0), number * 3000)
        assert waiting.qsize() * pixels <= incoming.MAX_BACKLOG_PIXELS
        assert waiting.qsize() == 7
        assert stream.stats.dropped == 13

    asyncio.run(main())


def test_waiting_frames_are_bounded_in_number_and_pixels():
    """MEDIA-09: the oldest decoded frames make room, and the end is never dropped."""
    small, large = av.VideoFrame(64, 48, "yuv420p"), av.VideoFrame(3840, 2160, "yuv420p")

    async def main():
        queue = hooks.FrameQueue(incoming.MAX_WAITING_FRAMES, incoming.MAX_WAITING_PIXELS)
        for _ in range(100):
            await queue.put(small)
        assert (queue.qsize(), queue.dropped) == (30, 70)
        for _ in range(10):
            await queue.put(large)
        assert queue.qsize() == 3
        await queue.put(None)
        assert [queue.get_nowait() for _ in range(4)] == [large] * 3 + [None]
        await queue.put(small)
        assert await queue.get() is small
        assert queue._held == 0

    asyncio.run(main())


@pytest.mark.anyio
async def test_a_sink_that_never_returns_keeps_thirty_frames(turn):
    """MEDIA-09: the bound holds while one frame is being written, however long that takes."""
    stuck = threading.Event()

    class Stuck:
        async def write(self, stream, frame, rtp_time):
            stuck.set()
            await asyncio.sleep(3600)

        async def close(self):
            pass

    async with call(turn) as pair:
        pair.callee.sink = Stuck()
        await pair.connected()
        await pair.caller.received(MICROPHONE, 60)
        assert stuck.is_set()
        streams = pair.callee.peer._session._path.incoming
        with anyio.fail_after(20):
            while not streams[MICROPHONE].stats.dropped:  # noqa: ASYNC110 - another thread's
                await anyio.sleep(0.01)
        for stream in streams.values():
            assert hooks.waiting_frames(stream._receiver) <= incoming.MAX_WAITING_FRAMES


# Jitter buffer.


class Counting(dict):
    """Counts how often a packet is looked up."""

    looked = 0

    def get(self, *args):
        type(self).looked += 1
        return super().get(*args)

    def __contains__(self, key):
        type(self).looked += 1
        return super().__contains__(key)


@pytest.mark.parametrize("starts", ["all", "some", "other times"])
def test_packets_that_begin_key_frames_without_end_are_cheap(starts):
    """MEDIA-09: a packet costs a bounded number of steps, whatever the ones before it claimed."""
    buffer = VideoJitterBuffer()
    buffer._fragments = Counting()
    Counting.looked = 0
    for number in range(3_000):
        time = number if starts == "other times" else 7
        first = starts != "some" or number % 40 == 0
        buffer.add(Fragment(number & 0xFFFF, time, False, first, bytes(4)), number / 1000)
        while buffer.next_frame() is not None:
            pass
        assert len(buffer._key_starts) <= video_jitter.MAX_KEY_STARTS
        assert len(buffer._reaches) <= video_jitter.VIDEO_CAPACITY
    assert Counting.looked < 3_000 * 4 * video_jitter.MAX_KEY_STARTS


# Ends.


@pytest.mark.anyio
async def test_nothing_is_told_after_the_last_event(turn):
    """The last event is the last one, also where frames were still being decoded."""
    async with call(turn) as pair:
        await pair.start()
        await pair.caller.until(MediaConnected)
        await pair.callee.until(MediaConnected)
        await pair.caller.peer.close()
        await pair.callee.until(PeerClosed)
        session = pair.callee.peer._session
        with anyio.fail_after(20):
            while not session._over:  # noqa: ASYNC110 - the event is told a moment before
                await anyio.sleep(0.005)
        session._report(FirstFrame(CAMERA, 0.0))
        await pair.callee.peer.close()
        assert [event async for event in pair.callee.peer.events] == []


@pytest.mark.anyio
async def test_closed_peers_are_forgotten():
    """An engine that serves call after call does not keep those that are over."""
    async with MediaEngine() as engine:
        for _ in range(5):
            peer = await engine.create_peer(local=MediaIdentity.generate(BOTH))
            await peer.close()
            peer.events.close()
        assert len(engine._peers) <= 1


@pytest.mark.anyio
async def test_nothing_is_read_from_a_source_after_the_close(turn):
    """A close stops what is sent first of all, whatever the rest of it waits for."""
    async with call(turn) as pair:
        await start(pair.callee, pair.caller, controlling=False)
        await start(pair.caller, pair.callee, controlling=True)
        await pair.callee.received(MICROPHONE, 3)
        session = pair.caller.peer._session

        async def close():
            closing = asyncio.ensure_future(session.close())
            await asyncio.sleep(0)
            states = {track.readyState for track in session._outgoing.values()}
            await closing
            return states

        assert await pair.caller.peer._thread.run(close) == {"ended"}
