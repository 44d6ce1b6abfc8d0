"""How contacts reach this account (spec/reach.md): tokens that rotate, and open invitations.

It decides what to write and writes nothing: `e2ecall.client.sessions` does, under the account's
lock. What the relay has to know of it is told by `e2ecall.client.home`.
"""

from collections.abc import Callable
from enum import IntEnum, unique
from hashlib import sha256
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import replace

from e2ecall.client.contacts import ContactRecord, Contacts, generate_token
from e2ecall.client.stored import Stored
from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.encoding import decode_stored, encode_stored
from relay.wire.limits import MAX_INVITATIONS, MAX_TOKENS, TOKEN_BYTES
from relay.wire.messages import Invitation, Token
from relay.wire.names import Address
from relay.wire.records import Hash64, UnixSeconds

ROTATION: Final = 7 * 86_400
"""Seconds for which a token is the newest of its contact."""

GRACE: Final = 86_400
"""Seconds for which what came in time may have waited: as long as its sender's certificate lasts.
The relay is who looks at the time."""


@unique
class Told(IntEnum):
    """How far a contact's newest token has got."""

    DRAWN = 0
    PUBLISHED = 1
    """The relay knows its hash, or is told it now, so the contact may be told."""
    TOLD = 2
    """An envelope that carries it was stored for the contact."""


class ReachRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is kept of a contact's ways to us and of an invitation from them; see spec/store.md.

    ``former`` is the token before the newest, which is good as well; ``since`` is when the newest
    was drawn. ``fingerprint`` is of the identity in an invitation that was taken up.
    """

    format: Annotated[int, Meta(ge=1, le=1)] = 1
    former: Token | None = None
    since: UnixSeconds = 0
    told: Told = Told.TOLD
    fingerprint: Hash64 | None = None

    def __repr__(self) -> str:
        """Show nothing: tokens are secrets."""
        return "ReachRecord()"

    def change(self, address: str) -> Change:
        """Return the change that stores this record."""
        return Change(RecordKind.REACH, address.encode(), encode_stored(self))


class Reach:
    """The ways to this account in a store."""

    def __init__(self, store: Store, contacts: Contacts) -> None:
        self._contacts = contacts
        self._records = Stored(store, RecordKind.REACH, _decode)
        self._invitations = Stored(store, RecordKind.INVITATION, _decode_expiry)

    def get(self, address: str) -> ReachRecord:
        """Return what is kept of a contact."""
        return self._records.get(address.encode()) or ReachRecord()

    def token_hashes(self) -> tuple[bytes, ...]:
        """Return the hashes of all tokens that are good.

        WIRE-26: the relay keeps 1 024; who was heard of least lately has to be a stranger again.
        """
        hashes: list[bytes] = []
        for contact in sorted(self._contacts.all(), key=lambda one: one.used, reverse=True):
            if contact.given_token is None:
                continue
            tokens = [contact.given_token, self.get(contact.address).former]
            hashes += [sha256(token).digest() for token in tokens if token is not None]
        return tuple(hashes[:MAX_TOKENS])

    def given(self, contact: ContactRecord, now: float) -> Change:
        """Return what notes that a contact gets its first token now."""
        since = replace(self.get(contact.address), former=None, since=int(now), told=Told.PUBLISHED)
        return since.change(contact.address)

    def told(self, contact: ContactRecord, token: bytes) -> list[Change]:
        """Return what notes that this token has left for the contact, if it is the newest still."""
        record = self.get(contact.address)
        if contact.given_token != token or record.told is not Told.PUBLISHED:
            return []
        return [replace(record, told=Told.TOLD).change(contact.address)]

    def rotated(self, heard: Callable[[str], float], now: float) -> list[Change]:
        """Return what draws new tokens for contacts whose newest is a week old (REACH-03)."""
        changes = []
        for contact in self._contacts.all():
            record = self.get(contact.address)
            due = now >= record.since + ROTATION and heard(contact.address) > record.since
            if contact.given_token is None or record.told is not Told.TOLD or not due:
                continue
            drawn = replace(contact, given_token=generate_token())
            next_ = replace(record, former=contact.given_token, since=int(now), told=Told.DRAWN)
            changes += [drawn.change(), next_.change(contact.address)]
        return changes

    def published(self) -> list[Change]:
        """Return what notes that the relay knows all tokens that were drawn."""
        return [
            replace(record, told=Told.PUBLISHED).change(address.decode())
            for address, record in self._records.all().items()
            if record.told is Told.DRAWN
        ]

    def revoked(self, address: Address) -> Change:
        """Return what drops the tokens of a contact, and no pin of an invitation (REACH-09)."""
        name = str(address)
        pin = self.get(name).fingerprint
        return forgotten(address) if pin is None else ReachRecord(fingerprint=pin).change(name)

    # --- invitations ---

    def invitations(self) -> tuple[Invitation, ...]:
        """Return the invitations that nobody has taken up."""
        return tuple(
            Invitation(hashed, expires) for hashed, expires in self._invitations.all().items()
        )

    def invited(self, token: bytes, expires: int, now: float) -> list[Change]:
        """Return what stores a new invitation, and drops those that are over.

        Raises:
            LocalProtocolError: too many are open.
        """
        open_ = self._invitations.all()
        over = [key for key, end in open_.items() if now >= end + GRACE]
        if len(open_) - len(over) >= MAX_INVITATIONS:
            raise LocalProtocolError(
                f"{MAX_INVITATIONS} invitations are open", hint="wait until one has expired"
            )
        return [
            *(Change(RecordKind.INVITATION, key, None) for key in over),
            Change(RecordKind.INVITATION, sha256(token).digest(), encode_stored(expires)),
        ]

    def taken_up(
        self, token: bytes, contact: ContactRecord, now: float
    ) -> tuple[ContactRecord, list[Change]]:
        """Return the contact who took an invitation up, and what uses it up (REACH-10).

        Its token becomes the contact's, and is due for rotation at once.

        Raises:
            RemoteProtocolError: MALFORMED; EXPIRED, there is no such invitation (any more).
        """
        if len(token) != TOKEN_BYTES:
            raise RemoteProtocolError(Reason.MALFORMED)
        hashed = sha256(token).digest()
        end = self._invitations.get(hashed)
        if end is None or now >= end + GRACE:
            raise RemoteProtocolError(Reason.EXPIRED)
        record = replace(
            self.get(contact.address), former=contact.given_token, since=0, told=Told.TOLD
        )
        return replace(contact, given_token=token), [
            Change(RecordKind.INVITATION, hashed, None),
            record.change(contact.address),
        ]


def forgotten(address: Address) -> Change:
    """Return what drops everything that is kept here of a contact."""
    return Change(RecordKind.REACH, str(address).encode(), None)


def uninvited(token: bytes) -> Change:
    """Return what drops an invitation."""
    return Change(RecordKind.INVITATION, sha256(token).digest(), None)


def _decode(record: bytes) -> ReachRecord:
    return decode_stored(record, ReachRecord)


def _decode_expiry(record: bytes) -> int:
    return decode_stored(record, int)
