"""One WebSocket connection over a socket that it owns (spec/wire.md, Transport).

`websockets` speaks the protocol without I/O, but for the messages that come and go most
(`relay.io.frames`, `WebSocket.write`); this moves the bytes. One task reads and answers pings
on the way, any may write; there is no task, timer or queue besides (spec/decisions/0028). It knows
nothing of what messages mean, and does not say when a connection is to end.
"""

import contextlib
import fcntl
import logging
import socket
import struct
import sys
import termios
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import trio
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Origin

from relay.io.frames import FrameSplitter
from relay.io.stream_tls import Layer, LayerError
from relay.wire.limits import MAX_FRAME

KEEPALIVE_SECONDS: Final = 20.0
"""Between two pings, and until a ping has to be answered."""
STALL_SECONDS: Final = 15.0
"""For a client to take the pongs that it asked for."""
LINGER_SECONDS: Final = 1.0
"""For a client to take what it is told instead of a WebSocket."""
UNSENT: Final = 16_384
"""Bytes that the network has not taken, below which the kernel asks for more."""
FRAMES_AT_ONCE: Final = 1_000
FRAMES_PER_SECOND: Final = 10
"""Frames of one connection that complete no message: fragments, pings and pongs. Each costs as much
as one that does, and nothing else paces them."""
MAX_REQUEST: Final = 16_384
"""Bytes of an opening handshake; browsers send 1 KB. The library would take 1 MB."""
_READ: Final = 65_536
_BINARY: Final = 0x82
"""A binary frame that is a whole message."""
_LONG: Final = struct.Struct("!BBH")
"""The head of a frame whose length takes two bytes."""

# The library logs handshakes that fail with a traceback, and addresses: anybody could fill a disk.
_silent = logging.getLogger("relay.websockets")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)


class ClosedError(Exception):
    """The connection has ended."""


class FloodError(Exception):
    """Frames come, and make no message."""


class SilentError(Exception):
    """Nothing came in the time that was given."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered to a request instead of opening a WebSocket."""

    status: HTTPStatus
    text: str
    headers: tuple[tuple[str, str], ...] = ()


