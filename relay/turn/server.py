"""The TURN server's core: a datagram in, datagrams out (RFC 8489, RFC 8656; spec/turn.md).

No sockets, no clock: `relay.io.datagram` owns both. Every datagram of anybody may come in; nothing
that it does not accept leaves a trace beyond a counter.
"""

import secrets

from relay.turn.allocation import AllocationTable, GenerateBytes
from relay.turn.attributes import (
    AttributeType,
    encode_error_code,
    encode_unknown_attributes,
    encode_xor_address,
    unknown_attributes,
)
from relay.turn.auth import (
    PASSWORD_ALGORITHMS,
    Credential,
    Identify,
    LongTermCredentials,
    Nonces,
    Password,
)
from relay.turn.counters import Counters, Drop
from relay.turn.errors import ErrorCode, RefusedError, STUNError
from relay.turn.five_tuple import FiveTuple, client_address
from relay.turn.forwarding import Datagram, Forwarding
from relay.turn.limits import Limits
from relay.turn.methods import Methods, Request
from relay.turn.routes import RouteObserver
from relay.turn.stun import (
    Attribute,
    MessageClass,
    Method,
    STUNMessage,
    encode_message,
    parse_message,
)

DEFAULT_REALM = "e2ecall"
"""Short, as every 401 carries it."""

_AUTHENTICATED = frozenset(
    {Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND}
)
_CHALLENGES = frozenset({ErrorCode.UNAUTHENTICATED, ErrorCode.STALE_NONCE})


