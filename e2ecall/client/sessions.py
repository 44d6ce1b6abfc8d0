"""Messages to peers (spec/ratchet.md, spec/sealing.md): seal, and store before use.

The account's lock serialises everything that touches a session, so two tasks never fork a ratchet;
nobody waits for a relay while holding it. Messages from peers are `e2ecall.client.receiving`; what
is kept of whom is `e2ecall.client.peers`, and where envelopes go is decided elsewhere.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from dataclasses import replace as replace_peer
from typing import Final

import anyio
from msgspec.structs import replace

from e2ecall.client.account import Account
from e2ecall.client.contacts import generate_token
from e2ecall.client.gaps import Gaps
from e2ecall.client.reach import Told
from e2ecall.client.receiving import Receiving
from e2ecall.crypto.random import generate_bytes
from e2ecall.errors import (
    IdentityChangedError,
    LocalProtocolError,
    RelayError,
)
from e2ecall.io.store import Change, Store
from e2ecall.protocol import session as protocol
from e2ecall.protocol.bundle import verify_bundle
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.messages import (
    Payload,
    PayloadKind,
    encode_payload,
)
from e2ecall.protocol.peer import (
    RENEWAL_INTERVAL,
    PeerState,
    is_unanswered,
    newer_key,
)
from relay.wire.limits import MESSAGE_ID_BYTES
from relay.wire.names import Address
from relay.wire.records import DeviceList, PreKeyBundle

Fetch = Callable[[Address, bytes | None], Awaitable[PreKeyBundle]]

Body = Callable[[Party, Party], bytes]
"""Makes what is sent of this end and the peer, as the session that is to carry it knows them."""

_LOOK_INTERVAL: Final = 86_400
"""Seconds without a word from a peer after which its relay is asked again, and between that."""

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


class Sessions(Receiving):
    """The sessions with all peers, as stored."""

    def __init__(
        self, store: Store, account: Account, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(store, account, clock)
        self._fetching: dict[Address, anyio.Lock] = {}
        self.gaps = Gaps(store, self._peers, account.lock)

    async def ensure(self, address: Address, *, fetch: Fetch, must_renew: bool = True) -> None:
        """Begin a session with ``address`` unless there is one that can be used.

        Without ``must_renew`` one that is merely due for renewal is used on where no bundle comes.

        Raises:
            RelayError: no bundle is to be had.
            IdentityChangedError: the relay serves another identity than the pinned one.
            RemoteProtocolError: the relay serves a bundle that is not valid.
        """
        if not self._needs_bundle(address):
            return
        # One fetch at a time for each peer: every bundle costs it one-time prekeys.
        async with self._fetching.setdefault(address, anyio.Lock()):
            if not self._needs_bundle(address):
                return
            try:
                bundle = await fetch(address, self.contacts.get(address).token)
            except RelayError:
                if must_renew or not self._can_go_on(address):
                    raise
                return
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
        must_renew: bool = True,
    ) -> Sealed:
        """Encrypt for ``address`` and store the session; beginning one where there is none.

        A ``body`` that depends on the session is made when it is known which one carries it. With
        ``give_token`` the peer gets a token to reach us by, if it has none yet. Raises as `ensure`,
        but for a call as `check_identity`, and what making the body raises.
        """
        await self.ensure(address, fetch=fetch, must_renew=must_renew)
        async with self._lock:
            known = self.contacts.get(address).given_token
            sealed = await self._seal(address, kind, body, give_token=give_token)
            is_given = known is None and self.contacts.get(address).given_token is not None
        if is_given:
            await self.publish_token()
        return sealed

    async def forget_expired(self) -> None:
        """Drop sessions, keys and strangers whose time is over."""
        await self._account.forget_expired()
        async with self._lock:
            changes = self._peers.expired(self._clock())
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

    # --- helpers ------------------------------------------------------------------------------

    def _needs_bundle(self, address: Address) -> bool:
        peer = self._peers.get(address)
        return (
            peer is None
            or peer.sealing_key.expires <= self._clock()
            or self._needs_session(peer)
            or self._is_silent(peer)
        )

    def _can_go_on(self, address: Address) -> bool:
        """SESSION-12: tell whether there is a session, with a key to seal to, whatever is due."""
        peer = self._peers.get(address)
        return peer is not None and peer.sealing_key.expires > self._clock()

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
                sealing_key = newer_key(peer.sealing_key, verified.sealing_key)
                peer = replace_peer(peer, device_list=verified.device_list, sealing_key=sealing_key)
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
        if kind is not PayloadKind.CALL:
            self.check_identity(address)  # IDENTITY-16: not blocked while prekeys were fetched
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
