"""What is kept of whom (spec/identity.md, "Who is pinned"): peers, and unproven senders apart.

A peer is an address whose identity a relay of the user's vouched for; it is pinned. Who only claims
an address is a request, kept under address and identity key, and takes nobody's place. Both are
bounded. It decides what to write and writes nothing.
"""

from collections.abc import Set as AbstractSet
from typing import Final

from e2ecall.client.callrules import CallRule, CallRules
from e2ecall.client.contacts import Contacts
from e2ecall.client.reach import Reach
from e2ecall.client.stored import Stored
from e2ecall.errors import RemoteProtocolError
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.chains import MAX_SKIPPED_KEYS
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.exchange_guard import ExchangeGuard
from e2ecall.protocol.peer import PeerState, with_skipped_keys, without_expired_keys
from e2ecall.protocol.peerstore import peer_from_bytes, peer_to_bytes
from relay.wire.names import Address
from relay.wire.records import DeviceList, SignedDeviceList

MAX_REQUESTS: Final = 64
"""Unproven senders: they cost an attacker nothing, and the longest silent one goes first."""

REQUEST_LIFETIME: Final = 30 * 86_400
"""Seconds after an unproven sender's last message."""

MAX_STRANGERS: Final = 500
"""Proven senders whom the user never wrote to, called, invited, verified or decided about."""

STRANGER_LIFETIME: Final = 180 * 86_400
"""Seconds after such a sender's last message."""

MAX_SKIPPED_BY_OTHERS: Final = 100
"""RATCHET-14: skipped keys of an unproven sender, or of a proven stranger."""


class Peers:
    """The peers and requests in a store."""

    def __init__(self, store: Store, contacts: Contacts, reach: Reach) -> None:
        self._contacts = contacts
        self._reach = reach
        self._rules = CallRules(store)
        self._pinned = Stored(store, RecordKind.PEER, peer_from_bytes)
        self._requests = Stored(store, RecordKind.REQUEST, peer_from_bytes)
        self._guards = Stored(store, RecordKind.GUARD, ExchangeGuard.from_bytes)
        # Read once, so that a store of another format is refused when it is opened.
        self._pinned.all()
        self._requests.all()

    def get(self, address: Address) -> PeerState | None:
        """Return the peer whose identity is pinned for this address."""
        return self._pinned.get(str(address).encode())

    def request(self, address: Address, identity_key: bytes) -> PeerState | None:
        """Return the unproven sender who claims this address with this identity key."""
        return self._requests.get(_request_key(address, identity_key))

    def request_of(self, address: Address, shown: SignedDeviceList) -> PeerState | None:
        """Return the unproven sender to whom a device list belongs, itself not verified here."""
        try:
            body = decode_remote(shown.body, DeviceList, limit=len(shown.body))
        except RemoteProtocolError:
            return None
        return self.request(address, body.identity_key)

    def pinned(self) -> list[PeerState]:
        """Return everybody whose name a relay of the user's vouched for."""
        return list(self._pinned.all().values())

    def with_session(self, session_id: bytes) -> PeerState | None:
        """Return whoever has this session with us."""
        for peer in (*self._pinned.all().values(), *self._requests.all().values()):
            if peer.session(session_id) is not None:
                return peer
        return None

    def changes(self, peer: PeerState) -> list[Change]:
        """Return what stores ``peer``, which may push out others.

        A proven peer ends all requests under its address: its own, and those of impostors.
        """
        is_known = peer.proven and not self._contacts.get(peer.address).is_stranger
        room = MAX_SKIPPED_KEYS if is_known else MAX_SKIPPED_BY_OTHERS
        peer = with_skipped_keys(peer, room)
        if not peer.proven:
            key = _request_key(peer.address, peer.identity_key)
            others = {k: other for k, other in self._requests.all().items() if k != key}
            return [
                Change(RecordKind.REQUEST, key, peer_to_bytes(peer)),
                *(
                    Change(RecordKind.REQUEST, _request_key(old.address, old.identity_key), None)
                    for old in _surplus(list(others.values()), MAX_REQUESTS - 1)
                ),
            ]
        changes = [Change(RecordKind.PEER, str(peer.address).encode(), peer_to_bytes(peer))]
        for key, request in self._requests.all().items():
            if request.address == peer.address:
                changes.append(Change(RecordKind.REQUEST, key, None))
        if self.get(peer.address) is None:
            for old in _surplus(self._strangers(), MAX_STRANGERS - 1):
                changes.extend(_forgotten(old))
        return changes

    def expired(self, now: float) -> list[Change]:
        """Return what drops everything whose time is over."""
        changes = []
        for key, request in self._requests.all().items():
            if now >= request.heard + REQUEST_LIFETIME:
                changes.append(Change(RecordKind.REQUEST, key, None))
            elif (kept := without_expired_keys(request, now=now)) != request:
                changes.append(Change(RecordKind.REQUEST, key, peer_to_bytes(kept)))
        gone = [old for old in self._strangers() if now >= old.heard + STRANGER_LIFETIME]
        for old in gone:
            changes.extend(_forgotten(old))
        over = {old.address for old in gone}
        for key, peer in self._pinned.all().items():
            kept = without_expired_keys(peer, now=now)
            if peer.address not in over and kept != peer:
                changes.append(Change(RecordKind.PEER, key, peer_to_bytes(kept)))
        return changes + self._idle_guards(over, now)

    def _idle_guards(self, over: AbstractSet[Address], now: float) -> list[Change]:
        """CALL-08: drop the counts of forgotten people, and not before nothing counts any more."""
        changes = []
        for key, guard in self._guards.all().items():
            address = Address.parse(key.decode())
            known = self.get(address) is not None or self._contacts.find(address) is not None
            if (not known or address in over) and not guard.count(now):
                changes.append(Change(RecordKind.GUARD, key, None))
        return changes

    def _strangers(self) -> list[PeerState]:
        return [peer for peer in self._pinned.all().values() if self.is_stranger(peer.address)]

    def is_stranger(self, address: Address) -> bool:
        """Tell whether the user never had to do with this person, nor decided about them.

        IDENTITY-13: whoever was decided about stays, or a flood would take the pin away. Whether
        calls ring, and how much waits, is another question: a rule does not come before the policy
        (REACH-16), and one that refuses makes no contact.
        """
        is_decided = (
            self._rules.of(address) != CallRule()
            or self._reach.get(str(address)).fingerprint is not None
        )
        return not is_decided and self._contacts.get(address).is_stranger


def _surplus(peers: list[PeerState], room: int) -> list[PeerState]:
    """Return those heard of least lately that are more than there is room for."""
    latest = sorted(peers, key=lambda peer: peer.heard, reverse=True)
    return latest[room:]


def _forgotten(peer: PeerState) -> list[Change]:
    key = str(peer.address).encode()
    kinds = (RecordKind.PEER, RecordKind.CONTACT, RecordKind.REACH, RecordKind.GAP)
    return [Change(kind, key, None) for kind in kinds]


def _request_key(address: Address, identity_key: bytes) -> bytes:
    return str(address).encode() + b" " + identity_key
