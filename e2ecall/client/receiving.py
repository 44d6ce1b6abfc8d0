"""Messages from peers (spec/ratchet.md, spec/sealing.md): open, and store before use.

What is kept of whom is `e2ecall.client.peers`; what payloads mean is decided elsewhere. Messages to
peers are `e2ecall.client.sessions`.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from e2ecall.client.account import Account
from e2ecall.client.contacts import ContactRecord
from e2ecall.client.inbox import Standing, arrival
from e2ecall.client.tokens import Tokens
from e2ecall.errors import IdentityChangedError, Reason, RemoteProtocolError
from e2ecall.io.store import RecordKind, Store
from e2ecall.protocol import session as protocol
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.messages import Payload, PayloadKind, decode_payload
from e2ecall.protocol.peer import PeerState, with_sealing_key
from relay.wire.names import Address

_USED_STEP: Final = 86_400
"""Seconds by which the time of last use of a contact may be behind: it orders, it dates nothing."""

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


class Receiving(Tokens):
    """What comes from all peers, through the sessions as stored."""

    def __init__(
        self, store: Store, account: Account, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(store, account, clock)
        self._undecryptable: set[Address] = set()
        """Peers of whom something came that no session could open: a new one is begun."""

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
            return Opened(peer.address, ours, theirs, payload, received.proven)

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

    def _updated(self, contact: ContactRecord, payload: Payload) -> ContactRecord:
        now = int(self._clock())
        sent = min(payload.sent_at_ms, now * 1000)
        # REACH-19 MUST: a message that was held back brings no older token back.
        if payload.token is not None and sent >= contact.token_sent:
            contact = replace(contact, token=payload.token, token_sent=sent)
        if contact.token is not None and now >= contact.used + _USED_STEP:
            contact = replace(contact, used=now)
        return contact

    def _parties(self, peer: PeerState, session_id: bytes) -> tuple[Party, Party]:
        session = peer.session(session_id)
        assert session is not None
        local = self._account.local
        binding = session.ratchet.handshake_hash
        ours = Party(str(local.address), local.keys.device_id, local.identity.public, binding)
        theirs = Party(str(peer.address), peer.device_id, peer.identity_key, binding)
        return ours, theirs
