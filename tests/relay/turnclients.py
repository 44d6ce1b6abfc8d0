"""TURN clients over real sockets, UDP, TCP and TLS, that leave every check to the test."""

import contextlib
import os
import socket
import ssl
import time
from collections import deque

import trio

from relay.services.tickets import issue
from relay.turn.attributes import AttributeType as Type
from relay.turn.attributes import (
    TransportAddress,
    decode_xor_address,
    encode_lifetime,
    encode_xor_address,
)
from relay.turn.auth import long_term_key
from relay.turn.stun import MessageClass, Method, encode_message, parse_message

UDP = (Type.REQUESTED_TRANSPORT, bytes((17, 0, 0, 0)))
SECRET = b"a secret of the test"
SECONDS = 10


def ticket(secret=SECRET, seconds=3600):
    """Return the credentials of both sides of a fresh ticket."""
    return issue(secret, time.time(), seconds, os.urandom(16))


class DatagramChannel:
    def __init__(self, sock):
        self.sock = sock

    async def send(self, frame):
        await self.sock.send(frame)

    async def receive(self):
        return await self.sock.recv(65_536)


class StreamChannel:
    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    async def send(self, frame):
        await self.stream.send_all(frame + bytes(-len(frame) % 4))

    async def receive(self):
        """Return the next frame without its padding; b"" if the server has closed."""
        while True:
            if len(self.buffer) >= 4:
                is_data = self.buffer[0] & 0xC0 == 0x40
                length = (4 if is_data else 20) + int.from_bytes(self.buffer[2:4])
                padded = length + -length % 4
                if len(self.buffer) >= padded:
                    frame, self.buffer = self.buffer[:length], self.buffer[padded:]
                    return frame
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                return b""
            self.buffer += data


@contextlib.asynccontextmanager
async def open_channel(transport, address, context=None):
    """Connect over "udp", "tcp" or "tls"."""
    host, port = address[:2]
    if transport == "udp":
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = trio.socket.socket(family, socket.SOCK_DGRAM)
        with sock:
            await sock.connect((host, port))
            yield DatagramChannel(sock)
        return
    stream = await trio.open_tcp_stream(host, port)
    if transport == "tls":
        stream = trio.SSLStream(stream, context, https_compatible=True)
    try:
        yield StreamChannel(stream)
    finally:
        await trio.aclose_forcefully(stream)


class TURNClient:
    def __init__(self, channel, credential):
        self.channel = channel
        self.credential = credential
        self.realm = self.nonce = self.relayed = None
        self.inbox = deque()

    async def ask(self, request):
        """Send a request and return the response to it; what else comes goes to the inbox."""
        await self.channel.send(request)
        with trio.fail_after(SECONDS):
            while frame := await self.channel.receive():
                if frame[0] < 2 and frame[8:20] == request[8:20]:
                    return parse_message(frame)
                self.inbox.append(frame)
        raise EOFError

    async def frame(self):
        """Return the next frame that is no response."""
        with trio.fail_after(SECONDS):
            return self.inbox.popleft() if self.inbox else await self.channel.receive()

    def signed(self, method, *attributes, transaction_id=None):
        username, password = self.credential.username, self.credential.password
        return encode_message(
            method,
            MessageClass.REQUEST,
            transaction_id or os.urandom(12),
            [
                *attributes,
                (Type.USERNAME, username.encode()),
                (Type.REALM, self.realm),
                (Type.NONCE, self.nonce),
            ],
            key=long_term_key(username, self.realm.decode(), password),
        )

    async def request(self, method, *attributes, transaction_id=None):
        """Return the error code of a signed request, or None for success."""
        if self.nonce is None:
            bare = encode_message(Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12), [UDP])
            challenge = await self.ask(bare)
            self.realm, self.nonce = challenge.first(Type.REALM), challenge.first(Type.NONCE)
        data = self.signed(method, *attributes, transaction_id=transaction_id)
        self.response = await self.ask(data)
        return code_of(self.response)

    async def allocate(self, *attributes):
        code = await self.request(Method.ALLOCATE, UDP, *attributes)
        if code is None:
            value = self.response.first(Type.XOR_RELAYED_ADDRESS)
            self.relayed = decode_xor_address(value, self.response.transaction_id)
        return code

    async def refresh(self, seconds):
        return await self.request(Method.REFRESH, (Type.LIFETIME, encode_lifetime(seconds)))

    async def permit(self, peer):
        transaction_id = os.urandom(12)
        value = (Type.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id))
        return await self.request(Method.CREATE_PERMISSION, value, transaction_id=transaction_id)

    async def bind(self, peer, number):
        transaction_id = os.urandom(12)
        return await self.request(
            Method.CHANNEL_BIND,
            (Type.CHANNEL_NUMBER, number.to_bytes(2) + bytes(2)),
            (Type.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)),
            transaction_id=transaction_id,
        )

    async def channel_data(self, number, data):
        await self.channel.send(number.to_bytes(2) + len(data).to_bytes(2) + data)

    async def send_indication(self, peer, data):
        transaction_id = os.urandom(12)
        values = [
            (Type.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)),
            (Type.DATA, data),
        ]
        await self.channel.send(
            encode_message(Method.SEND, MessageClass.INDICATION, transaction_id, values)
        )


def code_of(response):
    value = response.first(Type.ERROR_CODE)
    return None if value is None else value[2] * 100 + value[3]


def peer(host, port):
    return TransportAddress.parse(host, port)


@contextlib.asynccontextmanager
async def client(transport, address, credential, context=None):
    """Give a client that has an allocation."""
    async with open_channel(transport, address, context) as channel:
        one = TURNClient(channel, credential)
        code = await one.allocate()
        assert code is None, code
        yield one


def trusting(certificate):
    """Return a TLS context that trusts a certificate file."""
    return ssl.create_default_context(cafile=certificate)
