"""Many TURN clients on one UDP socket, each at a loopback address of its own.

All of 127.0.0.0/8 is this machine, so that one socket can speak for thousands of clients: the
source of each datagram goes along as IP_PKTINFO. To the server these are different five-tuples,
and the generator can send and receive for all of them with one system call.
"""

import itertools
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.bench.media.stun import (
    UDP_TRANSPORT,
    Answer,
    Attribute,
    Credential,
    Method,
    parse,
    request,
    xor_address,
)

IP_PKTINFO = 8
SO_RCVBUFFORCE = 33
FIRST_ADDRESS = int.from_bytes(socket.inet_aton("127.16.0.1"))
FIRST_CHANNEL, CHANNELS = 0x4000, 0x1000
"""RFC 8656 section 12."""

LIFETIME = 3600
RECEIVE_BUFFER = 64 << 20
"""Bytes: what a generator that is not scheduled for a while may find waiting."""

OUTSTANDING = 64
UNAUTHENTICATED, STALE_NONCE = 401, 438
RETRY_SECONDS = 0.25


class RefusedError(Exception):
    """The server answered with an error; ``code`` says which."""

    def __init__(self, method: Method, code: int) -> None:
        super().__init__(f"{method.name} was refused: {code}")
        self.code = code


def open_socket() -> socket.socket:
    """Return a socket on a free port of all loopback addresses, with room for bursts."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:  # not root: as much as the system gives
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind(("", 0))
    return sock


@dataclass
class Client:
    """One client; ``host`` is its own address, ``relayed`` what the server gave it."""

    host: int
    credential: Credential
    channel: int = 0
    peer: "Client | None" = None
    relayed: tuple[str, int] = ("", 0)
    realm: bytes = b""
    nonce: bytes = b""
    key: bytes = field(default=b"", repr=False)

    def source(self) -> list[tuple[int, int, bytes]]:
        """Return the control message that makes a datagram leave from its address."""
        packed = struct.pack("=I4s4s", 0, self.host.to_bytes(4), bytes(4))
        return [(socket.IPPROTO_IP, IP_PKTINFO, packed)]

    def signed(self, method: Method, attributes: list[tuple[int, bytes]]) -> tuple[bytes, bytes]:
        """Return an authenticated request."""
        identity = [
            (Attribute.USERNAME, self.credential.username.encode()),
            (Attribute.REALM, self.realm),
            (Attribute.NONCE, self.nonce),
        ]
        return request(method, [*attributes, *identity], self.key)

    def challenged(self, answer: Answer) -> None:
        """Keep realm and nonce of a 401 or 438."""
        self.realm = answer.attributes[Attribute.REALM]
        self.nonce = answer.attributes[Attribute.NONCE]
        self.key = self.credential.key(self.realm.decode())


class Clients:
    """Clients of one server, two and two of which have a ticket together.

    Each gets an address that none had before on this socket, also not one that was released.
    """

    def __init__(self, sock: socket.socket, server: tuple[str, int]) -> None:
        self.sock, self.server = sock, server
        self.all: list[Client] = []
        self._hosts = itertools.count(FIRST_ADDRESS)

    def add(self, pairs: Iterable[tuple[Credential, Credential]]) -> list[Client]:
        """Add a client for each credential, and return them; they have no allocation yet."""
        added: list[Client] = []
        for credentials in pairs:
            a, b = (Client(next(self._hosts), credential) for credential in credentials)
            a.peer, b.peer = b, a
            added += [a, b]
        self.all += added
        return added

    def allocate(self, clients: Sequence[Client], *, within: float = 30) -> None:
        """Make an allocation for each client.

        Raises:
            RefusedError: the server refused one.
            TimeoutError: not all were answered in ``within`` seconds.
        """
        end = time.monotonic() + within
        transport = (Attribute.REQUESTED_TRANSPORT, UDP_TRANSPORT)

        def challenge(_client: Client) -> tuple[bytes, bytes]:
            return request(Method.ALLOCATE, [transport])

        def allocation(client: Client) -> tuple[bytes, bytes]:
            lifetime = (Attribute.LIFETIME, LIFETIME.to_bytes(4))
            return client.signed(Method.ALLOCATE, [transport, lifetime])

        def allocated(client: Client, answer: Answer) -> None:
            client.relayed = answer.relayed()

        self._exchange(clients, challenge, Client.challenged, end, expected=UNAUTHENTICATED)
        self._exchange(clients, allocation, allocated, end)

    def bind(self, clients: Sequence[Client], *, within: float = 30) -> None:
        """Bind, or refresh, a channel of each client to the other client of its pair."""

        def binding(client: Client) -> tuple[bytes, bytes]:
            assert client.peer is not None
            client.channel = FIRST_CHANNEL + client.host % CHANNELS
            number = client.channel.to_bytes(2) + bytes(2)
            return client.signed(
                Method.CHANNEL_BIND,
                [
                    (Attribute.CHANNEL_NUMBER, number),
                    (Attribute.XOR_PEER_ADDRESS, xor_address(client.peer.relayed)),
                ],
            )

        self._exchange(clients, binding, _nothing, time.monotonic() + within)

    def exchange(self, clients: Sequence[Client], *, within: float = 10) -> None:
        """Pass a packet from each client to its peer by their channels; send again what is lost.

        Raises:
            TimeoutError: not all came in ``within`` seconds.
        """
        end = time.monotonic() + within
        missing = {client.host: client for client in clients}
        while missing:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(missing)} packets of {len(clients)} did not arrive")
            for client in missing.values():
                data = client.host.to_bytes(4)
                self._send(client, struct.pack(">HH", client.channel, len(data)) + data)
            while select.select([self.sock], [], [], RETRY_SECONDS)[0]:
                packet, control, _, _ = self.sock.recvmsg(2048, 64)
                if len(packet) != 8:
                    continue
                sender = missing.get(int.from_bytes(packet[4:]))
                if sender is None or sender.peer is None:
                    continue
                (host,) = (data[8:12] for _, kind, data in control if kind == IP_PKTINFO)
                expected = (sender.peer.channel, 4, sender.peer.host.to_bytes(4))
                if (*struct.unpack(">HH", packet[:4]), host) != expected:
                    raise AssertionError("a packet came to another client than the peer")
                del missing[sender.host]
                if not missing:
                    return

    def release(self, clients: Sequence[Client], *, within: float = 30) -> None:
        """End the allocation of each client."""

        def end(client: Client) -> tuple[bytes, bytes]:
            return client.signed(Method.REFRESH, [(Attribute.LIFETIME, bytes(4))])

        self._exchange(clients, end, _nothing, time.monotonic() + within)
        gone = set(map(id, clients))
        self.all = [client for client in self.all if id(client) not in gone]

    def _exchange(
        self,
        clients: Sequence[Client],
        make: Callable[[Client], tuple[bytes, bytes]],
        answered: Callable[[Client, Answer], None],
        end: float,
        expected: int = 0,
    ) -> None:
        """Send each client's request, a few at a time, until every one has its answer."""
        waiting: dict[bytes, tuple[Client, bytes, float]] = {}
        todo = iter(clients)
        remaining = len(clients)
        while remaining:
            while len(waiting) < OUTSTANDING and (client := next(todo, None)) is not None:
                transaction, message = make(client)
                waiting[transaction] = (client, message, time.monotonic() + RETRY_SECONDS)
                self._send(client, message)
            for answered_id, answer in self._answers(end):
                found = waiting.pop(answered_id, None)
                if found is None:  # answered twice, as it was sent twice
                    continue
                client = found[0]
                if answer.code == STALE_NONCE:
                    client.challenged(answer)
                    transaction, message = make(client)
                    waiting[transaction] = (client, message, time.monotonic() + RETRY_SECONDS)
                    self._send(client, message)
                    continue
                if answer.code != expected:
                    raise RefusedError(Method(answer.method), answer.code)
                answered(client, answer)
                remaining -= 1
            now = time.monotonic()
            for transaction, (client, message, due) in waiting.items():
                if due <= now:
                    self._send(client, message)
                    waiting[transaction] = (client, message, now + RETRY_SECONDS)

    def _send(self, client: Client, message: bytes) -> None:
        self.sock.sendmsg([message], client.source(), 0, self.server)

    def _answers(self, end: float) -> list[tuple[bytes, Answer]]:
        """Wait a while for answers, and return those that are there."""
        if time.monotonic() > end:
            raise TimeoutError("the server left requests unanswered")
        found = []
        if select.select([self.sock], [], [], RETRY_SECONDS)[0]:
            for _ in range(OUTSTANDING):
                try:
                    data = self.sock.recv(2048, socket.MSG_DONTWAIT)
                except OSError:  # no more, or a server that is not there
                    break
                if (parsed := parse(data)) is not None:
                    found.append(parsed)
        return found


def _nothing(_client: Client, _answer: Answer) -> None:
    """An answer that only had to come."""
