"""A real TURN server in a thread, and two media peers in one process that it connects."""

import secrets
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import numpy as np
import trio

from e2ecall.media.engine import MediaEngine, MediaIdentity, MediaPeer, Settings
from e2ecall.media.events import MediaConnected, MediaEvent
from e2ecall.media.sinks import CollectingSink
from e2ecall.media.sources import GeneratedAudio, GeneratedVideo
from e2ecall.protocol.messages import Candidate, Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from e2ecall.protocol.sframe_header import key_id
from e2ecall.secret import Secret
from relay.errors import TicketError
from relay.io.datagram import open_socket, serve_turn
from relay.services import tickets
from relay.turn.server import TURNServer

BOTH = (Stream.MICROPHONE, Stream.CAMERA)
CALLER, CALLEE = 0, 1


class TURNThread:
    """The relay's TURN server on a free loopback port, in its own trio loop."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)
        self.core = TURNServer(
            identify=self._identify,
            password=lambda username: tickets.password(self._secret, username),
            nonce_key=secrets.token_bytes(32),
        )
        self.forwarded: list[tuple[tuple[str, int], bytes]] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), name="turn")
        self._thread.start()
        assert self._ready.wait(30)

    def _identify(self, username: str, now: float) -> tickets.Identity | None:
        try:
            return tickets.open_id(self._secret, username, now)
        except TicketError:
            return None

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        sock = open_socket("127.0.0.1", 0)
        self.uri = f"turn:127.0.0.1:{sock.getsockname()[1]}?transport=udp"
        with trio.CancelScope() as self._scope:
            self._ready.set()
            await serve_turn([sock], self.core, capture=self._capture)

    def _capture(self, now: float, client: tuple[str, int], datagram: bytes) -> None:
        if datagram[0] & 0xC0 == 0x40:
            self.forwarded.append((client, datagram[4:]))

    def credentials(self):
        return tickets.issue(self._secret, time.time(), 600, secrets.token_bytes(16))

    def stop(self) -> None:
        if self._thread.is_alive():
            self._token.run_sync_soon(self._scope.cancel)
            self._thread.join()


def tone(frame: int) -> np.ndarray:
    at = np.arange(frame * 960, (frame + 1) * 960)
    return (8000 * np.sin(at * 2 * np.pi * 440 / 48_000)).astype(np.int16)


def picture(frame: int, width: int = 320, height: int = 180) -> np.ndarray:
    """A moving picture whose upper left block counts frames in its brightness."""
    rows = np.full((height * 3 // 2, width), 128, np.uint8)
    rows[:height] = (np.arange(width) + 3 * frame) % 160 + 48
    rows[:32, :32] = 20 + frame % 20 * 10
    return rows


@dataclass
class Side:
    """One peer with what the call's key exchange would have given it."""

    peer: MediaPeer
    identity: MediaIdentity
    sink: CollectingSink
    sender_keys: dict[Stream, SFrameSender]
    receiver: SFrameReceiver
    candidates: tuple[Candidate, ...] = ()
    events: list[MediaEvent] = field(default_factory=list)

    async def until(self, *kinds: type[MediaEvent]) -> MediaEvent:
        """Return the next event of one of these kinds."""
        with anyio.fail_after(20):
            async for event in self.peer.events:
                self.events.append(event)
                if isinstance(event, kinds):
                    return event
        raise AssertionError(f"ended without {kinds}: {self.events}")

    async def received(self, stream: Stream, count: int) -> None:
        """Return when the sink has this many frames of a stream."""
        with anyio.fail_after(20):
            while len(self.sink.of(stream)) < count:  # noqa: ASYNC110 - filled by another thread
                await anyio.sleep(0.005)


def frame_keys(secret: bytes, sender: int, streams=BOTH) -> dict[Stream, SFrameSender]:
    return {
        stream: SFrameSender(Secret(secret + bytes((sender, stream))), key_id(0, stream, sender))
        for stream in streams
    }


def frame_receiver(secret: bytes, sender: int, streams=BOTH) -> SFrameReceiver:
    receiver = SFrameReceiver()
    for stream in streams:
        kid = key_id(0, stream, sender)
        receiver.add_key(kid, Secret(secret + bytes((sender, stream))))
    return receiver


def sources(streams=BOTH):
    made = {
        Stream.MICROPHONE: GeneratedAudio(tone),
        Stream.CAMERA: GeneratedVideo(picture),
    }
    return {stream: made[stream] for stream in streams}


@dataclass
class Call:
    """Two sides that have gathered and not started."""

    caller: Side
    callee: Side

    async def start(self, *, streams=BOTH) -> None:
        await start(self.callee, self.caller, controlling=False, streams=streams)
        await start(self.caller, self.callee, controlling=True, streams=streams)

    async def connected(self) -> None:
        await self.start()
        await self.caller.until(MediaConnected)
        await self.callee.until(MediaConnected)


async def start(side: Side, other: Side, *, controlling: bool, streams=BOTH, **changes) -> None:
    arguments = {
        "controlling": controlling,
        "remote": other.identity.description,
        "remote_candidates": other.candidates,
        "sender_keys": side.sender_keys,
        "receiver": side.receiver,
        "sources": sources(streams),
        "sinks": dict.fromkeys(Stream, side.sink),
    }
    await side.peer.start(**(arguments | changes))


@asynccontextmanager
async def call(
    turn: TURNThread,
    *,
    streams=BOTH,
    settings: Settings | None = None,
    callee_secret: bytes | None = None,
    callee_uri: str | None = None,
) -> AsyncIterator[Call]:
    """Two engines with one gathered peer each.

    ``callee_secret`` gives the callee other keys, ``callee_uri`` another way to the server.
    """
    secret = secrets.token_bytes(30)
    other = callee_secret or secret
    callee_credential, caller_credential = turn.credentials()
    async with MediaEngine(settings) as one, MediaEngine(settings) as two:
        sides = []
        for engine, sender, own, credential, uri in (
            (one, CALLER, secret, caller_credential, turn.uri),
            (two, CALLEE, other, callee_credential, callee_uri or turn.uri),
        ):
            identity = MediaIdentity.generate(streams)
            peer = await engine.create_peer(local=identity)
            side = Side(
                peer,
                identity,
                CollectingSink(),
                frame_keys(own, sender, streams),
                frame_receiver(own, 1 - sender, streams),
            )
            side.candidates = await peer.gather((uri,), credential.username, credential.password)
            sides.append(side)
        yield Call(*sides)
