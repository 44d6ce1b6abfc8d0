"""A call by the media engine of e2ecall, with frame keys in place of a key exchange."""

import asyncio
import base64

import msgspec
from av import AudioFrame, VideoFrame

from e2ecall.media.engine import MediaEngine, MediaIdentity
from e2ecall.media.events import MediaConnected, MediaFailed
from e2ecall.media.sinks import DecodedFrame
from e2ecall.media.sources import (
    SAMPLE_RATE,
    VIDEO_CLOCK,
    GeneratedAudio,
    GeneratedVideo,
    Source,
)
from e2ecall.protocol.messages import Candidate, MediaDescription, Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from e2ecall.protocol.sframe_header import key_id
from e2ecall.secret import Secret
from tests.bench.calls.endpoint import Lines, Studio
from tests.bench.calls.witness import Witness

STREAMS = (Stream.MICROPHONE, Stream.CAMERA)
ROLES = ("caller", "callee")
SECRET = bytes(30)
"""The same on both ends: nobody listens but this machine."""


class _Described(msgspec.Struct, array_like=True):
    media: MediaDescription
    candidates: tuple[Candidate, ...]


class _Eyes:
    """A sink that shows everything to the witness."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:
        if isinstance(frame, VideoFrame):
            self._witness.picture(frame, rtp_time / VIDEO_CLOCK)
        elif isinstance(frame, AudioFrame):
            self._witness.sound(frame, rtp_time / SAMPLE_RATE)

    async def close(self) -> None:
        pass


def _base_key(sender: int, stream: Stream) -> Secret:
    return Secret(SECRET + bytes((sender, stream)))


async def call(
    lines: Lines, role: str, turn: tuple[str, str, str], studio: Studio, witness: Witness
) -> None:
    """Connect, send and receive until told to stop; see `endpoint`."""
    own = ROLES.index(role)
    sources: dict[Stream, Source] = {Stream.MICROPHONE: GeneratedAudio(studio.samples)}
    if role == "caller":
        sources[Stream.CAMERA] = GeneratedVideo(studio.picture, frame_rate=30)
    senders = {s: SFrameSender(_base_key(own, s), key_id(0, s, own)) for s in STREAMS}
    receiver = SFrameReceiver()
    for stream in STREAMS:
        receiver.add_key(key_id(0, stream, 1 - own), _base_key(1 - own, stream))
    async with MediaEngine() as engine:
        identity = MediaIdentity.generate(STREAMS)
        peer = await engine.create_peer(local=identity)
        uri, *credential = turn
        candidates = await peer.gather((uri,), *credential)
        await peer.prepare(sources)
        described = msgspec.msgpack.encode(_Described(identity.description, candidates))
        lines.say(base64.b64encode(described).decode())
        remote = msgspec.msgpack.decode(base64.b64decode(await lines.read()), type=_Described)
        eyes = _Eyes(witness)
        await peer.start(
            controlling=role == "caller",
            remote=remote.media,
            remote_candidates=remote.candidates,
            sender_keys=senders,
            receiver=receiver,
            sinks=dict.fromkeys(STREAMS, eyes),
        )
        told = asyncio.create_task(_tell(lines, peer.events))
        await lines.read()
        await peer.close()
        await told


async def _tell(lines: Lines, events: object) -> None:
    async for event in events:  # type: ignore[attr-defined]  # a stream of media events
        if isinstance(event, MediaConnected):
            lines.say("connected")
        elif isinstance(event, MediaFailed):
            lines.say(f"failed: {event.reason}")
