"""Who may reach this account, as stored (spec/reach.md): tokens and invitations, given and taken.

What is written is decided by `e2ecall.client.reach`; what the relay has to know of it is told by
`e2ecall.client.home`, and what a contact has to, with the messages of `e2ecall.client.sessions`.
"""

import time
from collections.abc import Awaitable, Callable

import anyio
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from e2ecall.client.account import Account
from e2ecall.client.contacts import generate_token
from e2ecall.client.identities import Identities, changed
from e2ecall.client.reach import uninvited
from e2ecall.errors import LocalProtocolError
from e2ecall.io.store import Store
from e2ecall.protocol.identity import fingerprint
from e2ecall.protocol.invitation import InvitationLink
from relay.wire.names import Address


class Tokens(Identities):
    """The delivery tokens and invitations in a store."""

    def __init__(
        self, store: Store, account: Account, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(store, account, clock)
        self.publish_token: Callable[[], Awaitable[None]] = checkpoint
        """Has the own relay learn of a first token, before its envelope leaves (REACH-04)."""
        self.tokens_changed = anyio.Event()
        """Set when a new delivery token was given out, which the own relay has to learn."""

    def tell_tokens_changed(self) -> None:
        """Have the own relay learn which delivery tokens are good now."""
        self.tokens_changed.set()
        self.tokens_changed = anyio.Event()

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

    async def withdraw(self, link: InvitationLink) -> None:
        """Drop an invitation that the relay was not told of, so that it takes no other's place."""
        async with self._lock:
            await self._store.write([uninvited(link.token)])

    async def begin_invited(self, link: InvitationLink) -> bytes:
        """REACH-09: pin the identity of an invitation; take its token, if there is none yet.

        Returns the token that is known now, for `use_invited`.

        Raises:
            IdentityChangedError: the person is known, or was invited, with another identity.
            LocalProtocolError: it has expired.
        """
        if self._clock() >= link.expires:
            raise LocalProtocolError("this invitation has expired", hint="ask for a new one")
        async with self._lock:
            self.check_identity(link.address)
            known, name = self.identity_key(link.address), str(link.address)
            if known is not None and fingerprint(link.address, known) != link.fingerprint:
                raise changed(link.address)
            reach = self.reach.get(name)
            # REACH-09 MUST: a second link takes no pin away.
            if reach.fingerprint not in (None, link.fingerprint):
                raise changed(link.address)
            contact = self.contacts.get(link.address)
            # REACH-18: a token that is known stays until `use_invited`.
            token = contact.token or link.token
            taken = replace(contact, token=token)
            pinned = replace(reach, fingerprint=link.fingerprint)
            await self._store.write([taken.change(), pinned.change(name)])
            return token

    async def use_invited(self, link: InvitationLink, known: bytes) -> None:
        """REACH-18: take the token of an invitation that the person's relay let through.

        Where the person has told another one than ``known`` by now, that one is newer.
        """
        async with self._lock:
            contact = self.contacts.get(link.address)
            if contact.token == known != link.token:
                await self._store.write([replace(contact, token=link.token).change()])
