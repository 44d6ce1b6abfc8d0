"""A call as the relay captures it, built by hand: real SFrame, SRTP, TURN framing and mail."""

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.rtp import RtpPacket, wrap_rtx
from pylibsrtp import Policy, Session

from e2ecall.cli.demo.capture import Capture
from e2ecall.cli.demo.evidence import Evidence, SRTPKey
from e2ecall.protocol.messages import Codec, MediaDescription, Stream, StreamDescription
from e2ecall.protocol.sframe import SFrameSender, clear_prefix_length
from e2ecall.secret import Secret
from relay.io.capture import RECEIVED
from relay.io.capture import Capture as CaptureWriter
from relay.wire.codec import encode
from relay.wire.messages import AccountRecipient, ClientFrame, Send

PROFILE = Policy.SRTP_PROFILE_AEAD_AES_256_GCM


@dataclass
class Side:
    """One sender of the synthetic call."""

    name: str
    seed: int

    def __post_init__(self):
        self.draw = random.Random(self.seed)
        bytes_ = self.draw.randbytes
        self.key = SRTPKey(PROFILE, bytes_(44))
        self.media = MediaDescription(
            fingerprint=bytes_(32),
            ice_ufrag=bytes_(4).hex(),
            ice_pwd=bytes_(12).hex(),
            streams=(
                StreamDescription(Stream.MICROPHONE, Codec.OPUS, 96, 100 + self.seed, None, None),
                StreamDescription(
                    Stream.CAMERA, Codec.VP8, 97, 200 + self.seed, 98, 300 + self.seed
                ),
            ),
        )
        self.sound = [bytes_(80) for _ in range(40)]
        self.pictures = [b"\x10" + bytes_(4_000), *(b"\x11" + bytes_(900) for _ in range(20))]
        self.frames = [*self.sound, *self.pictures]

    @property
    def address(self):
        return f"{self.name}@127.0.0.1:4567"

    def evidence(self):
        return Evidence(
            username=self.name,
            address=self.address,
            texts=[f"a message from {self.name} with some words"],
            media=[self.media],
            sending_keys=[self.key],
            frames=self.frames,
        )

    def packets(self, protect):
        """Yield SRTP packets of all frames, each first changed by ``protect(codec, frame)``."""
        policy = Policy(self.key.key, Policy.SSRC_ANY_OUTBOUND, 0, PROFILE)
        policy.allow_repeat_tx = True
        session = Session(policy)
        microphone, camera = self.media.streams
        for number, frame in enumerate(self.sound):
            payload = protect(Codec.OPUS, frame)
            packet = RtpPacket(96, 1, number, 960 * number, microphone.ssrc, payload)
            yield session.protect(packet.serialize())
        sequence = 65_530  # wraps around inside the first picture or soon after
        for number, frame in enumerate(self.pictures):
            for piece in Vp8Encoder._packetize(protect(Codec.VP8, frame), number):
                packet = RtpPacket(97, 0, sequence % 65_536, 3_000 * number, camera.ssrc, piece)
                if number == 3:  # lost on the way and sent again
                    packet = wrap_rtx(packet, 98, 7, camera.rtx_ssrc)
                yield session.protect(packet.serialize())
                sequence += 1


class SyntheticCall:
    """Writes a relay's capture folder and data directory into ``folder``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.caller, self.callee = Side("alice_demo", 1), Side("bob_demo", 2)
        self.sides = (self.caller, self.callee)
        self.envelope = self.caller.draw.randbytes(8_192)
        self.stored_envelope = self.caller.draw.randbytes(8_192)
        self.extra_datagrams = []

    def evidence(self):
        return [side.evidence() for side in self.sides]

    def capture(self, protect):
        """Write everything, with ``protect(side)`` making each side's frame protection."""
        with CaptureWriter(self.folder / "capture") as writer:
            recipient = AccountRecipient(self.callee.name, 1)
            message = encode(ClientFrame(1, Send(recipient, bytes(16), self.envelope, None)))
            writer.message(1, RECEIVED, message)
            for side in self.sides:
                for number, packet in enumerate(side.packets(protect(side))):
                    framed = _channel_data(packet) if number else _send_indication(packet)
                    writer.datagram(1.0, ("127.0.0.1", 4_000 + side.seed), framed)
            for datagram in self.extra_datagrams:
                writer.datagram(2.0, ("::1", 9), datagram)
        data = self.folder / "data"
        data.mkdir()
        with closing(sqlite3.connect(data / "relay.sqlite")) as database:
            database.execute("CREATE TABLE accounts (username TEXT)")
            database.execute("CREATE TABLE mail (row INTEGER PRIMARY KEY, envelope BLOB)")
            names = [(side.name,) for side in self.sides]
            database.executemany("INSERT INTO accounts VALUES (?)", names)
            database.execute("INSERT INTO mail (envelope) VALUES (?)", (self.stored_envelope,))
            database.execute("INSERT INTO mail (envelope) VALUES (NULL)")
            database.commit()
        return Capture.load(self.folder / "capture", data)

    @staticmethod
    def sframe(side):
        """Protect as the product does."""
        senders = {
            codec: SFrameSender(Secret(bytes([side.seed, codec]) * 16), 16 * side.seed + codec)
            for codec in Codec
        }

        def protect(codec, frame):
            return senders[codec].encrypt(frame, clear_prefix_length(codec, frame))

        return protect

    @staticmethod
    def clear(_side):
        """Protect nothing."""
        return lambda _codec, frame: frame


def _channel_data(packet):
    return b"\x40\x01" + len(packet).to_bytes(2) + packet


def _send_indication(packet):
    padded = packet + bytes(-len(packet) % 4)
    attributes = b"\x00\x12\x00\x08" + bytes(8)
    attributes += b"\x00\x13" + len(packet).to_bytes(2) + padded
    head = b"\x00\x16" + len(attributes).to_bytes(2) + bytes.fromhex("2112a442")
    return head + bytes(12) + attributes


@pytest.fixture
def call(tmp_path):
    return SyntheticCall(tmp_path)
