"""What of an account moves to another device (spec/account.md): gathered, and laid out again.

It decides what belongs in; sealing is `e2ecall.protocol.account_export`.
"""

from dataclasses import dataclass

from e2ecall.client.account import Account
from e2ecall.client.callrules import CallRule, CallRules, CommonRules
from e2ecall.client.contacts import ContactRecord
from e2ecall.client.reach import ReachRecord
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
    local, rules = account.local, CallRules(store)
    people = {record.address: record for record in sessions.contacts.all()}
    for name in rules.all():
        people.setdefault(name, ContactRecord.new(Address.parse(name)))
    contacts = []
    for name, record in sorted(people.items()):
        address, pin = Address.parse(name), sessions.reach.get(name).fingerprint
        rule = rules.of(address)
        if not record.is_stranger or pin is not None or rule != CallRule():
            contacts.append(_contact(record, sessions.identity_key(address), pin, rule))
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
        account.first_calls_ring,
        rules.common.audio,
        rules.common.video,
    )


def changes(moved: ExportedAccount) -> list[Change]:
    """Return what stores contacts, relays and rules of an imported account.

    Raises:
        ExportError: an address in it is none.
    """
    written = [Change(RecordKind.RELAY, relay.name.encode(), relay.key) for relay in moved.relays]
    for contact in moved.contacts:
        address = _parsed(contact.address)
        record = ContactRecord.new(address, pinned_identity=contact.identity_key)
        written.append(record.imported(contact).change())
        written.append(CallRule(audio=contact.audio, video=contact.video).change(address))
        if contact.fingerprint is not None:
            pinned = ReachRecord(fingerprint=contact.fingerprint)
            written.append(pinned.change(contact.address))
    written.append(CommonRules(audio=moved.audio, video=moved.video).change())
    return written


def _parsed(address: str) -> Address:
    try:
        return parse_stored_address(address)
    except StoreError as error:
        raise ExportError("this export is damaged", hint="take another copy of it") from error


def _contact(
    record: ContactRecord, identity_key: bytes | None, pin: bytes | None, rule: CallRule
) -> ExportedContact:
    verified = identity_key is not None and record.verified_identity == identity_key
    return ExportedContact(
        record.address,
        identity_key,
        verified,
        record.blocked,
        record.token,
        record.given_token,
        record.used,
        pin,
        rule.audio,
        rule.video,
    )
