"""The authenticated TURN requests (RFC 8656 sections 7 to 12; spec/turn.md TURN-10 ff).

Each handler changes the table or raises, never both, and returns the attributes of its success
response. Authentication, framing and data are elsewhere.
"""

from dataclasses import dataclass

from relay.turn.allocation import Allocation, AllocationTable
from relay.turn.attributes import (
    IPV4_FAMILY,
    IPV6_FAMILY,
    UDP_PROTOCOL,
    AttributeType,
    TransportAddress,
    decode_channel_number,
    decode_first_byte,
    decode_lifetime,
    decode_xor_address,
    encode_address_error_code,
    encode_lifetime,
    encode_xor_address,
)
from relay.turn.auth import Credential
from relay.turn.counters import Counters
from relay.turn.errors import ErrorCode, RefusedError
from relay.turn.five_tuple import FiveTuple, client_address
from relay.turn.forwarding import Forwarding
from relay.turn.limits import CHANNEL_LIFETIME, DEFAULT_LIFETIME, PERMISSION_LIFETIME
from relay.turn.stun import Attribute, STUNMessage

_RESERVE_NEXT_PORT = 0x80


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose sender is known."""

    now: float
    five_tuple: FiveTuple
    message: STUNMessage
    credential: Credential


class Methods:
    """Handlers of the requests that create and change allocations."""

    __slots__ = ("_counters", "_forwarding", "_table")

    def __init__(self, table: AllocationTable, forwarding: Forwarding, counters: Counters) -> None:
        self._table = table
        self._forwarding = forwarding
        self._counters = counters

    def allocate(self, request: Request) -> tuple[Allocation, list[Attribute]]:
        """Create the client's allocation (RFC 8656 section 7.2); it has none that is live."""
        even_port = _check_transport(request.message)
        refused_family = _check_families(request.message)
        lifetime = self._grant(request, _asked_lifetime(request.message))
        stale = self._table.find_expired(request.now, request.five_tuple)
        if stale is not None:
            self.remove(stale)
        identity = request.credential.identity
        allocation = self._table.create(
            request.now,
            request.five_tuple,
            username=request.credential.username,
            ticket_id=identity.ticket_id,
            side=identity.side,
            lifetime=lifetime,
            even_port=even_port,
        )
        self._counters.allocations_created += 1
        self._counters.allocations = len(self._table)
        transaction_id = request.message.transaction_id
        relayed = encode_xor_address(allocation.relayed, transaction_id)
        mapped = encode_xor_address(client_address(request.five_tuple), transaction_id)
        return allocation, [
            (AttributeType.XOR_RELAYED_ADDRESS, relayed),
            (AttributeType.LIFETIME, encode_lifetime(lifetime)),
            (AttributeType.XOR_MAPPED_ADDRESS, mapped),
            *refused_family,
        ]

    def refresh(self, request: Request) -> list[Attribute]:
        """Extend or, with lifetime 0, delete the client's allocation (RFC 8656 section 8.2)."""
        allocation = self._own_allocation(request)
        family = request.message.first(AttributeType.REQUESTED_ADDRESS_FAMILY)
        if family is not None and decode_first_byte(family, 4) != IPV4_FAMILY:
            raise RefusedError(ErrorCode.PEER_ADDRESS_FAMILY_MISMATCH)
        lifetime = _asked_lifetime(request.message)
        if lifetime:
            lifetime = self._grant(request, lifetime)
            allocation.expires = request.now + lifetime
            self._changed(request, allocation)
        else:
            self.remove(allocation)
        return [(AttributeType.LIFETIME, encode_lifetime(lifetime))]

    def create_permission(self, request: Request) -> list[Attribute]:
        """Install or refresh permissions, all of them or none (RFC 8656 section 10.2)."""
        allocation = self._own_allocation(request)
        raw_peers = request.message.every(AttributeType.XOR_PEER_ADDRESS)
        if not raw_peers:
            raise RefusedError(ErrorCode.BAD_REQUEST)
        peers = {decode_xor_address(raw, request.message.transaction_id) for raw in raw_peers}
        # TURN-31: only who is in the closed world of this ticket exists. The port is ignored, as
        # RFC 8656 section 10.2 wants.
        ips = {peer.ip for peer in peers}
        if not all(self._table.has_host(request.now, allocation.ticket_id, ip) for ip in ips):
            raise RefusedError(ErrorCode.FORBIDDEN)
        allocation.permissions.install(request.now, ips, PERMISSION_LIFETIME)
        self._changed(request, allocation)
        return []

    def channel_bind(self, request: Request) -> list[Attribute]:
        """Bind a channel number to a peer (RFC 8656 section 12.2)."""
        allocation = self._own_allocation(request)
        number, peer = _channel_request(request.message)
        if self._table.peer(request.now, allocation.ticket_id, peer) is None:
            raise RefusedError(ErrorCode.FORBIDDEN)
        self._forwarding.purge(request.now, allocation)
        allocation.channels.check(number, peer)
        # TURN-33: the permission lasts as long as the channel.
        allocation.permissions.install(request.now, (peer.ip,), CHANNEL_LIFETIME)
        allocation.channels.bind(request.now, number, peer, CHANNEL_LIFETIME)
        self._changed(request, allocation)
        return []

    def expire(self, now: float) -> None:
        """Remove what has expired of all allocations."""
        for allocation in self._table.take_due(now):
            if allocation.expires <= now:
                self.remove(allocation)
            else:
                self._forwarding.purge(now, allocation)
                self._table.reschedule(allocation)

    def disconnected(self, five_tuple: FiveTuple) -> None:
        """Remove the client's allocation, live or expired, if there is one."""
        allocation = self._table.get(five_tuple)
        if allocation is not None:
            self.remove(allocation)

    def remove(self, allocation: Allocation) -> None:
        """Forget an allocation with all that leads to it."""
        self._forwarding.disconnect(allocation)
        self._table.remove(allocation)
        self._counters.allocations = len(self._table)

    def _own_allocation(self, request: Request) -> Allocation:
        allocation = self._table.find(request.now, request.five_tuple)
        if allocation is None:
            raise RefusedError(ErrorCode.ALLOCATION_MISMATCH)
        # RFC 8656 section 5: all requests must use the credential of the Allocate, else 441.
        if allocation.username != request.credential.username:
            raise RefusedError(ErrorCode.WRONG_CREDENTIALS)
        return allocation

    def _grant(self, request: Request, asked: int) -> int:
        # RFC 8656 section 7.2: at most the server's maximum, and not below the default.
        granted = min(max(asked, DEFAULT_LIFETIME), self._table.limits.max_lifetime)
        # TURN-42: media must not outlive the ticket.
        left = int(request.credential.identity.expires - request.now)
        return max(1, min(granted, left))

    def _changed(self, request: Request, allocation: Allocation) -> None:
        self._table.reschedule(allocation)
        self._forwarding.connect(request.now, allocation)


