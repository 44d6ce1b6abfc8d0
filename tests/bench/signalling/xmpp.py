"""As little of XMPP as two clients need that log in and write to each other (RFC 6120, 6121).

Stanzas are found by their tags and not parsed: the server is the one that is measured.
"""

import asyncio
import base64
from collections.abc import Callable

PASSWORD = "bench"
HOST = "localhost"
_END = b"</message>"


class XMPP(asyncio.Protocol):
    """One client of a server on loopback, without TLS; `on_message` gets each stanza."""

    def __init__(self) -> None:
        self.on_message: Callable[[bytes], None] | None = None
        self._buffer = bytearray()
        self._wanted: tuple[bytes, asyncio.Future[None]] | None = None

    @classmethod
    async def log_in(cls, address: tuple[str, int], user: str) -> "XMPP":
        """Connect, authenticate, bind a resource and become available."""
        loop = asyncio.get_running_loop()
        self = cls()
        self._transport, _ = await loop.create_connection(lambda: self, *address)
        stream = (
            f"<?xml version='1.0'?><stream:stream to='{HOST}' version='1.0' xmlns='jabber:client'"
            " xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        secret = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
        await self._ask(stream, b"</stream:features>")
        await self._ask(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"
            + secret
            + "</auth>",
            b"<success",
        )
        await self._ask(stream, b"</stream:features>")
        await self._ask(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            "<resource>x</resource></bind></iq>",
            b"</iq>",
        )
        await self._ask("<presence/>", b"<presence")
        return self

    def send(self, user: str, number: int, body: str) -> None:
        """Write to somebody."""
        head = f"<message to='{user}@{HOST}' type='chat' id='{number}'><body>"
        self._transport.write(f"{head}{body}</body></message>".encode())

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    async def _ask(self, text: str, wanted: bytes) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted = wanted, future
        self._transport.write(text.encode())
        await future

    def data_received(self, data: bytes) -> None:
        """Take what the server sent."""
        self._buffer += data
        if self._wanted is not None:
            wanted, future = self._wanted
            if wanted in self._buffer:
                self._wanted = None
                self._buffer.clear()
                future.set_result(None)
            elif b"failure" in self._buffer or b"error" in self._buffer:
                future.set_exception(ConnectionError(self._buffer.decode(errors="replace")))
            return
        while (end := self._buffer.find(_END)) >= 0:
            stanza = bytes(self._buffer[:end])
            del self._buffer[: end + len(_END)]
            if self.on_message is not None:
                self.on_message(stanza)

    def connection_lost(self, error: Exception | None) -> None:
        """Let whoever waits know."""
        if self._wanted is not None and not self._wanted[1].done():
            self._wanted[1].set_exception(error or ConnectionError("the server hung up"))
