"""Encoded media that a peer built to break a decoder, inside of right SFrame (P7).

The victim is a process of its own: what ends it would be seen.
"""

import random

import anyio
import pytest

import e2ecall
from e2ecall.protocol.messages import Codec, Stream
from e2ecall.protocol.sframe import SFrameSender, clear_prefix_length
from e2ecall.protocol.sound import pack
from e2ecall.testing import running_relay
from tests.integration.people import PATIENCE, media, person, until
from tests.integration.processes import peer_process

pytestmark = pytest.mark.anyio

OPUS = 96
ATTACKED = 150
"""Frames of each stream: three seconds of sound."""


@pytest.fixture
def anyio_backend():
    """Run the test on one event loop; the victim's is a parameter."""
    return "trio"


def key_frame(width, height, body):
    """RFC 6386, 9.1: a key frame that is shown, with a first partition of the whole body."""
    tag = (len(body) << 5 | 0x10).to_bytes(4, "little")[:3]
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return tag + b"\x9d\x01\x2a" + size + body


class Pictures:
    """VP8 frames that claim what they are not, made of the honest ones."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def make(self, honest):
        noise = self.random.randbytes
        kinds = (
            lambda: b"\x00",  # a key frame that ends with its first byte
            lambda: honest[: self.random.randrange(1, len(honest))],
            lambda: honest[:10] + noise(self.random.randrange(0, 1_500)),
            lambda: self.flips(honest),
            lambda: key_frame(1, 1, noise(40)),
            lambda: key_frame(3_840, 2_160, b""),
            lambda: key_frame(0xFFFF, 0xFFFF, noise(40)),  # 16 383, and scaled
            lambda: key_frame(0, 0, noise(40)),
            lambda: key_frame(self.random.randrange(1, 1_920), 16, noise(400)),
            lambda: b"\xf1\xff\xff" + noise(200),  # a delta frame with the longest partition
            lambda: b"\x11" + noise(self.random.randrange(1, 600)),
            lambda: b"\x0f" + noise(60),  # of a profile that does not exist
            lambda: honest,
        )
        return self.random.choice(kinds)()

    def flips(self, honest):
        changed = bytearray(honest)
        for _ in range(self.random.randrange(1, 40)):
            # Behind the tag and the size: those have kinds of their own.
            changed[self.random.randrange(min(10, len(changed) - 1), len(changed))] ^= 0xFF
        return bytes(changed)


class Sounds:
    """Opus packets, and what packs them, that claim what they are not."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def make(self, honest):
        noise, toc = self.random.randbytes, self.random.randrange(256)
        kinds = (
            lambda: pack(bytes([toc]), (), OPUS),
            lambda: pack(bytes([toc | 3, 0xBF]), (), OPUS),  # 63 frames, and padding of no end
            lambda: pack(bytes([toc | 3, 0xFF]) + b"\xff" * 300, (), OPUS),
            lambda: pack(bytes([toc | 2, 0xFF, 0xFF]) + noise(9), (), OPUS),
            lambda: pack(bytes([toc]) + noise(self.random.randrange(1, 900)), (), OPUS),
            lambda: pack(noise(1_100), (), OPUS),
            lambda: pack(noise(30), (noise(1), noise(1_000)), OPUS),
            lambda: pack(honest, (), OPUS),  # packed twice
            lambda: b"\xe0\xff\xff\xff" * 40,  # copies of no end
            lambda: b"\xe0\x00\x03\xff",  # a copy that is not there
            lambda: b"\x60",
            lambda: b"\xff",
            lambda: noise(self.random.randrange(1, 200)),
            lambda: honest,
        )
        return self.random.choice(kinds)()


class Hostile:
    """The caller's frames, in which crafted ones take the place of honest ones."""

    def __init__(self, monkeypatch, seed):
        self.on, self.sent = False, dict.fromkeys((Stream.MICROPHONE, Stream.CAMERA), 0)
        makers = {Stream.MICROPHONE: Sounds(seed), Stream.CAMERA: Pictures(seed)}
        encrypt, hostile = SFrameSender.encrypt, self

        def crafted(sender, plain, prefix):
            stream = sender.kid & 0x0F
            if hostile.on:
                codec = Codec.OPUS if stream == Stream.MICROPHONE else Codec.VP8
                plain = makers[stream].make(plain)
                # A frame that is shorter than its clear prefix is no SFrame at all.
                prefix = min(len(plain), clear_prefix_length(codec, plain))
                hostile.sent[stream] += 1
            return encrypt(sender, plain, prefix)

        monkeypatch.setattr(SFrameSender, "encrypt", crafted)


async def decoded_more(peer, sound, picture):
    """Wait until a peer has decoded as many more frames of both streams."""
    before = (await peer.do("stats"))["frames"]
    with anyio.fail_after(PATIENCE):
        while True:
            now = (await peer.do("stats"))["frames"]
            if now[0] >= before[0] + sound and now[1] >= before[1] + picture:
                return
            await anyio.sleep(0.1)


async def call_of(caller, victim):
    call = await caller.call(victim.address, **media())
    await victim.event("incoming")
    assert (await victim.do("accept"))["event"] == "done"
    await until(call, e2ecall.Connected)
    await victim.event("Connected")
    return call


@pytest.mark.parametrize(("backend", "seed"), [("trio", 1), ("asyncio", 2), ("trio", 3)])
async def test_media_built_to_crash(tmp_path, monkeypatch, backend, seed):
    """P7: three seconds of crafted sound and pictures, authentic all of them, end neither the
    process nor its client; whatever becomes of the streams, the next call is as any other.
    """
    hostile = Hostile(monkeypatch, seed)
    async with (
        running_relay() as relay,
        person(tmp_path, relay, "mallory") as mallory,
        peer_process(backend, tmp_path / "victim.db", relay.url) as victim,
    ):
        await victim.event("open")
        victim.address = (await victim.do("register", name="victim"))["address"]
        call = await call_of(mallory, victim)
        await decoded_more(victim, 5, 2)
        hostile.on = True
        with anyio.fail_after(PATIENCE):
            while call.ended is None and min(hostile.sent.values()) < ATTACKED // 2:  # noqa: ASYNC110 - counted by other threads
                await anyio.sleep(0.1)
        assert min(hostile.sent.values()) > 10
        hostile.on = False
        assert (await victim.do("stats"))["event"] == "done"
        if call.ended is None:
            await call.hangup()
        await victim.event("Ended")
        call = await call_of(mallory, victim)
        await decoded_more(victim, 25, 5)
        await call.hangup()
        await victim.event("Ended")
        assert await victim.close() == 0
