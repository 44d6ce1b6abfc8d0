"""Fuzzes the TURN core: valid messages, mutated ones and noise, from several clients at once.

`make fuzz SECONDS=600`, or `python -m tests.fuzz.turn --seconds 600 [--seed N]`. An episode is a
fresh server with a few clients on UDP, TCP and TLS; what it does follows from its seed alone. After
each frame it is checked that

- nothing but `STUNError`, and that from the reader of a stream only, was raised;
- at most one frame came out, and that one is well-formed, also by aioice's reading;
- an answer goes to who asked, and is short if that one did not prove who it is;
- data goes to a client with a live allocation of the same ticket, by the fuzzer's own account;
- no table holds more than the clients and their limits allow;

and in the end that nothing is left when all lifetimes have passed.
"""

import argparse
import base64
import hmac
import itertools
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import aioice.stun

from relay.turn.attributes import (
    AttributeType,
    PasswordAlgorithm,
    TransportAddress,
    decode_xor_address,
    encode_password_algorithm,
    encode_xor_address,
)
from relay.turn.auth import PASSWORD_ALGORITHMS, long_term_key
from relay.turn.errors import STUNError
from relay.turn.five_tuple import Transport, listener_number, sources_of
from relay.turn.framing import FrameReader, encode_frame
from relay.turn.limits import Limits
from relay.turn.server import TURNServer
from relay.turn.stun import (
    FINGERPRINT,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    MessageClass,
    Method,
    encode_message,
    parse_message,
)

START = 1_800_000_000.0
STEPS = 150
LIMITS = Limits(allocations=5, allocations_per_address=3, peers_per_allocation=4)
UNPROVEN = 100
REALM = "e2ecall"
PEERS = [("127.0.0.1", 22), ("169.254.169.254", 80), ("::1", 80), ("::ffff:198.18.0.1", 50_000)]
KINDS = [*AttributeType, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, FINGERPRINT, 0x001A, 0x7777]
REQUESTS = [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]


class FaultError(AssertionError):
    """The server did what it must not."""


@dataclass(frozen=True)
class Identity:
    ticket_id: bytes
    side: int
    expires: int


def identify(username, now):
    expiry, _, name = username.partition(":")
    if not expiry.isdecimal() or len(name) != 2 or name[1] not in "ab":
        return None
    identity = Identity(name[:1].encode(), "ab".index(name[1]), int(expiry))
    return identity if now < identity.expires else None


def password(username):
    return base64.b64encode(hmac.digest(b"secret", username.encode(), "sha1")).decode()


def credential(username, nonce):
    return [
        (AttributeType.USERNAME, username.encode()),
        (AttributeType.REALM, REALM.encode()),
        (AttributeType.NONCE, nonce),
    ]


def is_whole(stream):
    """Say whether a stream of these bytes goes on after them."""
    reader = FrameReader()
    try:
        for _ in reader.receive(stream):
            pass
    except STUNError:
        return False
    return not reader.is_partial


@dataclass
class Client:
    five_tuple: tuple
    username: str
    nonce: bytes = b""
    relayed: tuple = ("198.18.0.1", 50_000)
    reader: FrameReader = field(default_factory=FrameReader)

    @property
    def is_stream(self):
        return self.five_tuple[0] >= listener_number(Transport.TCP, 0)


