"""Who is who (spec/identity.md, "Who is pinned"): the identity that each address has for this user.

What is kept of whom is `e2ecall.client.peers`; what the user decides when an identity changes is
`e2ecall.client.people`. It begins no session.
"""

import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from e2ecall.client.account import Account, check_relay_name
from e2ecall.client.contacts import Contacts
from e2ecall.client.peers import Peers
from e2ecall.client.reach import Reach
from e2ecall.errors import IdentityChangedError, LocalProtocolError, RelayError
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol import session as protocol
from e2ecall.protocol.handshake import is_proven
from e2ecall.protocol.identity import fingerprint
from relay.wire.messages import Hello
from relay.wire.names import Address

_log = logging.getLogger(__name__)


class Identities:
    """The identities of peers and relays, as stored."""

    def __init__(
        self, store: Store, account: Account, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._account = account
        self._clock = clock
        self._lock = account.lock
        self.contacts = Contacts(store)
        self.reach = Reach(store, self.contacts)
        self._peers = Peers(store, self.contacts, self.reach)

    def identity_key(self, address: Address) -> bytes | None:
        """Return the pinned identity key of a peer, or None before first contact."""
        peer = self._peers.get(address)
        if peer is None:
            return self.contacts.get(address).pinned_identity
        return peer.identity_key

    def is_stranger(self, address: Address) -> bool:
        """Tell whether the user never had to do with this person, nor decided about them."""
        return self._peers.is_stranger(address)

    def check_identity(self, address: Address) -> None:
        """IDENTITY-14: stop what the user begins while a change of identity is undecided.

        Raises:
            IdentityChangedError: the user has to decide first.
            LocalProtocolError: the user blocked this person.
        """
        contact = self.contacts.get(address)
        if contact.blocked:
            raise LocalProtocolError(f"you blocked {address}", hint="unblock them first")
        if contact.other_identity is not None:
            raise changed(address)

    async def confirm(self, address: Address, identity_key: bytes) -> None:
        """Store that the user compared codes with whoever holds this identity key.

        Raises:
            IdentityChangedError: it is not the known one any more.
        """
        async with self._lock:
            record = self.contacts.get(address)
            if identity_key != self.identity_key(address):
                raise changed(address)  # accepted or forgotten while the call went on
            confirmed = replace(
                record,
                verified_identity=identity_key,
                identity_changed=False,
                other_identity=None,
            )
            await self._store.write([confirmed.change()])

    async def trust_relay(self, endpoint: RelayEndpoint, hello: Hello) -> None:
        """Pin the key of a relay at first sight, since the user chose it; refuse another later.

        Raises:
            RelayError: the relay shows another key or another name than before.
        """
        check_relay_name(hello, endpoint.name)
        key = endpoint.name.encode()
        async with self._lock:
            known = self._store.get(RecordKind.RELAY, key)
            if known is None:
                await self._store.write([Change(RecordKind.RELAY, key, hello.relay_key)])
        if known not in (None, hello.relay_key):
            raise RelayError(
                f"{endpoint.name} shows another key than before",
                hint="ask its operator whether it was set up anew",
            )

    def _check_pinned(self, address: Address, identity_key: bytes | None) -> None:
        """IDENTITY-15: before there is a session, hold on to what was accepted or imported."""
        pinned = self.contacts.get(address).pinned_identity
        if pinned not in (None, identity_key):
            raise changed(address)
        # REACH-09 MUST: whoever gave the link is who it says, and nobody else.
        invited = self.reach.get(str(address)).fingerprint
        shown = None if identity_key is None else fingerprint(address, identity_key)
        if invited is not None and shown != invited:
            raise changed(address)

    async def _report_change(self, unsealed: protocol.Unsealed) -> None:
        """IDENTITY-07: mark the contact if its relay vouches for the other identity."""
        claim, identity_key = unsealed.claim, unsealed.claimed_identity
        initial = unsealed.frame.initial
        if claim is None or identity_key is None or initial is None:
            return
        if is_proven(initial, claim.address, identity_key, self._relay_keys(), self._clock()):
            await self._mark_change(claim.address, identity_key)
        else:
            _log.info("somebody claims a contact's name, and no relay vouches for it")

    async def _mark_change(self, address: Address, identity_key: bytes) -> None:
        _log.warning("a relay vouches for another identity of a contact than the known one")
        contact = self.contacts.get(address)
        marked = replace(contact, identity_changed=True, other_identity=identity_key)
        if marked != contact:
            await self._store.write([marked.change()])

    def _relay_keys(self) -> dict[str, bytes]:
        records = self._store.all(RecordKind.RELAY)
        return {name.decode(): relay_key for name, relay_key in records.items()}


def changed(address: Address) -> IdentityChangedError:
    """Return what is raised where somebody shows another identity than the known one."""
    return IdentityChangedError(
        f"{address} shows another identity key than before",
        hint="compare fingerprints with this person over another way before going on",
    )
