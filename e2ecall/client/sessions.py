"""Messages to and from peers (spec/ratchet.md, spec/sealing.md): seal, open, and store before use.

The account's lock serialises everything that touches a session, so two tasks never fork a ratchet;
nobody waits for a relay while holding it. What is kept of whom is `e2ecall.client.peers`; where
envelopes go and what payloads mean is decided elsewhere.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from dataclasses import replace as replace_peer
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from e2ecall.client.account import Account, check_relay_name
from e2ecall.client.contacts import ContactRecord, Contacts, generate_token
from e2ecall.client.gaps import Gaps
from e2ecall.client.inbox import Standing, arrival
from e2ecall.client.peers import Peers
from e2ecall.client.reach import Reach, Told
from e2ecall.crypto.random import generate_bytes
from e2ecall.errors import (
    IdentityChangedError,
    LocalProtocolError,
    Reason,
    RelayError,
    RemoteProtocolError,
)
from e2ecall.io.endpoint import RelayEndpoint
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol import session as protocol
from e2ecall.protocol.bundle import verify_bundle
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.handshake import is_proven
from e2ecall.protocol.identity import fingerprint
from e2ecall.protocol.invitation import InvitationLink
from e2ecall.protocol.messages import (
    Payload,
    PayloadKind,
    decode_payload,
    encode_payload,
)
from e2ecall.protocol.peer import (
    RENEWAL_INTERVAL,
    PeerState,
    is_unanswered,
    with_sealing_key,
)
from relay.wire.limits import MESSAGE_ID_BYTES
from relay.wire.messages import Hello
from relay.wire.names import Address
from relay.wire.records import DeviceList, PreKeyBundle

Fetch = Callable[[Address, bytes | None], Awaitable[PreKeyBundle]]

Body = Callable[[Party, Party], bytes]
"""Makes what is sent of this end and the peer, as the session that is to carry it knows them."""

_USED_STEP: Final = 86_400
"""Seconds by which the time of last use of a contact may be behind: it orders, it dates nothing."""

_LOOK_INTERVAL: Final = 86_400
"""Seconds without a word from a peer after which its relay is asked again, and between that."""

_OUT_OF_STEP: Final = frozenset(
    {
        Reason.NOT_AUTHENTIC,
        Reason.CHAIN_MISMATCH,
        Reason.REPLAYED,
        Reason.TOO_MANY_SKIPPED,
    }
)
"""What a message looks like when one of the two went back to an older state: with keys that are
gone, with another chain in the place of one, or with a number that was used. Or when more were
lost than can be skipped."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope for one device, and the token that its relay may ask for.

    ``tells`` is the token by which the device can reach us, where the envelope carries one.
    """

    address: Address
    device_id: int
    envelope: bytes = field(repr=False)
    token: bytes | None = field(repr=False)
    tells: bytes | None = field(default=None, repr=False)
    message_id: bytes = field(default_factory=lambda: generate_bytes(MESSAGE_ID_BYTES), repr=False)
    """The same however often it is sent: the relay stores it once (WIRE-30)."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload from a peer, decrypted and stored.

    ``local`` and ``remote`` are the two ends as the session that carried it knows them.
    ``proven``: a relay that the user chose vouched for the name.
    """

    peer: Address
    local: Party
    remote: Party
    payload: Payload = field(repr=False)
    proven: bool
    archived: bool


class Sessions:
    """The sessions with all peers, as stored."""

    def __init__(
        self, store: Store, account: Account, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._account = account
        self._clock = clock
        self._lock = account.lock
        self._fetching: dict[Address, anyio.Lock] = {}
        self._undecryptable: set[Address] = set()
        self.contacts = Contacts(store)
        self.reach = Reach(store, self.contacts)
        self.publish_token: Callable[[], Awaitable[None]] = checkpoint
        """Has the own relay learn of a first token, before its envelope leaves (REACH-04)."""
        self._peers = Peers(store, self.contacts)
        self.gaps = Gaps(store, self._peers, account.lock)
        self.tokens_changed = anyio.Event()
        """Set when a new delivery token was given out, which the own relay has to learn."""

    def identity_key(self, address: Address) -> bytes | None:
        """Return the pinned identity key of a peer, or None before first contact."""
        peer = self._peers.get(address)
        if peer is None:
            return self.contacts.get(address).pinned_identity
        return peer.identity_key

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
            raise _changed(address)

    def tell_tokens_changed(self) -> None:
        """Have the own relay learn which delivery tokens are good now."""
        self.tokens_changed.set()
        self.tokens_changed = anyio.Event()

    async def confirm(self, address: Address, identity_key: bytes) -> None:
        """Store that the user compared codes with whoever holds this identity key.

        Raises:
            IdentityChangedError: it is not the known one any more.
        """
        async with self._lock:
            record = self.contacts.get(address)
            if identity_key != self.identity_key(address):
                raise _changed(address)  # accepted or forgotten while the call went on
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

    async def ensure(self, address: Address, *, fetch: Fetch) -> None:
        """Begin a session with ``address`` unless there is one that can be used.

        Raises:
            IdentityChangedError: the relay serves another identity than the pinned one.
            RemoteProtocolError: the relay serves a bundle that is not valid.
        """
        if not self._needs_bundle(address):
            return
        # One fetch at a time for each peer: every bundle costs it one-time prekeys.
        async with self._fetching.setdefault(address, anyio.Lock()):
            if not self._needs_bundle(address):
                return
            bundle = await fetch(address, self.contacts.get(address).token)
            async with self._lock:
                if self._needs_bundle(address):  # else its own message came in meanwhile
                    await self._use_bundle(address, bundle)

    async def seal(
        self,
        address: Address,
        kind: PayloadKind,
        body: bytes | Body,
        *,
        fetch: Fetch,
        give_token: bool,
    ) -> Sealed:
        """Encrypt for ``address`` and store the session; beginning one where there is none.

        A ``body`` that depends on the session is made when it is known which one carries it. With
        ``give_token`` the peer gets a token to reach us by, if it has none yet. Raises as `ensure`,
        and what making the body raises.
        """
        await self.ensure(address, fetch=fetch)
        async with self._lock:
            known = self.contacts.get(address).given_token
            sealed = await self._seal(address, kind, body, give_token=give_token)
            is_given = known is None and self.contacts.get(address).given_token is not None
        if is_given:
            await self.publish_token()
        return sealed

    async def open(self, envelope: bytes) -> Opened:
        """Decrypt an envelope and store what follows from it; texts are stored too.

        Raises:
            RemoteProtocolError: refused; nothing has changed.
            IdentityChangedError: a known name with another identity; no session has changed.
        """
        async with self._lock:
            received, payload = await self._receive(envelope)
            if payload.kind is PayloadKind.CALL and not received.proven:
                # P12: such a call would not ring, so it leaves no trace either.
                raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)
            peer, now = received.peer, self._clock()
            if payload.sealing_key is not None:
                peer = with_sealing_key(peer, payload.sealing_key, now=now)
            contact = self.contacts.get(peer.address)
            if contact.blocked:
                raise RemoteProtocolError(Reason.BLOCKED)
            changes = self._peers.changes(peer)
            updated = self._updated(contact, payload)
            if payload.kind is PayloadKind.INTRODUCTION:
                if not peer.proven:
                    raise RemoteProtocolError(Reason.UNEXPECTED_MESSAGE)
                updated, used_up = self.reach.taken_up(payload.body, updated, now)
                changes += used_up
            if peer.proven and updated != contact:
                changes.append(updated.change())
            if payload.kind is PayloadKind.TEXT:
                waiting = self._store.all(RecordKind.INBOX)
                standing = Standing.STRANGER if contact.is_stranger else Standing.CONTACT
                changes.append(
                    arrival(
                        waiting,
                        peer.address,
                        payload,
                        proven=received.proven,
                        standing=standing if received.proven else Standing.UNPROVEN,
                    )
                )
            await self._account.save_prekeys(received.prekeys, *changes)
            if payload.kind is PayloadKind.INTRODUCTION:
                self.tell_tokens_changed()
            if peer.proven:
                self._undecryptable.discard(peer.address)
            ours, theirs = self._parties(peer, received.session_id)
            return Opened(peer.address, ours, theirs, payload, received.proven, received.archived)

    async def forget_expired(self) -> None:
        """Drop sessions, skipped keys and strangers whose time is over."""
        async with self._lock:
            changes = self._peers.expired(self._clock())
            if changes:
                await self._store.write(changes)

    # --- reach --------------------------------------------------------------------------------

    async def rotate_tokens(self) -> None:
        """REACH-03: draw new tokens for contacts whose newest is a week old."""

        def heard(address: str) -> float:
            peer = self._peers.get(Address.parse(address))
            return -1 if peer is None else peer.heard

        async with self._lock:
            changes = self.reach.rotated(heard, self._clock())
            if changes:
                await self._store.write(changes)

    async def tokens_published(self) -> None:
        """REACH-04: note that the relay knows the tokens, so that contacts may be told."""
        async with self._lock:
            changes = self.reach.published()
            if changes:
                await self._store.write(changes)

    async def delivered(self, sealed: Sealed) -> None:
        """REACH-04: note that an envelope was stored for its recipient, with the token in it."""
        if sealed.tells is None:
            return
        async with self._lock:
            changes = self.reach.told(self.contacts.get(sealed.address), sealed.tells)
            if changes:
                await self._store.write(changes)

    async def invite(self, lifetime: int) -> InvitationLink:
        """Store a new invitation that lasts for so many seconds, and return its link.

        Raises:
            LocalProtocolError: too many are open.
        """
        local = self._account.local
        async with self._lock:
            token, expires = generate_token(), int(self._clock()) + lifetime
            await self._store.write(self.reach.invited(token, expires, self._clock()))
        seen = fingerprint(local.address, local.identity.public)
        return InvitationLink(local.address, token, expires, seen)

    async def begin_invited(self, link: InvitationLink) -> None:
        """REACH-09: pin the identity of an invitation and take its token.

        Raises:
            IdentityChangedError: the person is known with another identity.
            LocalProtocolError: it has expired.
        """
        if self._clock() >= link.expires:
            raise LocalProtocolError("this invitation has expired", hint="ask for a new one")
        async with self._lock:
            self.check_identity(link.address)
            known = self.identity_key(link.address)
            if known is not None and fingerprint(link.address, known) != link.fingerprint:
                raise _changed(link.address)
            contact, name = self.contacts.get(link.address), str(link.address)
            pinned = replace(self.reach.get(name), fingerprint=link.fingerprint)
            taken = replace(contact, token=link.token)
            await self._store.write([taken.change(), pinned.change(name)])

    # --- receiving ----------------------------------------------------------------------------

    async def _receive(self, envelope: bytes) -> tuple[protocol.Received, Payload]:
        local, prekeys, now = self._account.local, self._account.prekeys, self._clock()
        unsealed = protocol.unseal(local, prekeys, envelope)
        known = self._find(unsealed)
        try:
            if known is not None and not known.proven:
                self._check_pinned(known.address, known.identity_key)
            elif known is None and unsealed.claim is not None:
                self._check_pinned(unsealed.claim.address, unsealed.claimed_identity)
            received = protocol.receive(
                local, prekeys, known, unsealed, relay_keys=self._relay_keys(), now=now
            )
        except IdentityChangedError:
            await self._report_change(unsealed)
            raise
        except RemoteProtocolError as error:
            broken = unsealed.claim is None and error.reason in _OUT_OF_STEP
            if broken and known is not None and known.proven:
                self._undecryptable.add(known.address)
            raise
        return received, decode_payload(received.plaintext)

    def _find(self, unsealed: protocol.Unsealed) -> PeerState | None:
        claim, identity_key = unsealed.claim, unsealed.claimed_identity
        if claim is None or identity_key is None:
            peer = self._peers.with_session(unsealed.session_id)
            if peer is None:
                raise RemoteProtocolError(Reason.UNKNOWN_SESSION)
            return peer
        return self._peers.get(claim.address) or self._peers.request(claim.address, identity_key)

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

    def _check_pinned(self, address: Address, identity_key: bytes | None) -> None:
        """IDENTITY-15: before there is a session, hold on to what was accepted or imported."""
        pinned = self.contacts.get(address).pinned_identity
        if pinned not in (None, identity_key):
            raise _changed(address)
        # REACH-09 MUST: whoever gave the link is who it says, and nobody else.
        invited = self.reach.get(str(address)).fingerprint
        shown = None if identity_key is None else fingerprint(address, identity_key)
        if invited is not None and shown != invited:
            raise _changed(address)

    def _updated(self, contact: ContactRecord, payload: Payload) -> ContactRecord:
        if payload.token is not None:
            contact = replace(contact, token=payload.token)
        now = int(self._clock())
        if contact.token is not None and now >= contact.used + _USED_STEP:
            contact = replace(contact, used=now)
        return contact

    # --- sending ------------------------------------------------------------------------------

    def _needs_bundle(self, address: Address) -> bool:
        peer = self._peers.get(address)
        return (
            peer is None
            or peer.sealing_key.expires <= self._clock()
            or self._needs_session(peer)
            or self._is_silent(peer)
        )

    def _is_silent(self, peer: PeerState) -> bool:
        """SESSION-10: tell whether to look if the peer is on another device by now."""
        checked = self.contacts.get(peer.address).checked
        return self._clock() >= max(peer.heard, checked) + _LOOK_INTERVAL

    def _needs_session(self, peer: PeerState) -> bool:
        """SESSION-02, SESSION-08: tell whether to begin anew, which is not more than hourly."""
        now = self._clock()
        broken = peer.address in self._undecryptable
        return is_unanswered(peer.active, now=now) or (
            broken and now >= peer.active.created + RENEWAL_INTERVAL
        )

    async def _use_bundle(self, address: Address, bundle: PreKeyBundle) -> None:
        """Begin a session, or take over a newer sealing key, from what a relay served."""
        peer, now = self._peers.get(address), self._clock()
        contact = replace(self.contacts.get(address), checked=int(now))
        try:
            if peer is None or self._needs_session(peer) or peer.device_id != bundle.device_id:
                known = peer or self._peers.request_of(address, bundle.device_list)
                peer = protocol.initiate(
                    self._account.local, bundle, address=address, known=known, now=now
                )
                self._check_pinned(address, peer.identity_key)
                # The initial message carries our sealing key; it need not be told again.
                key_id = self._account.prekeys.sealing_key.key_id
                contact = replace(contact, told_key_id=key_id)
            else:
                # IDENTITY-07 counts here, too: the key is taken from a whole, verified bundle.
                verified = verify_bundle(bundle, address=address, now=now, known=peer.device_list)
                peer = replace_peer(
                    peer, device_list=verified.device_list, sealing_key=verified.sealing_key
                )
        except IdentityChangedError:
            # Raised only for a list that the other identity signed.
            body = bundle.device_list.body
            shown = decode_remote(body, DeviceList, limit=len(body))
            await self._mark_change(address, shown.identity_key)
            raise
        await self._store.write([*self._peers.changes(peer), contact.change()])
        self._undecryptable.discard(address)

    async def _seal(
        self, address: Address, kind: PayloadKind, body: bytes | Body, *, give_token: bool
    ) -> Sealed:
        prekeys, contact, now = self._account.prekeys, self.contacts.get(address), self._clock()
        peer = self._peers.get(address)
        if peer is None:
            raise LocalProtocolError(f"there is no session with {address}")
        if not isinstance(body, bytes):
            # CALLKEY-18: nothing comes between this look at the session and its use.
            body = body(*self._parties(peer, peer.active.session_id))
        news, token = None, None
        if contact.told_key_id != prekeys.sealing_key.key_id:
            news = prekeys.sealing_key
            contact = replace(contact, told_key_id=news.key_id)
        reach = self.reach.get(contact.address)
        about_tokens: list[Change] = []
        if give_token and contact.given_token is None:
            token = generate_token()
            contact = replace(contact, given_token=token)
            about_tokens.append(self.reach.given(contact, now))
        elif reach.told is Told.PUBLISHED:
            token = contact.given_token
        peer, envelope = protocol.seal(
            self._account.local,
            prekeys,
            peer,
            encode_payload(Payload(kind, int(now * 1000), news, token, body)),
            call=kind is PayloadKind.CALL,
            now=now,
        )
        contact = replace(contact, used=int(now))
        await self._store.write([*self._peers.changes(peer), contact.change(), *about_tokens])
        if token is not None:
            self.tell_tokens_changed()
        return Sealed(address, peer.device_id, envelope, contact.token, token)

    # --- common -------------------------------------------------------------------------------

    def _relay_keys(self) -> dict[str, bytes]:
        records = self._store.all(RecordKind.RELAY)
        return {name.decode(): relay_key for name, relay_key in records.items()}

    def _parties(self, peer: PeerState, session_id: bytes) -> tuple[Party, Party]:
        session = peer.session(session_id)
        assert session is not None
        local = self._account.local
        binding = session.ratchet.handshake_hash
        ours = Party(str(local.address), local.keys.device_id, local.identity.public, binding)
        theirs = Party(str(peer.address), peer.device_id, peer.identity_key, binding)
        return ours, theirs


def _changed(address: Address) -> IdentityChangedError:
    return IdentityChangedError(
        f"{address} shows another identity key than before",
        hint="compare fingerprints with this person over another way before going on",
    )
