"""The network, and a media relay without keys, against a call that runs (N1, R9, R10, R11)."""

import random
import socket

import anyio
import pytest

import e2ecall
from e2ecall.media.ice import MAX_QUEUED
from e2ecall.protocol.messages import Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from e2ecall.protocol.sframe_header import parse_header
from tests.adversary.forwarder import between, flipped, noise
from tests.integration.people import frames, media, ringing, until
from tests.integration.test_controls import more

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """Media has a loop of its own, whichever the client's is."""
    return "trio"


@pytest.fixture
def told(monkeypatch):
    """What was encrypted, and what was taken for authentic, in this process."""
    sent, taken = set(), []
    encrypt, decrypt = SFrameSender.encrypt, SFrameReceiver.decrypt

    def watched_encrypt(sender, plain, prefix):
        protected = encrypt(sender, plain, prefix)
        sent.add((*parse_header(protected, prefix)[:2], plain))
        return protected

    def watched_decrypt(receiver, data, prefix):
        plain = decrypt(receiver, data, prefix)
        taken.append((*parse_header(data, prefix)[:2], plain))
        return plain

    monkeypatch.setattr(SFrameSender, "encrypt", watched_encrypt)
    monkeypatch.setattr(SFrameReceiver, "decrypt", watched_decrypt)
    return sent, taken


async def connected(alice, bob):
    at_bob = media()
    call, incoming = await ringing(alice, bob, **media())
    answered = await incoming.accept(**at_bob)
    for end in (call, answered):
        await until(end, e2ecall.Connected)
    await frames(at_bob["output"], Stream.CAMERA, 3)
    return call, answered, at_bob["output"]


def ice(call):
    """Return the ICE connection of a call's media."""
    return call.media._peer._session._path.connection


async def goes_on(call, answered, played):
    await more(played, Stream.MICROPHONE, 25)
    await more(played, Stream.CAMERA, 5)
    assert call.ended is answered.ended is None


async def test_other_sources(people, relay):
    """N1: STUN, DTLS, RTP and noise from another source than the relay reach nothing in a client,
    nor the call through the relay; the call goes on.
    """
    async with people() as (alice, bob):
        call, answered, played = await connected(alice, bob)
        ends = [ice(end) for end in (call, answered)]
        sockets = [end._protocols[0].transport for end in ends]
        clients = [
            allocation._TurnTransport__inner_protocol.transport.get_extra_info("sockname")
            for allocation in sockets
        ]
        host, port = relay.turn.removeprefix("turn:").partition("?")[0].rsplit(":", 1)
        before = [end.datagrams_ignored for end in ends]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for seed in range(150):
                for datagram in noise(seed):
                    for target in (*clients, (host, int(port))):
                        stranger.sendto(datagram, target)
                await anyio.sleep(0.002)
        await goes_on(call, answered, played)
        # A socket that is connected to the relay gets nothing of it from the kernel.
        assert [end.datagrams_ignored for end in ends] == before
        assert answered.media.stats().refused == 0
        await call.hangup()


async def test_in_the_relays_name(people, relay, monkeypatch, told):
    """N1, R10, MEDIA-09, MEDIA-15: the same in the relay's name, and from the peer's channel, is
    neither rendered nor kept, and no alert, BYE or error response ends the call.
    """
    sent, taken = told
    async with people() as (alice, bob), between(bob, relay, monkeypatch) as forwarder:
        call, answered, played = await connected(alice, bob)
        described = call.media.description.streams
        for seed in range(150):
            for datagram in noise(seed):
                await forwarder.inject(datagram)
                await forwarder.inject(forwarder.data(datagram))
            rng = random.Random(seed)
            for stream in described:
                for kind in (stream.payload_type, stream.payload_type | 0x80):
                    head = bytes((0x80, kind)) + rng.randbytes(6) + stream.ssrc.to_bytes(4)
                    await forwarder.inject(forwarder.data(head + rng.randbytes(300)))
                bye = b"\x81\xcb\x00\x01" + stream.ssrc.to_bytes(4)
                await forwarder.inject(forwarder.data(bye))
            assert ice(answered)._queue.qsize() <= MAX_QUEUED
            await anyio.sleep(0.002)
        await goes_on(call, answered, played)
        assert answered.media.stats().refused == 0  # SRTP let none of it through
        await call.hangup()
    assert set(taken) <= sent


async def test_a_relay_that_flips_repeats_and_delays(people, relay, monkeypatch, told):
    """R9, R11: of packets with a flipped bit, packets that come twice, and packets that come again
    a second later, no frame is taken a second time or changed; the call goes on.
    """
    sent, taken = told
    rng = random.Random(11)
    async with people() as (alice, bob), between(bob, relay, monkeypatch) as forwarder:
        call, answered, played = await connected(alice, bob)
        late = []

        def hostile(datagram):
            if datagram[0] & 0xC0 != 0x40:
                return [datagram]
            late.append(datagram)
            again = [late[-150]] if len(late) > 150 else []
            return [datagram, datagram, flipped(datagram, rng), *again]

        forwarder.change = hostile
        await more(played, Stream.MICROPHONE, 150)
        assert len(late) > 200
        forwarder.change = lambda datagram: [datagram]
        await goes_on(call, answered, played)
        assert answered.media.stats().refused == 0
        # Instead of a tenth of what is honest, changed ones: a loss, and nothing else.
        forwarder.change = lambda datagram: [
            flipped(datagram, rng)
            if datagram[0] & 0xC0 == 0x40 and rng.random() < 0.1
            else datagram
        ]
        await more(played, Stream.MICROPHONE, 50)
        forwarder.change = lambda datagram: [datagram]
        await goes_on(call, answered, played)
        await call.hangup()
    assert set(taken) <= sent
    assert len(taken) == len(set(taken))
