"""Accepting connections: who may begin a handshake, and over what (spec/wire.md, Connections).

Counts connections from the moment they are accepted: one that never completes TLS or WebSocket is
one of those that are bounded per source and in all. It reads no byte.
"""

import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from relay.io.tls import Certificates
from relay.services.source import source_key

MAX_HANDSHAKES: Final = 4096
"""Handshakes under way at once, from all sources; each lasts seconds and costs some 20 KB."""

Admit = Callable[[str], int | None]
"""``admit(peer)``: how many handshakes this address may have under way; None: any number."""


class Gate:
    """The handshakes under way."""

    def __init__(self, admit: Admit) -> None:
        self._admit = admit
        self._sources: Counter[str] = Counter()
        self.handshakes = 0
        self.turned_away = 0

    def enter(self, peer: str) -> bool:
        """Count one more handshake, if it is not one too many."""
        source, most = source_key(peer), self._admit(peer)
        too_many = most is not None and self._sources[source] >= most
        if too_many or self.handshakes >= MAX_HANDSHAKES:
            if not self._sources[source]:
                del self._sources[source]
            self.turned_away += 1
            return False
        self.handshakes += 1
        self._sources[source] += 1
        return True

    def leave(self, peer: str) -> None:
        """Count one handshake less: it succeeded, or the connection is gone."""
        source = source_key(peer)
        self.handshakes -= 1
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]


class GatedStream(trio.abc.HalfCloseableStream):
    """A TCP connection that counts as a handshake until it `passed` or closed."""

    def __init__(self, stream: trio.SocketStream, peer: str, gate: Gate) -> None:
        self._stream = stream
        self._gate: Gate | None = gate
        self.peer: Final = peer
        self.endpoint: bytes | None = None
        """Hash of the certificate that TLS on this connection shows; None without TLS."""

    def passed(self) -> None:
        """Note that the handshake is over."""
        if self._gate is not None:
            self._gate.leave(self.peer)
            self._gate = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room in the socket's buffer."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more comes."""
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return some bytes; none at the end."""
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close the connection."""
        self.passed()
        await self._stream.aclose()


class GatedListener(trio.abc.Listener[trio.abc.Stream]):
    """Gives accepted connections, with TLS around them where there are certificates."""

    def __init__(
        self, listener: trio.SocketListener, gate: Gate, certificates: Certificates | None
    ) -> None:
        self._listener = listener
        self._gate = gate
        self._certificates = certificates
        self.socket: Final = listener.socket

    async def accept(self) -> trio.abc.Stream:
        """Wait for a connection that may begin its handshake; others are closed at once."""
        while True:
            stream = await self._listener.accept()
            try:
                peer = str(stream.socket.getpeername()[0])
            except OSError:  # gone already
                await trio.aclose_forcefully(stream)
                continue
            if not self._gate.enter(peer):
                await trio.aclose_forcefully(stream)
                continue
            gated = GatedStream(stream, peer, self._gate)
            if self._certificates is None:
                return gated
            served = self._certificates.current
            gated.endpoint = served.endpoint
            return _over_tls(gated, served.context)

    async def aclose(self) -> None:
        """Stop listening."""
        await self._listener.aclose()


def transport(stream: trio.abc.Stream) -> GatedStream:
    """Return what is below TLS, if there is TLS."""
    below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(below, GatedStream)
    return below


def _over_tls(stream: GatedStream, context: ssl.SSLContext) -> trio.abc.Stream:
    # https_compatible: frames say where they end, so a missing TLS goodbye is no error.
    return trio.SSLStream(stream, context, server_side=True, https_compatible=True)
