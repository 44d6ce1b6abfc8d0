"""What the user decides about people (spec/identity.md, "What the user decides").

Verifying, accepting another identity, blocking, forgetting: each is one write to the store, under
the account's lock. What a decision then allows is `e2ecall.client.sessions`.
"""

from typing import Final

from msgspec.structs import replace

from e2ecall.client.account import Account
from e2ecall.client.callrules import CallRule, CallRules
from e2ecall.client.contacts import Contact, ContactRecord
from e2ecall.client.history import forgetting
from e2ecall.client.reach import forgotten
from e2ecall.client.sessions import Sessions
from e2ecall.errors import LocalProtocolError
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.sas import identity_fingerprint
from e2ecall.protocol.verification import VerificationCode, compare, same_digits
from relay.wire.messages import Policy
from relay.wire.names import Address

_ABOUT_SOMEBODY: Final = (
    RecordKind.CONTACT,
    RecordKind.PEER,
    RecordKind.REACH,
    RecordKind.CALL_RULE,
    RecordKind.GAP,
)
"""Whose key is an address: what goes with a contact that is forgotten. Unfinished exchanges do not
(CALL-08): they go by themselves when they count no more."""


class People:
    """The decisions about contacts in one store."""

    def __init__(self, store: Store, account: Account, sessions: Sessions) -> None:
        self._store = store
        self._account = account
        self._sessions = sessions
        self._contacts = sessions.contacts
        self.rules = CallRules(store)
        """Whose calls ring, and whose pictures are seen."""

    def all(self) -> tuple[Contact, ...]:
        """Return everybody this account knows, in the order of addresses."""
        return tuple(self._shown(record) for record in self._contacts.all())

    def fingerprint(self, address: Address | None = None) -> str:
        """Return the 60 digits of a contact's known identity, or of the own one.

        Raises:
            LocalProtocolError: this person's identity is not known yet.
        """
        if address is None:
            local = self._account.local
            return identity_fingerprint(str(local.address), local.identity.public)
        return identity_fingerprint(str(address), self._known(address))

    def changed_fingerprint(self, address: Address) -> str | None:
        """Return the 60 digits of the other identity that the contact's relay vouched for."""
        other = self._contacts.get(address).other_identity
        return None if other is None else identity_fingerprint(str(address), other)

    def verification_code(self, address: Address) -> str:
        """Return what a QR code for this contact says; raises as `fingerprint`."""
        return self._own_code(address).encode()

    async def verify(self, address: Address, shown: str) -> None:
        """Store that this contact's known identity is the right one, if ``shown`` says so.

        ``shown`` is their fingerprint as they told it, or the text of the QR code that they show.

        Raises:
            LocalProtocolError: it is neither, their code for somebody else, or they are unknown.
            VerificationFailedError: it belongs to another identity; nothing has changed.
        """
        async with self._account.lock:
            own = self._own_code(address)
            compare(shown, own)
            await self._write(
                replace(
                    self._contacts.get(address),
                    verified_identity=own.reader_key,
                    identity_changed=False,
                    other_identity=None,
                )
            )

    async def accept_identity(self, address: Address, fingerprint: str) -> None:
        """Take the other identity that was seen for the right one; it is not verified by that.

        Raises:
            LocalProtocolError: no other identity was seen, or it has another fingerprint.
        """
        async with self._account.lock:
            record = self._contacts.get(address)
            other = record.other_identity
            if other is None:
                raise LocalProtocolError(f"no other identity of {address} was seen")
            if not same_digits(fingerprint, identity_fingerprint(str(address), other)):
                raise LocalProtocolError(
                    f"this is not the fingerprint of the other identity of {address}",
                    hint="look at it again: it may have changed once more",
                )
            key = str(address).encode()
            accepted = ContactRecord.new(address, pinned_identity=other, blocked=record.blocked)
            # Sessions, tokens and verification were the former identity's; guesses at the spoken
            # code (CALL-08) are counted for the address, whoever made them.
            await self._revoke(
                [Change(RecordKind.PEER, key, None), forgotten(address), accepted.change()]
            )

    async def block(self, address: Address, *, blocked: bool) -> None:
        """Refuse everything from this person from now on, silently; or no longer.

        Identity and verification stay as they are.
        """
        async with self._account.lock:
            record = replace(self._contacts.get(address), blocked=blocked)
            if blocked:
                # Without a token they would be strangers when unblocked, whose pin may go.
                known = self._sessions.identity_key(address)
                record = replace(record, given_token=None, pinned_identity=known)
            # REACH-05: both tokens, and no rotation brings one back.
            revoked = [self._sessions.reach.revoked(address)] if blocked else []
            await self._revoke([record.change(), *revoked])

    async def allow(self, address: Address, *, audio: bool | None, video: bool | None) -> None:
        """Let this person's calls ring and pictures be seen, or not; None: as for everybody."""
        async with self._account.lock:
            rule = CallRule(audio=audio, video=video)
            await self._store.write([rule.change(address)])

    async def allow_everybody(self, *, audio: Policy | None, video: Policy | None) -> None:
        """Say the same for who has no rule of their own; None leaves it as it is."""
        async with self._account.lock:
            common = self.rules.common
            changed = replace(common, audio=audio or common.audio, video=video or common.video)
            await self._store.write([changed.change()])

    async def forget(self, address: Address) -> None:
        """Drop a contact: sessions, tokens, identity and verification, as if never met.

        Raises:
            LocalProtocolError: this is no contact.
        """
        async with self._account.lock:
            self.check_known(address)
            key = str(address).encode()
            gone = [Change(kind, key, None) for kind in _ABOUT_SOMEBODY]
            await self._revoke(gone + forgetting(self._store, address))

    def check_known(self, address: Address) -> None:
        """Raise a LocalProtocolError where this is no contact."""
        if self._contacts.find(address) is None:
            raise LocalProtocolError(f"{address} is not among your contacts")

    def _shown(self, record: ContactRecord) -> Contact:
        address = Address.parse(record.address)
        known = self._sessions.identity_key(address)
        verified = record.verified_identity is not None and record.verified_identity == known
        rule = self.rules.of(address)
        return Contact(
            record.address,
            verified,
            record.identity_changed,
            record.blocked,
            self._sessions.is_stranger(address),
            rule.audio,
            rule.video,
        )

    def _known(self, address: Address) -> bytes:
        known = self._sessions.identity_key(address)
        if known is None:
            raise LocalProtocolError(
                f"the identity of {address} is not known yet",
                hint="call them or send them a message first",
            )
        return known

    def _own_code(self, address: Address) -> VerificationCode:
        local = self._account.local
        return VerificationCode(
            str(local.address), local.identity.public, str(address), self._known(address)
        )

    async def _revoke(self, changes: list[Change]) -> None:
        """Store what takes tokens back, and have the relay learn of it at once (REACH-05).

        Also where nobody waits any more: a write that was begun is carried out.
        """
        try:
            await self._store.write(changes)
        finally:
            self._sessions.tell_tokens_changed()

    async def _write(self, record: ContactRecord) -> None:
        await self._store.write([record.change()])
