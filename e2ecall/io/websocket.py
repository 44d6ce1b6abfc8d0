"""A WebSocket client on AnyIO around websockets' sans-I/O protocol (RFC 6455).

Moves binary messages; it knows nothing of what they mean. No compression is offered: the
length of a compressed message would depend on what it says.
"""

import contextlib
import ssl
from collections import deque
from typing import Final, Self

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from e2ecall.errors import ConnectionFailedError
from e2ecall.io.endpoint import RelayEndpoint
from relay.wire.limits import MAX_FRAME
from relay.wire.records import endpoint_hash

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for TCP, TLS and the WebSocket handshake together."""

PING_INTERVAL: Final = 20.0
"""Seconds of silence after which a ping goes out; as many again without an answer end it."""

WRITE_TIMEOUT: Final = 5.0
"""Seconds that the other end may take to make room for a message; normally there is room."""

_CLOSE_TIMEOUT: Final = 1.0
_CHUNK: Final = 65_536
_STREAM_ERRORS: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class WebSocket:
    """One connection. `receive` belongs to a single task; `send` may be called by any."""

    def __init__(self, stream: ByteStream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._messages: deque[bytes] = deque()
        self._send_lock = anyio.Lock()
        self._broken = False
        self._heard = anyio.Event()

    @classmethod
    async def connect(cls, endpoint: RelayEndpoint, tls: ssl.SSLContext | None) -> Self:
        """Connect and complete the handshake; ``tls`` is used where the endpoint wants TLS.

        Raises:
            ConnectionFailedError: unreachable, a certificate that does not verify, no WebSocket.
        """
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                return await cls._connect(endpoint, tls)
        except ssl.SSLCertVerificationError as error:
            raise ConnectionFailedError(
                f"the certificate of {endpoint.name} is not valid: {error.verify_message}",
                hint="do not go on unless you know why; a private authority is named with --ca",
            ) from error
        except TimeoutError as error:
            raise ConnectionFailedError(f"{endpoint.name} did not answer in time") from error
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise ConnectionFailedError(
                f"cannot connect to the relay {endpoint.name}",
                hint="check its name, and whether this machine is online",
            ) from error

    @classmethod
    async def _connect(cls, endpoint: RelayEndpoint, tls: ssl.SSLContext | None) -> Self:
        stream: ByteStream
        if endpoint.tls:
            # A missing TLS goodbye is no error: frames say where they end.
            stream = await anyio.connect_tcp(
                endpoint.host,
                endpoint.port,
                tls=True,
                ssl_context=tls,
                tls_standard_compatible=False,
            )
        else:
            stream = await anyio.connect_tcp(endpoint.host, endpoint.port)
        protocol = ClientProtocol(parse_uri(endpoint.url), max_size=MAX_FRAME)
        socket = cls(stream, protocol)
        try:
            protocol.send_request(protocol.connect())
            await socket._flush()
            while protocol.state is State.CONNECTING:
                await socket._read_some()
                if protocol.handshake_exc is not None:
                    raise protocol.handshake_exc
        except InvalidHandshake as error:
            await anyio.aclose_forcefully(stream)
            raise ConnectionFailedError(f"{endpoint.name} is not a relay: {error}") from error
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        return socket

    @property
    def endpoint(self) -> bytes | None:
        """`endpoint_hash` of the certificate that the other end showed; None without TLS."""
        name = TLSAttribute.peer_certificate_binary
        certificate = self._stream.extra(name, None)  # noqa: S610 - this is anyio's
        return None if certificate is None else endpoint_hash(certificate)

    async def send(self, message: bytes) -> None:
        """Send one binary message; whole, also if it is cancelled meanwhile.

        Raises:
            ConnectionFailedError: the connection is gone.
        """
        if self._broken or self._protocol.state is not State.OPEN:
            raise ConnectionFailedError("the connection to the relay is closed")
        self._protocol.send_binary(message)
        await self._flush()

    async def ping(self) -> None:
        """Ask the other end for a sign of life and wait for one; another task receives.

        Raises:
            ConnectionFailedError: the connection is gone.
        """
        if self._broken or self._protocol.state is not State.OPEN:
            raise ConnectionFailedError("the connection to the relay is closed")
        self._protocol.send_ping(b"")
        heard = self._heard
        await self._flush()
        await heard.wait()

    async def receive(self) -> bytes:
        """Return the next message; keeps the connection alive meanwhile.

        Raises:
            ConnectionFailedError: closed by the relay, or silent for too long.
        """
        pinged = False
        while not self._messages:
            if self._protocol.state is not State.OPEN:
                raise ConnectionFailedError(self._close_text())
            arrived = False
            with anyio.move_on_after(PING_INTERVAL):
                await self._read_some()
                arrived = True
            if arrived:
                pinged = False
            elif pinged:
                raise ConnectionFailedError("the relay does not answer any more")
            else:
                pinged = True
                self._protocol.send_ping(b"")
                await self._flush()
        return self._messages.popleft()

    async def aclose(self) -> None:
        """Say goodbye if that is quick, and release the socket in any case."""
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
                with contextlib.suppress(ConnectionFailedError):
                    await self._flush(_CLOSE_TIMEOUT)
        await anyio.aclose_forcefully(self._stream)

    async def _read_some(self) -> None:
        try:
            data = await self._stream.receive(_CHUNK)
        except anyio.EndOfStream:
            self._protocol.receive_eof()
        except _STREAM_ERRORS as error:
            raise ConnectionFailedError("the connection to the relay broke") from error
        else:
            self._protocol.receive_data(data)
            self._heard.set()
            self._heard = anyio.Event()
        self._collect()
        # What arrived counts, also when the other end takes no answer any more: it may say why.
        # That nothing can be sent shows at the next read or send.
        with contextlib.suppress(ConnectionFailedError):
            await self._flush()

    def _collect(self) -> None:
        for event in self._protocol.events_received():
            # The relay sends every message as a single frame; fragments are refused.
            if isinstance(event, Frame):
                if event.opcode is Opcode.BINARY and event.fin:
                    self._messages.append(bytes(event.data))
                elif event.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
                    self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "binary messages only")

    async def _flush(self, limit: float | None = None) -> None:
        # One writer at a time: what two tasks queued must not be interleaved on the stream.
        async with self._send_lock:
            for data in self._protocol.data_to_send():
                if self._broken:
                    raise ConnectionFailedError("the connection to the relay broke")
                if data:
                    await self._write(data, WRITE_TIMEOUT if limit is None else limit)

    async def _write(self, data: bytes, limit: float) -> None:
        """Write a whole frame: one task's cancellation must not leave the others half of it."""
        sent = False
        try:
            with anyio.move_on_after(limit, shield=True):
                await self._stream.send(data)
                sent = True
        except _STREAM_ERRORS as error:
            raise ConnectionFailedError("the connection to the relay broke") from error
        finally:
            if not sent:
                # Whoever reads learns of it here, and not only when an answer is missed.
                self._broken = True
                await anyio.aclose_forcefully(self._stream)
        if not sent:
            raise ConnectionFailedError("the relay does not read any more")

    def _close_text(self) -> str:
        close = self._protocol.close_rcvd
        if close is None or close.code == CloseCode.NO_STATUS_RCVD:
            return "the relay closed the connection"
        printable = "".join(c for c in close.reason if c.isprintable())
        return f"the relay closed the connection ({close.code}: {printable})"
