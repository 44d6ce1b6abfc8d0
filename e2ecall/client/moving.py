"""What of an account moves to another device (spec/account.md): gathered, and laid out again.

It decides what belongs in; sealing is `e2ecall.protocol.account_export`.
"""

from dataclasses import dataclass

from e2ecall.client.account import Account
from e2ecall.client.contacts import ContactRecord
from e2ecall.client.sessions import Sessions
from e2ecall.errors import ExportError, StoreError
from e2ecall.io.store import Change, RecordKind, Store
from e2ecall.protocol.account_export import (
    VERSION,
    ExportedAccount,
    ExportedContact,
    ExportedRelay,
)
from e2ecall.protocol.encoding import parse_stored_address
from relay.wire.names import Address


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device of the own account; ``is_this`` says that it is the one that runs here."""

    device_id: int
    is_this: bool


def address_of(moved: ExportedAccount) -> Address:
    """Return the address of an imported account.

    Raises:
        ExportError: it is none.
    """
    return _parsed(moved.address)


def exported(store: Store, account: Account, sessions: Sessions) -> ExportedAccount:
    """Return the account as it moves (ACCOUNT-01); raises as `Account.local` does."""
    local = account.local
    contacts = [
        _contact(record, sessions.identity_key(Address.parse(record.address)))
        for record in sessions.contacts.all()
        if not record.is_stranger
    ]
    relays = sorted(store.all(RecordKind.RELAY).items())
    return ExportedAccount(
        VERSION,
        str(local.address),
        local.identity.to_bytes(),
        local.keys.device_id,
        local.verified_list.body.version,
        account.policy,
        tuple(ExportedRelay(name.decode(), key) for name, key in relays),
        tuple(contacts),
    )


def changes(moved: ExportedAccount) -> list[Change]:
    """Return what stores contacts and relays of an imported account.

    Raises:
        ExportError: an address in it is none.
    """
    written = [Change(RecordKind.RELAY, relay.name.encode(), relay.key) for relay in moved.relays]
    for contact in moved.contacts:
        record = ContactRecord.new(_parsed(contact.address), pinned_identity=contact.identity_key)
        written.append(record.imported(contact).change())
    return written


def _parsed(address: str) -> Address:
    try:
        return parse_stored_address(address)
    except StoreError as error:
        raise ExportError("this export is damaged", hint="take another copy of it") from error


def _contact(record: ContactRecord, identity_key: bytes | None) -> ExportedContact:
    verified = identity_key is not None and record.verified_identity == identity_key
    return ExportedContact(
        record.address,
        identity_key,
        verified,
        record.blocked,
        record.token,
        record.given_token,
        record.used,
    )