class Episode:
    """One server and its clients."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now = START
        self.core = TURNServer(
            identify=identify,
            password=password,
            nonce_key=bytes(32),
            limits=LIMITS,
            generate=self.random.randbytes,
        )
        places = [
            (Transport.UDP, ("192.0.2.1", 1000)),
            (Transport.TCP, ("192.0.2.1", 1000)),
            (Transport.TLS, ("192.0.2.3", 1002)),
            (Transport.UDP, ("2001:db8::1", 1003, 0, 0)),
            (Transport.TCP, ("2001:db8::2", 1004, 0, 0)),
            (Transport.UDP, ("192.0.2.6", 1005)),
        ]
        names = ["xa", "xb", "xb", "ya", "yb", "xb"]
        self.clients = [
            Client(
                (listener_number(transport, 0), address),
                f"{int(START) + self.random.choice([300, 5000, 20_000])}:{name}",
            )
            for (transport, address), name in zip(places, names, strict=True)
        ]
        self.by_five_tuple = {client.five_tuple: client for client in self.clients}
        self.owned = {}  # five-tuple: (ticket, until), by what the server has answered
        self.sent = []
        self.count = Counter()

    def run(self):
        if self.random.random() < 0.9:
            self.prepare()
        for _ in range(STEPS):
            self.step()
        self.now += 100_000
        self.core.expire(self.now)
        self.check_state()
        if len(self.core._table):
            raise FaultError("an allocation outlived its lifetime")

    def prepare(self):
        """Bring about what chance would seldom: clients that are connected with one another."""
        for client in self.clients:
            for _ in range(2):
                self.deliver(client, self.signed(client, Method.ALLOCATE))
        for client, other in itertools.permutations(self.clients, 2):
            if self.random.random() < 0.8:
                method = self.random.choice([Method.CHANNEL_BIND, Method.CREATE_PERMISSION])
                self.deliver(client, self.signed(client, method, other))
        self.check_state()

    def signed(self, client, method, peer=None):
        transaction_id = self.random.randbytes(12)
        attributes = self.attributes(client, method, transaction_id)
        if peer is not None:
            address = TransportAddress.parse(*peer.relayed)
            value = encode_xor_address(address, transaction_id)
            attributes[-1] = (AttributeType.XOR_PEER_ADDRESS, value)
        attributes += credential(client.username, client.nonce)
        key = long_term_key(client.username, REALM, password(client.username))
        return encode_message(
            method,
            MessageClass.REQUEST,
            transaction_id,
            attributes,
            key=key if client.nonce else None,
        )

    def step(self):
        choice = self.random.random()
        client = self.random.choice(self.clients)
        if choice < 0.02:
            self.now += self.random.choice([0.5, 0.5, 1, 1, 60, 299, 301, 599, 601, 3601])
            if self.random.random() < 0.7:
                self.core.expire(self.now)
        elif choice < 0.025 and client.is_stream:
            self.disconnect(client)
        else:
            self.deliver(client, self.frame(client))
        self.check_state()

    # What is sent.

    def frame(self, client):
        choice = self.random.random()
        if choice < 0.4:
            frame = self.request(client, mutated=choice < 0.2)
        elif choice < 0.7:
            frame = self.data(client)
        elif choice < 0.75:
            frame = self.random.randbytes(self.random.choice([0, 1, 4, 20, 60]))
        else:
            frame = self.mutate(self.random.choice(self.sent) if self.sent else b"\0")
        if choice < 0.75:
            self.sent = [*self.sent[-30:], frame]
        return frame

    def data(self, client):
        payload = self.random.randbytes(self.random.choice([0, 1, 2, 3, 50]))
        if self.random.random() < 0.7:
            allocation = self.core._table.get(client.five_tuple)
            bound = [channel.number for channel in allocation.channels] if allocation else []
            number = self.random.choice([*bound, *bound, self.number()])
            return number.to_bytes(2) + len(payload).to_bytes(2) + payload
        transaction_id = self.random.randbytes(12)
        attributes = [self.peer(client, transaction_id), (AttributeType.DATA, payload)]
        if self.random.random() < 0.1:
            attributes = self.mutate_attributes(attributes)
        return encode_message(Method.SEND, MessageClass.INDICATION, transaction_id, attributes)

    def request(self, client, *, mutated):
        transaction_id = self.random.randbytes(12)
        method = self.random.choice(REQUESTS)
        attributes = self.attributes(client, method, transaction_id)
        if self.random.random() < 0.1:
            method = Method.BINDING
        username = client.username
        if self.random.random() < 0.05:
            username = self.random.choice(self.clients).username
        attributes += credential(username, client.nonce)
        algorithm = self.random.choice([None, *PasswordAlgorithm])
        if algorithm is not None:
            attributes += [
                (AttributeType.PASSWORD_ALGORITHM, encode_password_algorithm(algorithm)),
                (AttributeType.PASSWORD_ALGORITHMS, PASSWORD_ALGORITHMS),
            ]
        if mutated:
            attributes = self.mutate_attributes(attributes)
        key = None
        if self.random.random() < 0.95 and client.nonce:
            kind = algorithm or PasswordAlgorithm.MD5
            key = long_term_key(username, REALM, password(username), kind)
        return encode_message(
            method,
            MessageClass.REQUEST,
            transaction_id,
            attributes,
            key=key,
            sha256=algorithm is not None and self.random.random() < 0.9,
            fingerprint=self.random.random() < 0.3,
        )

    def attributes(self, client, method, transaction_id):
        lifetime = self.random.choice([0, 1, 600, 3600, 2**32 - 1]).to_bytes(4)
        match method:
            case Method.ALLOCATE:
                protocol = self.random.choice([17] * 20 + [6])
                attributes = [(AttributeType.REQUESTED_TRANSPORT, bytes((protocol, 0, 0, 0)))]
                if self.random.random() < 0.5:
                    attributes.append((AttributeType.LIFETIME, lifetime))
                return attributes
            case Method.REFRESH:
                if lifetime == bytes(4) and self.random.random() < 0.9:
                    lifetime = (600).to_bytes(4)
                return [(AttributeType.LIFETIME, lifetime)]
            case Method.CREATE_PERMISSION:
                count = self.random.choice([1, 1, 2])
                return [self.peer(client, transaction_id) for _ in range(count)]
        number = (AttributeType.CHANNEL_NUMBER, self.number().to_bytes(2) + bytes(2))
        return [number, self.peer(client, transaction_id)]

    def peer(self, client, transaction_id):
        peers = self.clients
        if self.random.random() < 0.7:
            peers = [other for other in peers if other.username[-2] == client.username[-2]]
        address = self.random.choice(peers).relayed
        if self.random.random() < 0.1:
            address = self.random.choice(PEERS)
        value = encode_xor_address(TransportAddress.parse(*address), transaction_id)
        return AttributeType.XOR_PEER_ADDRESS, value

    def number(self):
        return self.random.choice([*range(0x4000, 0x4006), 0x4FFF, 0x5000, 0x3FFF])

    def mutate_attributes(self, attributes):
        changed = list(attributes)
        for _ in range(self.random.choice([1, 1, 2, 4])):
            at = self.random.randrange(len(changed) + 1)
            match self.random.randrange(5):
                case 0:
                    size = self.random.choice([0, 1, 3, 4, 8, 12, 20, 32])
                    changed.insert(at, (self.random.choice(KINDS), self.random.randbytes(size)))
                case 1 if changed:
                    del changed[at - 1]
                case 2 if changed:
                    changed.insert(at, self.random.choice(changed))
                case 3 if changed:
                    kind, value = changed[at - 1]
                    changed[at - 1] = kind, self.mutate(value)
                case 4 if changed:
                    _, value = changed[at - 1]
                    changed[at - 1] = self.random.choice(KINDS), value
        return changed

    def mutate(self, data):
        changed = bytearray(data)
        for _ in range(self.random.choice([1, 1, 2, 5])):
            at = self.random.randrange(len(changed) + 1)
            match self.random.randrange(5):
                case 0 if changed:
                    changed[at - 1] ^= 1 << self.random.randrange(8)
                case 1:
                    del changed[at:]
                case 2:
                    changed[at:at] = self.random.randbytes(self.random.choice([1, 2, 4, 9]))
                case 3 if changed:
                    changed[at - 1] = self.random.choice([0, 1, 0x40, 0x7F, 0x80, 0xFF])
                case 4:
                    other = self.random.choice(self.sent) if self.sent else b""
                    changed[at:] = other[self.random.randrange(len(other) + 1) :]
        return bytes(changed)

    # What comes of it.

    def deliver(self, client, frame):
        if not client.is_stream:
            self.receive(client, frame)
            return
        stream, at = encode_frame(frame), 0
        if self.random.random() < 0.02:
            stream = frame  # a client that does not pad
        if self.random.random() < 0.9 and not is_whole(stream):
            return  # it would end the connection, and with it what has been built up
        try:
            while at < len(stream):
                size = self.random.choice([1, 3, 20, len(stream)])
                for whole in client.reader.receive(stream[at : at + size]):
                    self.receive(client, whole)
                at += size
        except STUNError:
            self.disconnect(client)

    def disconnect(self, client):
        client.reader = FrameReader()
        self.core.disconnected(client.five_tuple)
        self.owned.pop(client.five_tuple, None)

    def receive(self, client, frame):
        self.count["frames"] += 1
        outgoing = self.core.receive(self.now, client.five_tuple, frame)
        if len(outgoing) > 1:
            raise FaultError("one frame made several")
        for target, data in outgoing:
            self.check_outgoing(client, frame, target, data)

    def check_outgoing(self, client, frame, target, data):
        if target not in self.by_five_tuple:
            raise FaultError("a frame for nobody")
        if 0x40 <= data[0] <= 0x4F:
            if int.from_bytes(data[2:4]) != len(data) - 4:
                raise FaultError("ChannelData with a wrong length")
            self.check_media(client, target)
            self.count["channel data"] += 1
            return
        message = parse_message(data)
        if aioice.stun.parse_message(data).transaction_id != message.transaction_id:
            raise FaultError("aioice reads another message")
        if message.message_class is MessageClass.INDICATION:
            if message.method != Method.DATA:
                raise FaultError("an indication that is no Data")
            self.check_media(client, target)
            self.count["data indications"] += 1
            return
        if target != client.five_tuple:
            raise FaultError("an answer for somebody else")
        if not message.is_signed and message.method != Method.BINDING and len(data) > UNPROVEN:
            raise FaultError("a long answer to a stranger")
        self.note_answer(client, frame, message)

    def check_media(self, sender, target):
        """Data passes between live allocations of one ticket, by the fuzzer's own account."""
        ends = [self.owned.get(five_tuple) for five_tuple in (sender.five_tuple, target)]
        if None in ends or ends[0][0] != ends[1][0]:
            raise FaultError("data has left its ticket")
        if any(until <= self.now for _, until in ends):
            raise FaultError("data passed for an allocation that has ended")

    def note_answer(self, client, frame, message):
        nonce = message.first(AttributeType.NONCE)
        if nonce is not None:
            client.nonce = nonce
        if message.message_class is not MessageClass.SUCCESS:
            value = message.first(AttributeType.ERROR_CODE)
            self.count[f"refusals {value[2] * 100 + value[3]}"] += 1
            return
        self.count["successes"] += 1
        raw = message.first(AttributeType.LIFETIME)
        if raw is None:
            return
        lifetime = int.from_bytes(raw)
        if message.method == Method.ALLOCATE:
            relayed = message.first(AttributeType.XOR_RELAYED_ADDRESS)
            address = decode_xor_address(relayed, message.transaction_id)
            client.relayed = str(address).rpartition(":")[0], address.port
            if not client.relayed[0].startswith(("198.18.", "198.19.")):
                raise FaultError("a relayed address that is not virtual")
            username = parse_message(frame).first(AttributeType.USERNAME)
            ticket = username.partition(b":")[2][:1]
            if self.owned.get(client.five_tuple, (None, 0))[1] <= self.now:
                self.owned[client.five_tuple] = ticket, self.now + lifetime
        elif not lifetime:
            del self.owned[client.five_tuple]
        else:
            ticket, _ = self.owned[client.five_tuple]
            self.owned[client.five_tuple] = ticket, self.now + lifetime

    def check_state(self):
        table, routes = self.core._table, self.core._forwarding.routes
        sides = Counter((a.ticket_id, a.side) for a in table if self.now < a.expires)
        if len(table) > LIMITS.allocations or any(
            count > LIMITS.allocations_per_side for count in sides.values()
        ):
            raise FaultError("more allocations than allowed")
        if not (
            len(table._by_relayed)
            == sum(map(len, table._by_ticket.values()))
            == len(table._deadlines)
            == len(table)
        ) or table._by_source != Counter(
            source for allocation in table for source in sources_of(allocation.five_tuple)
        ):
            raise FaultError("the tables do not agree")
        if max(table._by_source.values(), default=0) > LIMITS.allocations_per_address:
            raise FaultError("more allocations of a source than allowed")
        for allocation in table:
            if max(len(allocation.channels), len(allocation.permissions)) > (
                LIMITS.peers_per_allocation
            ):
                raise FaultError("more peers than allowed")
        if len(routes) > 2 * LIMITS.peers_per_allocation * len(table):
            raise FaultError("more routes than channels")


def fuzz(seeds, stop=lambda: False):
    """Run the episodes of these seeds until ``stop``; return what was counted.

    Raises:
        FaultError: with the seed of the episode; so does any other exception.
    """
    total = Counter()
    for seed in seeds:
        if stop():
            break
        episode = Episode(seed)
        try:
            episode.run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        total += episode.count
        total["episodes"] += 1
    return total


def main():
    parser = argparse.ArgumentParser(description="Fuzz the TURN core.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    print(f"from seed {options.seed}", flush=True)
    counted = fuzz(itertools.count(options.seed), lambda: time.monotonic() >= end)
    print(", ".join(f"{number} {name}" for name, number in sorted(counted.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