def _asked_lifetime(message: STUNMessage) -> int:
    raw = message.first(AttributeType.LIFETIME)
    return DEFAULT_LIFETIME if raw is None else decode_lifetime(raw)


def _check_transport(message: STUNMessage) -> bool:
    """Check REQUESTED-TRANSPORT and the port attributes; return whether the port is to be even."""
    transport = message.first(AttributeType.REQUESTED_TRANSPORT)
    if transport is None:
        raise RefusedError(ErrorCode.BAD_REQUEST)
    if decode_first_byte(transport, 4) != UDP_PROTOCOL:
        raise RefusedError(ErrorCode.UNSUPPORTED_TRANSPORT_PROTOCOL)
    even_port = message.first(AttributeType.EVEN_PORT)
    token = message.first(AttributeType.RESERVATION_TOKEN)
    if token is not None:
        # RFC 8656 section 7.2: with EVEN-PORT or an address family a 400, an invalid token a 508;
        # as none is ever given out, every token is invalid.
        excluded = (even_port, message.first(AttributeType.REQUESTED_ADDRESS_FAMILY))
        refused = any(value is not None for value in excluded)
        raise RefusedError(ErrorCode.BAD_REQUEST if refused else ErrorCode.INSUFFICIENT_CAPACITY)
    if even_port is None:
        return False
    if decode_first_byte(even_port, 1) & _RESERVE_NEXT_PORT:
        # With ADDITIONAL-ADDRESS-FAMILY a 400, otherwise there is no next port to reserve.
        additional = message.first(AttributeType.ADDITIONAL_ADDRESS_FAMILY)
        raise RefusedError(
            ErrorCode.INSUFFICIENT_CAPACITY if additional is None else ErrorCode.BAD_REQUEST
        )
    return True


def _check_families(message: STUNMessage) -> list[Attribute]:
    """Check the address families; return what the success response says of the additional one."""
    requested = message.first(AttributeType.REQUESTED_ADDRESS_FAMILY)
    additional = message.first(AttributeType.ADDITIONAL_ADDRESS_FAMILY)
    if additional is not None:
        # RFC 8656 section 7.2: with REQUESTED-ADDRESS-FAMILY, or another family than IPv6, a 400.
        if requested is not None or decode_first_byte(additional, 4) != IPV6_FAMILY:
            raise RefusedError(ErrorCode.BAD_REQUEST)
        error = encode_address_error_code(IPV6_FAMILY, ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED)
        return [(AttributeType.ADDRESS_ERROR_CODE, error)]
    if requested is not None and decode_first_byte(requested, 4) != IPV4_FAMILY:
        raise RefusedError(ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED)
    return []


def _channel_request(message: STUNMessage) -> tuple[int, TransportAddress]:
    number = message.first(AttributeType.CHANNEL_NUMBER)
    peer = message.first(AttributeType.XOR_PEER_ADDRESS)
    if number is None or peer is None:
        raise RefusedError(ErrorCode.BAD_REQUEST)
    return decode_channel_number(number), decode_xor_address(peer, message.transaction_id)
