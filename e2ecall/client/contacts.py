"""Contacts (spec/identity.md, "Contacts"): whom this account talked to, and what was verified.

A contact is one address. It holds no keys of sessions: those are `e2ecall.client.sessions`.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Self

from msgspec import Meta, Struct
from msgspec.structs import replace

from e2ecall.client.stored import Stored
from e2ecall.crypto.random import generate_secret
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.account_export import ExportedContact
from e2ecall.protocol.encoding import decode_stored, encode_stored
from relay.wire.limits import TOKEN_BYTES
from relay.wire.messages import Token
from relay.wire.names import Address
from relay.wire.records import AddressText, Key32, UnixSeconds

_FORMAT: Final = 3


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody this account knows; ``verified`` after a code or fingerprints were compared.

    ``identity_changed``: the relay of this person vouched for another identity than the known one.
    Nothing was sent to that one; only the user takes the mark away (IDENTITY-14). ``is_request``:
    they wrote or called, and the user never did, nor decided about them. ``audio`` and ``video``
    are whether their calls ring and their pictures are seen; None: as for everybody.
    """

    address: str
    verified: bool
    identity_changed: bool = False
    blocked: bool = False
    is_request: bool = False
    audio: bool | None = None
    video: bool | None = None


class ContactRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is kept of a contact, beside its sessions; layout in spec/store.md, "Records".

    ``token`` lets us reach them; ``token_sent`` is when they sent it, in Unix ms, 0 if that is not
    known (REACH-19). ``given_token`` is what they show to reach us; ``told_key_id`` is the newest
    of our sealing keys that they know. ``used`` is about when something was last
    sent or received, ``checked`` when the relay was last asked whether they are on another device,
    both in Unix seconds. ``other_identity`` is what the relay vouched for when it was not the
    known one. With ``pinned_identity``, which was accepted or imported, no session begins with any
    other.
    """

    format: Annotated[int, Meta(ge=3, le=3)]
    address: AddressText
    verified_identity: Key32 | None = None
    token: Token | None = None
    given_token: Token | None = None
    told_key_id: Annotated[int, Meta(ge=0)] = 0
    used: UnixSeconds = 0
    identity_changed: bool = False
    other_identity: Key32 | None = None
    blocked: bool = False
    checked: UnixSeconds = 0
    pinned_identity: Key32 | None = None
    token_sent: Annotated[int, Meta(ge=0)] = 0

    @classmethod
    def new(
        cls, address: Address, *, pinned_identity: bytes | None = None, blocked: bool = False
    ) -> Self:
        """Return what is known of somebody at first."""
        return cls(_FORMAT, str(address), pinned_identity=pinned_identity, blocked=blocked)

    def imported(self, contact: ExportedContact) -> Self:
        """Return the record with what an export says of this contact (ACCOUNT-04)."""
        return replace(
            self,
            verified_identity=contact.identity_key if contact.verified else None,
            token=contact.token,
            given_token=contact.given_token,
            used=contact.used,
            blocked=contact.blocked,
        )

    def __repr__(self) -> str:
        """Show the address alone: tokens are secrets."""
        return f"ContactRecord({self.address!r})"

    @property
    def is_stranger(self) -> bool:
        """Whether the user never wrote to, called, verified or decided about this person."""
        known = self.given_token or self.verified_identity or self.pinned_identity
        return known is None and not self.blocked

    def change(self) -> Change:
        """Return the change that stores this record."""
        return Change(RecordKind.CONTACT, self.address.encode(), encode_stored(self))


class Contacts:
    """The contacts in a store."""

    def __init__(self, store: Store) -> None:
        self._records = Stored(store, RecordKind.CONTACT, _decode)

    def get(self, address: Address) -> ContactRecord:
        """Return what is known of an address; of a new one, nothing."""
        return self.find(address) or ContactRecord.new(address)

    def find(self, address: Address) -> ContactRecord | None:
        """Return what is known of an address, or None of a new one."""
        return self._records.get(str(address).encode())

    def all(self) -> tuple[ContactRecord, ...]:
        """Return all contacts in the order of their addresses."""
        return tuple(self._records.all().values())

    def is_verified(self, address: Address, identity_key: bytes) -> bool:
        """Tell whether exactly this identity was verified for this address."""
        return self.get(address).verified_identity == identity_key


def _decode(record: bytes) -> ContactRecord:
    return decode_stored(record, ContactRecord)


def generate_token() -> bytes:
    """Draw a delivery token: whoever shows it may reach this account."""
    return generate_secret(TOKEN_BYTES).expose()
