"""What lies between a TCP connection and TURN's frames: nothing, or TLS (spec/turn.md TURN-70).

Bytes in, bytes out: neither class reads or writes a socket, so that sending never has to wait.
"""

import ssl
from typing import Final, Protocol

MAX_HANDSHAKE: Final = 32_768
"""Bytes a client may send before its handshake is done; one with a large certificate takes 5 KB."""

_READ: Final = 16_384


class Layer(Protocol):
    """How a connection's bytes are read and written."""

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what the client said, and what has to be sent for the layer itself.

        Raises:
            LayerError: the connection is of no use any more.
        """

    def encode(self, data: bytes) -> bytes:
        """Return the bytes that say ``data``; each result has to be sent, in order."""


class LayerError(Exception):
    """The client does not speak TLS as it should."""


class PlainLayer:
    """TCP without TLS."""

    __slots__ = ()

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """Return ``data`` itself."""
        return data, b""

    def encode(self, data: bytes) -> bytes:
        """Return ``data`` itself."""
        return data


class TLSLayer:
    """The server's end of a TLS connection."""

    __slots__ = ("_handshake", "_incoming", "_outgoing", "_tls")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake: int | None = 0  # bytes so far, None once it is done

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the plaintext in ``data``, and handshake messages to send."""
        self._incoming.write(data)
        try:
            if self._handshake is not None:
                self._handshake += len(data)
                if self._handshake > MAX_HANDSHAKE:
                    raise LayerError("an endless handshake")
                self._tls.do_handshake()
                self._handshake = None
            return self._read(), self._outgoing.read()
        except ssl.SSLWantReadError:
            return b"", self._outgoing.read()
        except ssl.SSLError as error:
            raise LayerError("not TLS, or not any more") from error

    def encode(self, data: bytes) -> bytes:
        """Return ``data`` as TLS records; the handshake is done."""
        self._tls.write(data)
        return self._outgoing.read()

    def _read(self) -> bytes:
        plain = bytearray()
        try:
            while part := self._tls.read(_READ):
                plain += part
        except ssl.SSLWantReadError:
            pass
        return bytes(plain)