class TURNServer:
    """A TURN server over UDP whose relayed addresses exist only inside it.

    ``now`` is Unix seconds throughout and must not go backwards. ``generate`` is the source of
    randomness, for relayed addresses and the transaction ids of Data indications.
    """

    __slots__ = ("_credentials", "_forwarding", "_methods", "_table", "counters")

    def __init__(
        self,
        *,
        identify: Identify,
        password: Password,
        nonce_key: bytes,
        realm: str = DEFAULT_REALM,
        limits: Limits | None = None,
        generate: GenerateBytes = secrets.token_bytes,
    ) -> None:
        self.counters = Counters()
        self._credentials = LongTermCredentials(
            identify=identify, password=password, nonces=Nonces(nonce_key), realm=realm
        )
        self._table = AllocationTable(limits or Limits(), generate)
        self._forwarding = Forwarding(self._table, self.counters, generate)
        self._methods = Methods(self._table, self._forwarding, self.counters)

    def receive(self, now: float, five_tuple: FiveTuple, datagram: bytes) -> list[Datagram]:
        """Return what a datagram from ``five_tuple`` makes the server send: 0 or 1 datagrams."""
        # RFC 8656 section 12: the first byte tells ChannelData (0x40-0x4F) from STUN (0x00-0x3F).
        if datagram and 0x40 <= datagram[0] <= 0x4F:
            return self._forwarding.channel_data(now, five_tuple, datagram)
        return self._stun(now, five_tuple, datagram)

    def observe(self, observer: RouteObserver) -> None:
        """Tell ``observer`` of the routes by which ChannelData may be forwarded without asking.

        Called before the first datagram; the observer replaces an earlier one.
        """
        self._forwarding.routes.observe(observer)

    def limit(self, limits: Limits) -> None:
        """Put other bounds into effect; what exceeds them already may stay."""
        self._table.limits = limits

    def lifetime(self, now: float, five_tuple: FiveTuple) -> float | None:
        """Return for how many seconds the client's allocation lives yet, None without one."""
        allocation = self._table.find(now, five_tuple)
        return None if allocation is None else allocation.expires - now

    def disconnected(self, five_tuple: FiveTuple) -> None:
        """Remove the allocation of a client whose connection, over TCP or TLS, has ended."""
        self._methods.disconnected(five_tuple)

    def expire(self, now: float) -> None:
        """Remove what has expired; until then it is unusable but occupies memory."""
        self._methods.expire(now)

    def _stun(self, now: float, five_tuple: FiveTuple, datagram: bytes) -> list[Datagram]:
        if not datagram or datagram[0] > 0x3F:
            return self._drop(Drop.NOT_STUN)
        try:
            message = parse_message(datagram)
        except STUNError:
            return self._drop(Drop.MALFORMED)
        kind = (message.message_class, message.method)
        if kind == (MessageClass.INDICATION, Method.SEND):
            return self._forwarding.send_indication(now, five_tuple, message)
        if kind == (MessageClass.REQUEST, Method.BINDING):
            return [(five_tuple, self._binding(five_tuple, message))]
        if message.message_class is MessageClass.REQUEST and message.method in _AUTHENTICATED:
            return [(five_tuple, self._turn_request(now, five_tuple, message))]
        return self._drop(Drop.UNEXPECTED)

    def _binding(self, five_tuple: FiveTuple, message: STUNMessage) -> bytes:
        unknown = unknown_attributes(message)
        if unknown:
            refusal = RefusedError(ErrorCode.UNKNOWN_ATTRIBUTE, unknown=unknown)
            return self._error(message, refusal)
        mapped = encode_xor_address(client_address(five_tuple), message.transaction_id)
        return _success(message, [(AttributeType.XOR_MAPPED_ADDRESS, mapped)])

    def _turn_request(self, now: float, five_tuple: FiveTuple, message: STUNMessage) -> bytes:
        client = client_address(five_tuple)
        credential: Credential | None = None
        try:
            # RFC 8489 section 6.3: authentication comes before unknown attributes.
            credential = self._credentials.authenticate(now, message, client)
            unknown = unknown_attributes(message)
            if unknown:
                raise RefusedError(ErrorCode.UNKNOWN_ATTRIBUTE, unknown=unknown)
            return self._answer(Request(now, five_tuple, message, credential))
        except STUNError:
            return self._error(message, RefusedError(ErrorCode.BAD_REQUEST), credential)
        except RefusedError as refusal:
            challenge: list[Attribute] = []
            if refusal.code in _CHALLENGES:
                nonce = self._credentials.nonces.issue(now, client)
                challenge.append((AttributeType.REALM, self._credentials.realm.encode()))
                challenge.append((AttributeType.NONCE, nonce))
                # RFC 8489 section 9.2.4: both responses MUST include PASSWORD-ALGORITHMS.
                challenge.append((AttributeType.PASSWORD_ALGORITHMS, PASSWORD_ALGORITHMS))
            return self._error(message, refusal, credential, challenge)

    def _answer(self, request: Request) -> bytes:
        message = request.message
        match message.method:
            case Method.ALLOCATE:
                return self._allocate(request)
            case Method.REFRESH:
                attributes = self._methods.refresh(request)
            case Method.CREATE_PERMISSION:
                attributes = self._methods.create_permission(request)
            case _:
                attributes = self._methods.channel_bind(request)
        return _success(message, attributes, request.credential)

    def _allocate(self, request: Request) -> bytes:
        message = request.message
        existing = self._table.find(request.now, request.five_tuple)
        if existing is not None:
            # RFC 8656 section 7.2: a retransmission gets the same response again, any other
            # Allocate on the five-tuple a 437.
            same = (existing.transaction_id, existing.username)
            if same == (message.transaction_id, request.credential.username):
                return existing.response
            raise RefusedError(ErrorCode.ALLOCATION_MISMATCH)
        allocation, attributes = self._methods.allocate(request)
        allocation.transaction_id = message.transaction_id
        allocation.response = _success(message, attributes, request.credential)
        return allocation.response

    def _error(
        self,
        message: STUNMessage,
        refusal: RefusedError,
        credential: Credential | None = None,
        attributes: list[Attribute] | None = None,
    ) -> bytes:
        self._count(refusal.code)
        # TURN-22: to whom is not authenticated, not a byte more than needed.
        reason = refusal.code.reason if credential is not None else ""
        error = [(AttributeType.ERROR_CODE, encode_error_code(refusal.code, reason))]
        if refusal.unknown:
            listed = encode_unknown_attributes(refusal.unknown)
            error.append((AttributeType.UNKNOWN_ATTRIBUTES, listed))
        return _response(message, MessageClass.ERROR, [*error, *(attributes or [])], credential)

    def _count(self, code: ErrorCode) -> None:
        if code is ErrorCode.UNAUTHENTICATED:
            self.counters.unauthenticated += 1
        elif code is ErrorCode.STALE_NONCE:
            self.counters.stale_nonces += 1
        else:
            self.counters.refused += 1

    def _drop(self, reason: Drop) -> list[Datagram]:
        self.counters.drops[reason] += 1
        return []


def _success(
    message: STUNMessage, attributes: list[Attribute], credential: Credential | None = None
) -> bytes:
    return _response(message, MessageClass.SUCCESS, attributes, credential)


def _response(
    message: STUNMessage,
    message_class: MessageClass,
    attributes: list[Attribute],
    credential: Credential | None,
) -> bytes:
    return encode_message(
        message.method,
        message_class,
        message.transaction_id,
        attributes,
        key=credential.key if credential is not None else None,
        sha256=credential is not None and credential.sha256,
        fingerprint=message.has_fingerprint,
    )
