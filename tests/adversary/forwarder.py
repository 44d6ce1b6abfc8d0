"""A relay's media port in hostile hands: it stands between a client and the real one (UDP).

It has no key: what it changes, holds back, repeats and makes up is what the network could, and a
relay that is not given the SRTP keys.
"""

import random
from contextlib import asynccontextmanager

import anyio

from e2ecall.client.calllink import CallLink


class Forwarder:
    """Forwards both ways; ``change`` may give other datagrams for one that goes to the client."""

    def __init__(self, outer, inner):
        self._outer, self._inner = outer, inner
        self._sending = anyio.Lock()
        self.client = None
        self.channel = None
        """Number of the channel that the client has bound, once data came on it."""
        self.received = []
        """Data of the channel that went to the client, the latest 200."""
        self.change = lambda datagram: [datagram]

    @property
    def uri(self):
        host, port = self._outer.extra(anyio.abc.SocketAttribute.local_address)
        return f"turn:{host}:{port}?transport=udp"

    async def upwards(self):
        async for datagram, source in self._outer:
            self.client = source
            await self._inner.send(datagram)

    async def downwards(self):
        async for datagram in self._inner:
            if datagram[0] & 0xC0 == 0x40:
                self.channel = int.from_bytes(datagram[:2])
                self.received = [*self.received[-199:], datagram[4:]]
            for changed in self.change(datagram):
                await self.inject(changed)

    async def inject(self, datagram):
        """Send to the client from where it expects the relay."""
        async with self._sending:
            await self._outer.sendto(datagram, *self.client)

    def data(self, payload):
        """Return a payload as the relay would forward it from the peer."""
        padding = bytes(-len(payload) % 4)
        return self.channel.to_bytes(2) + len(payload).to_bytes(2) + payload + padding


@asynccontextmanager
async def between(client, relay, monkeypatch):
    """Put a forwarder between one client and its relay's media port."""
    host, port = relay.turn.removeprefix("turn:").partition("?")[0].rsplit(":", 1)
    original = CallLink.turn_uris
    async with (
        await anyio.create_udp_socket(local_host="127.0.0.1") as outer,
        await anyio.create_connected_udp_socket(host, int(port)) as inner,
        anyio.create_task_group() as tasks,
    ):
        forwarder = Forwarder(outer, inner)

        def turn_uris(link, credential):
            if link._sessions is client._services.sessions:
                return (forwarder.uri,)
            return original(link, credential)

        monkeypatch.setattr(CallLink, "turn_uris", turn_uris)
        tasks.start_soon(forwarder.upwards)
        tasks.start_soon(forwarder.downwards)
        yield forwarder
        tasks.cancel_scope.cancel()


def flipped(datagram, rng):
    """Return it with one bit of its payload changed."""
    changed = bytearray(datagram)
    changed[rng.randrange(4, len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def noise(seed):
    """Return what anybody could send to a media port: noise, and beginnings of every protocol."""
    rng = random.Random(seed)
    body = rng.randbytes(rng.randrange(0, 1_200))
    cookie = b"\x21\x12\xa4\x42"
    return [
        body,
        b"\x00\x01\x00\x00" + cookie + rng.randbytes(12),  # Binding request
        b"\x01\x11\x00\x08" + cookie + rng.randbytes(12) + b"\x00\x09\x00\x04\x00\x00\x04\x01",
        b"\x00\x17\x00\x00" + cookie + rng.randbytes(12),  # Data indication without data
        b"\x00\x01\xff\xff" + cookie + body,
        b"\x16\xfe\xfd" + bytes(8) + len(body).to_bytes(2) + body,  # DTLS handshake
        b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28",  # DTLS alert: fatal
        b"\x17\xfe\xfd\x00\x01" + bytes(6) + len(body).to_bytes(2) + body,
        b"\x80\x60" + rng.randbytes(10) + body,  # RTP
        b"\x80\xc8\x00\x06" + rng.randbytes(24),  # sender report
        b"\x81\xcb\x00\x01" + rng.randbytes(4),  # BYE
        b"",
    ]