class WebSocket:
    """The relay's end. Whoever makes one calls `abort` in the end, in any case."""

    __slots__ = (
        "_begun",
        "_confirmed",
        "_drained",
        "_frames",
        "_idle_frames",
        "_is_ended",
        "_is_flushing",
        "_is_shut",
        "_layer",
        "_messages",
        "_ping_at",
        "_pong_by",
        "_protocol",
        "_received",
        "_shuts",
        "_silent_at",
        "_since",
        "_socket",
        "_taken",
        "_text",
        "_unsent",
        "written",
    )

    def __init__(self, sock: socket.socket, layer: Layer, origins: Sequence[Origin | None]) -> None:
        _set_options(sock)
        self._socket = sock
        self._layer = layer
        # WIRE-03 MUST: no extension is known, so none is negotiated.
        self._protocol = ServerProtocol(origins=origins, max_size=MAX_FRAME, logger=_silent)
        self._frames: FrameSplitter | None = None
        """From the opening handshake on, if nothing came too early."""
        self._messages: list[str | bytes] = []
        self._text = False
        self._begun = bytearray()
        """Fragments of a message. Their number has no bound, but their length."""
        self._received = self._idle_frames = 0
        self._since = trio.current_time()
        self._unsent = bytearray()
        self._is_ended = False
        """Whether the client ended it."""
        self._confirmed = 0
        self.written = 0
        """Bytes so far, as they go over TCP."""
        self._taken = 0
        """Bytes of what had to wait that the kernel has taken since."""
        self._shuts = self._is_shut = False
        self._is_flushing = False
        self._drained: trio.Event | None = None
        self._ping_at = trio.current_time() + KEEPALIVE_SECONDS
        self._pong_by = self._silent_at = float("inf")

    @property
    def is_behind(self) -> bool:
        """Whether the client has yet to take something that was written."""
        return bool(self._unsent)

    def has_arrived(self, written: int) -> bool:
        """Tell whether the client's machine has so many of the bytes that were `written`.

        As far as ours knows, and also where the client ended the connection itself.
        """
        if self._socket.fileno() >= 0:
            self._look()
        return self._is_ended or self._confirmed >= written

    async def handshake(self, decide: Callable[[Request], Refusal | None]) -> Request | None:
        """Take part in the opening handshake; return the request that opened the connection.

        ``decide`` may refuse it. Takes as long as the client does; what is cancelled is of no use.
        """
        protocol = self._protocol
        while not (events := protocol.events_received()):
            if protocol.handshake_exc is not None or not await self._receive():
                return None
            if self._received > MAX_REQUEST:
                return None
        request, *early = events
        assert isinstance(request, Request)
        if early:
            return None  # no client may send a frame before it was answered
        refusal = decide(request)
        if refusal is None:
            response = protocol.accept(request)
        else:
            response = protocol.reject(refusal.status, refusal.text)
            for name, value in refusal.headers:
                response.headers[name] = value
        protocol.send_response(response)
        self._transmit()
        await self.drain()
        if protocol.state is State.OPEN:
            if not protocol.reader.buffer:  # which may have the beginning of a frame already
                self._frames = FrameSplitter()
            return request
        with trio.move_on_after(LINGER_SECONDS):
            await self._discard()
        return None

    async def recv_all(self, patience: float) -> list[str | bytes]:
        """Return the messages that came together, one at least; pings are dealt with on the way.

        Raises:
            SilentError: none came within ``patience`` seconds.
            FloodError: too many frames that make none.
            ClosedError: the connection ended, in whatever way.
        """
        now = trio.current_time()
        give_up = now + patience
        try:
            while not self._messages:
                if self._protocol.state is not State.OPEN:
                    raise ClosedError
                if now >= give_up:
                    raise SilentError
                if patience > KEEPALIVE_SECONDS:  # `keep_alive` sees it in time
                    self._silent_at = give_up
                    await self._receive()
                else:
                    with trio.CancelScope(deadline=give_up):
                        await self._receive()
                if self._idle_frames > FRAMES_AT_ONCE and self._floods():
                    raise FloodError
                if not self._messages:
                    now = trio.current_time()
        finally:
            self._silent_at = float("inf")
        came, self._messages = self._messages, []
        return came

    def write(self, *messages: bytes) -> bool:
        """Send messages of at most 65 535 bytes; say if they left, or `drain` is to be awaited.

        Who does not wait before writing more uses memory without a bound.

        Raises:
            ClosedError: the connection has ended.
        """
        if self._protocol.state is not State.OPEN:
            raise ClosedError
        # As the protocol's own, at a tenth of the cost: one frame each, not masked (RFC 6455, 5.2).
        parts = []
        for data in messages:
            size = len(data)
            short = size < 126
            parts.append(bytes((_BINARY, size)) if short else _LONG.pack(_BINARY, 126, size))
            parts.append(data)
        self._queue(self._layer.encode(b"".join(parts)))
        return not self._unsent

    async def drain(self) -> None:
        """Wait until the client has taken all that was written before; may be cancelled.

        Not what others write meanwhile: a slow client of whom there is always more to be taken
        does read, and is not to be taken for one that does not.

        Raises:
            ClosedError: the connection was aborted.
        """
        everything = self._taken + len(self._unsent)
        while self._taken < everything:
            if self._socket.fileno() < 0:
                raise ClosedError
            if self._is_flushing:
                if self._drained is None:
                    self._drained = trio.Event()
                await self._drained.wait()
                continue
            self._is_flushing = True
            try:
                while self._taken < everything:
                    await trio.lowlevel.wait_writable(self._socket)
                    self._push()
            except trio.ClosedResourceError as error:
                raise ClosedError from error
            finally:
                self._is_flushing = False
                if self._drained is not None:
                    self._drained.set()
                    self._drained = None

    async def aclose(self, code: int, reason: str) -> None:
        """Say goodbye and wait for the client's; cancelling that is fine.

        Raises:
            ClosedError: the connection was aborted.
        """
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._transmit()
        await self.drain()
        await self._discard()

    def keep_alive(self, now: float) -> None:
        """Ping if it is time to, and abort where the last ping was not answered; never waits.

        Wakes `recv` where nothing came for too long.

        For whoever looks after all connections: a timer of each one's own would wake its task.
        """
        if self._socket.fileno() < 0 or self._protocol.state is not State.OPEN:
            return
        if now >= self._silent_at:
            trio.lowlevel.notify_closing(self._socket)
        elif now >= self._pong_by:
            self.abort()
        elif now >= self._ping_at and not self._unsent:
            self._ping_at, self._pong_by = float("inf"), now + KEEPALIVE_SECONDS
            self._protocol.send_ping(b"")
            self._transmit()

    def abort(self) -> None:
        """Close the socket, whatever is under way."""
        if self._socket.fileno() >= 0:
            self._look()
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    # --- receiving ---

    async def _receive(self) -> bool:
        """Feed what comes to the protocol and answer for it; return whether there can be more."""
        if self._socket.fileno() < 0:
            raise ClosedError
        try:
            await trio.lowlevel.wait_readable(self._socket)
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return True
        except trio.ClosedResourceError as error:  # aborted, or woken by `keep_alive`
            if self._socket.fileno() >= 0:
                return True
            raise ClosedError from error
        except OSError:
            data = b""
        self._received += len(data)
        self._is_ended = not data
        goes_on = bool(data) and self._decode(data)
        if not goes_on:
            self._protocol.receive_eof()
            self._transmit()
        if self._unsent:
            await self._wait_for_reader()
        return goes_on

    def _decode(self, data: bytes) -> bool:
        """Take what came out of its layer; return False where that is no use any more."""
        try:
            plain, answer = self._layer.receive(data)
        except LayerError:
            return False
        if answer:  # the record before those in which the protocol answers
            self._queue(answer)
        if plain:
            self._split(plain)
        return True

    def _split(self, data: bytes) -> None:
        """Take the messages in ``data``, and give the rest to the protocol."""
        protocol, frames = self._protocol, self._frames
        if frames is None:
            self._feed(data)
            return
        data, position = frames.with_rest(data), 0
        while (found := frames.next_frame(data, position)) is not None:
            part, position, is_message = found
            if is_message and protocol.state is State.OPEN:
                self._messages.append(part)
            elif not is_message:
                self._feed(part)

    def _feed(self, data: bytes) -> None:
        """Give the protocol what it is to see, and send what it has to say to that."""
        self._protocol.receive_data(data)
        self._take_events()
        self._transmit()

    def _floods(self) -> bool:
        lasted = trio.current_time() - self._since
        return self._idle_frames > FRAMES_AT_ONCE + lasted * FRAMES_PER_SECOND

    async def _wait_for_reader(self) -> None:
        # Whoever asks for pongs and reads none is not read any further, and is cut off.
        with trio.move_on_after(STALL_SECONDS) as scope:
            await self.drain()
        if scope.cancelled_caught:
            self.abort()
            raise ClosedError

    def _take_events(self) -> None:
        if self._protocol.state is State.CONNECTING:
            return  # the handshake's, which `handshake` takes
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)

    def _take(self, frame: Frame) -> None:
        self._idle_frames += 1
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY | Opcode.CONT:
                if frame.opcode is not Opcode.CONT:
                    self._text = frame.opcode is Opcode.TEXT
                self._begun += frame.data
                if frame.fin:
                    self._idle_frames -= 1
                    data, self._begun = bytes(self._begun), bytearray()
                    # That it is a text tells enough of a text, which is never read.
                    self._messages.append(data.decode(errors="replace") if self._text else data)
            case Opcode.PONG:
                self._pong_by = float("inf")
                self._ping_at = trio.current_time() + KEEPALIVE_SECONDS
            case _:
                pass  # the protocol has answered

    async def _discard(self) -> None:
        """Read until the client has said goodbye, or hung up."""
        while self._protocol.close_rcvd is None and await self._receive():
            self._messages.clear()

    # --- sending ---

    def _transmit(self) -> None:
        """Send what the protocol has to say."""
        for data in self._protocol.data_to_send():
            if data:
                self._queue(self._layer.encode(data))
            else:  # SEND_EOF
                self._shuts = True
        if self._shuts and not self._unsent:
            self._shut()

    def _queue(self, data: bytes) -> None:
        self.written += len(data)
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # reading will find out
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent += data

    def _push(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        self._taken += sent
        del self._unsent[:sent]
        if self._shuts and not self._unsent:
            self._shut()

    def _look(self) -> None:
        """Note how much the other end's TCP has confirmed."""
        waiting = array("i", [0])
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._socket, termios.TIOCOUTQ, waiting)  # SIOCOUTQ, tcp(7)
        # The end of the stream, if it was sent, is a byte of its own to TCP.
        unconfirmed = max(0, waiting[0] - self._is_shut)
        self._confirmed = self.written - len(self._unsent) - unconfirmed

    def _shut(self) -> None:
        self._is_shut = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)


def _set_options(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
