"""One client of the TURN server over TCP or TLS (spec/turn.md TURN-70 ff).

It reads frames for a handler and sends without waiting: media that a slow client does not take is
dropped, responses are kept within a bound. It knows nothing of listeners or of the TURN core.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from relay.io.stream_tls import Layer, LayerError
from relay.turn.errors import STUNError
from relay.turn.framing import FrameReader, encode_frame, is_media

MAX_QUEUED: Final = 16_384
"""Bytes of responses that wait for a client which does not read. One that asks on and on without
reading answers is closed instead."""

MAX_QUEUED_IN_ALL: Final = 32 * 1024 * 1024
"""Bytes, over all connections; who would need more is closed."""

UNSENT: Final = 32_768
"""Bytes that the kernel may hold of what the network did not take yet: a quarter of a second of
video at 1 Mbit/s. Beyond that a packet would arrive too late to be of use."""

SEND_BUFFER: Final = 262_144
"""Bytes the kernel may hold of what was sent and not confirmed."""

_READ: Final = 16_384


@dataclass(slots=True)
class Queued:
    """How many bytes wait, over all connections of a server."""

    size: int = 0


@dataclass(frozen=True, slots=True)
class Events:
    """What a connection tells its server, without waiting."""

    received: Callable[[bytes], None]
    """A frame has come."""
    sent: Callable[[int], None]
    """A frame of so many bytes was sent, or will be."""
    dropped: Callable[[], None]
    """A frame was dropped, because the client does not take them."""
    lifetime: Callable[[], float | None]
    """For how many seconds the client's allocation lives, or None."""


class Connection:
    """A connected, non-blocking socket; `run` owns and closes it."""

    def __init__(
        self, sock: socket.socket, layer: Layer, events: Events, queued: Queued, patience: float
    ) -> None:
        self._socket = sock
        self._layer = layer
        self._events = events
        self._queued = queued
        self._patience = patience
        self._pending = bytearray()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._frame_since: float | None = None
        self._idle_since: float | None = trio.current_time()
        self.timed_out = False

    async def run(self) -> None:
        """Serve until the client goes, misbehaves or takes too long; closes the socket.

        Too long are ``patience`` seconds without an allocation, for a frame, or without taking
        anything of what waits for it.
        """
        _set_options(self._socket)
        try:
            with self._scope:
                self._scope.deadline = self._deadline()
                async with trio.open_nursery() as self._nursery:
                    await self._read()
                    self.close()
            self.timed_out |= trio.current_time() >= self._scope.deadline
        finally:
            self._queued.size -= len(self._pending)
            self._pending.clear()
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def close(self) -> None:
        """End it; `run` returns soon."""
        self._scope.cancel()

    def send(self, data: bytes) -> None:
        """Send a frame now, keep it for as soon as the client takes it, or drop it."""
        if self._scope.cancel_called or (self._pending and is_media(data)):
            # Late media is worthless, and a queue of it would make all that follows late.
            self._events.dropped()
            return
        self._events.sent(len(data))
        self._write(self._layer.encode(encode_frame(data)))

    async def _read(self) -> None:
        reader = FrameReader()
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(_READ)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            try:
                plain, answer = self._layer.receive(data)
                if answer:
                    self._write(answer)
                self._handle(reader, plain)
            except (LayerError, STUNError):
                return
            self._scope.deadline = self._deadline()

    def _handle(self, reader: FrameReader, plain: bytes) -> None:
        frames = 0
        for frame in reader.receive(plain):
            frames += 1
            self._events.received(frame)
        if not reader.is_partial:
            self._frame_since = None
        elif frames or self._frame_since is None:
            self._frame_since = trio.current_time()

    def _deadline(self) -> float:
        now = trio.current_time()
        lifetime = self._events.lifetime()
        if lifetime is not None:
            self._idle_since = None
            deadline = now + lifetime + self._patience
        else:
            if self._idle_since is None:
                self._idle_since = now
            deadline = self._idle_since + self._patience
        if self._frame_since is not None:
            deadline = min(deadline, self._frame_since + self._patience)
        return deadline

    def _write(self, data: bytes) -> None:
        if not self._pending:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
            if not data:
                return
            # What has begun has to be finished, media too: half a frame would end the stream.
            assert self._nursery is not None
            self._nursery.start_soon(self._flush)
        if (
            len(self._pending) + len(data) > MAX_QUEUED
            or self._queued.size + len(data) > MAX_QUEUED_IN_ALL
        ):
            self.close()
            return
        self._pending += data
        self._queued.size += len(data)

    async def _flush(self) -> None:
        while self._pending:
            with trio.move_on_after(self._patience) as waiting:
                await trio.lowlevel.wait_writable(self._socket)
            if waiting.cancelled_caught:
                self.timed_out = True
                self.close()
                return
            try:
                sent = self._socket.send(self._pending)
            except BlockingIOError:
                continue
            except OSError:
                self.close()
                return
            del self._pending[:sent]
            self._queued.size -= sent


def _set_options(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
