"""Data between allocations of one ticket (RFC 8656 sections 11 and 12; spec/turn.md TURN-30 ff).

Where both ends have bound a channel, a packet is one dictionary lookup (`relay.turn.routes`);
otherwise the same rules are checked step by step. It decides nothing about who may bind what.
"""

from relay.turn.allocation import Allocation, AllocationTable, GenerateBytes
from relay.turn.attributes import (
    AttributeType,
    TransportAddress,
    decode_xor_address,
    encode_xor_address,
    unknown_attributes,
)
from relay.turn.channel import Channel, decode_channel_data, encode_channel_data
from relay.turn.counters import Counters, Drop
from relay.turn.errors import STUNError
from relay.turn.five_tuple import FiveTuple
from relay.turn.routes import Route, RouteKey, Routes
from relay.turn.stun import (
    TRANSACTION_ID_LENGTH,
    MessageClass,
    Method,
    STUNMessage,
    encode_message,
)

Datagram = tuple[FiveTuple, bytes]
"""Where to, and what."""


class Forwarding:
    """Carries data; keeps the routes of fully bound channel pairs in step with the table."""

    __slots__ = ("_counters", "_generate", "_table", "routes")

    def __init__(self, table: AllocationTable, counters: Counters, generate: GenerateBytes) -> None:
        self._table = table
        self._counters = counters
        self._generate = generate
        self.routes = Routes()

    def channel_data(self, now: float, five_tuple: FiveTuple, datagram: bytes) -> list[Datagram]:
        """Forward a ChannelData datagram, whose first byte is in 0x40-0x4F."""
        route = self.routes.by_key.get((five_tuple, datagram[:2]))
        if route is not None and now < route[0]:
            end = 4 + int.from_bytes(datagram[2:4])
            if end <= len(datagram):
                if not route[3].take(now, end - 4, self._table.limits.bandwidth):
                    return self._drop(Drop.BANDWIDTH)
                self._counters.forwarded += 1
                return [(route[1], route[2] + datagram[2:end])]
        return self._channel_data_by_rule(now, five_tuple, datagram)

    def send_indication(
        self, now: float, five_tuple: FiveTuple, message: STUNMessage
    ) -> list[Datagram]:
        """Forward the DATA of a Send indication."""
        if unknown_attributes(message):
            return self._drop(Drop.UNKNOWN_ATTRIBUTE)
        raw_peer = message.first(AttributeType.XOR_PEER_ADDRESS)
        data = message.first(AttributeType.DATA)
        if raw_peer is None or data is None:
            return self._drop(Drop.MALFORMED)
        try:
            peer = decode_xor_address(raw_peer, message.transaction_id)
        except STUNError:
            return self._drop(Drop.MALFORMED)
        sender = self._table.find(now, five_tuple)
        if sender is None:
            return self._drop(Drop.NO_ALLOCATION)
        # RFC 8656 section 11.2: without a permission the indication is discarded.
        if not sender.permissions.allows(now, peer.ip):
            return self._drop(Drop.NO_PERMISSION)
        return self._deliver(now, sender, peer, data)

    def connect(self, now: float, allocation: Allocation) -> None:
        """Bring the routes to and from ``allocation`` up to date after a change of it."""
        for channel in allocation.channels:
            peer = self._table.peer(now, allocation.ticket_id, channel.peer)
            if peer is not None:
                self._connect_pair(now, allocation, channel, peer)

    def disconnect(self, allocation: Allocation) -> None:
        """Remove all routes to and from ``allocation``, which is about to be removed."""
        for channel in allocation.channels:
            route = self.routes.withdraw(_route_key(allocation, channel))
            if route is None:
                continue
            back_key = (route.receiver, route.number)
            back = self.routes.by_key.get(back_key)
            # A route that has expired may name a channel that leads somewhere else by now.
            if back is not None and back.receiver == allocation.five_tuple:
                self.routes.withdraw(back_key)

    def purge(self, now: float, allocation: Allocation) -> None:
        """Forget the expired parts of ``allocation``; a route never outlasts its channel."""
        allocation.permissions.purge(now)
        for channel in allocation.channels.purge(now):
            self.routes.withdraw(_route_key(allocation, channel))

    def _connect_pair(
        self, now: float, allocation: Allocation, channel: Channel, peer: Allocation
    ) -> None:
        back = peer.channels.towards(now, allocation.relayed)
        if back is None or channel.expires <= now:
            return
        # A live channel implies the permission for its peer (TURN-33), so these four lifetimes
        # are all that the slow path would check.
        until = min(allocation.expires, channel.expires, peer.expires, back.expires)
        forth_key, back_key = _route_key(allocation, channel), _route_key(peer, back)
        forth = Route(until, peer.five_tuple, back_key[1], allocation.bandwidth)
        back_route = Route(until, allocation.five_tuple, forth_key[1], peer.bandwidth)
        self.routes.publish(forth_key, forth)
        self.routes.publish(back_key, back_route)

    def _channel_data_by_rule(
        self, now: float, five_tuple: FiveTuple, datagram: bytes
    ) -> list[Datagram]:
        try:
            number, data = decode_channel_data(datagram)
        except STUNError:
            return self._drop(Drop.MALFORMED)
        sender = self._table.find(now, five_tuple)
        if sender is None:
            return self._drop(Drop.NO_ALLOCATION)
        # RFC 8656 section 12.6: on a channel that is not bound it is discarded.
        channel = sender.channels.bound_to(now, number)
        if channel is None:
            return self._drop(Drop.NO_CHANNEL)
        return self._deliver(now, sender, channel.peer, data)

    def _deliver(
        self, now: float, sender: Allocation, peer: TransportAddress, data: bytes
    ) -> list[Datagram]:
        receiver = self._table.peer(now, sender.ticket_id, peer)
        if receiver is None:
            return self._drop(Drop.FOREIGN_PEER)
        # RFC 8656 section 11.3: what arrives at a relayed address without a permission for its
        # source is silently discarded.
        if not receiver.permissions.allows(now, sender.relayed.ip):
            return self._drop(Drop.PEER_NOT_READY)
        if not sender.bandwidth.take(now, len(data), self._table.limits.bandwidth):
            return self._drop(Drop.BANDWIDTH)
        self._counters.forwarded += 1
        channel = receiver.channels.towards(now, sender.relayed)
        if channel is not None:
            return [(receiver.five_tuple, encode_channel_data(channel.number, data))]
        return [(receiver.five_tuple, self._data_indication(sender.relayed, data))]

    def _data_indication(self, source: TransportAddress, data: bytes) -> bytes:
        transaction_id = self._generate(TRANSACTION_ID_LENGTH)
        peer = encode_xor_address(source, transaction_id)
        return encode_message(
            Method.DATA,
            MessageClass.INDICATION,
            transaction_id,
            [(AttributeType.XOR_PEER_ADDRESS, peer), (AttributeType.DATA, data)],
        )

    def _drop(self, reason: Drop) -> list[Datagram]:
        self._counters.drops[reason] += 1
        return []


def _route_key(allocation: Allocation, channel: Channel) -> RouteKey:
    return allocation.five_tuple, channel.number.to_bytes(2)
