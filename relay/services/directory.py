"""What the directory accepts: accounts, device lists, prekeys, log-ins (spec/wire.md, Accounts).

Each function checks one request against what is stored and returns the checked value, or raises
the refusal. It stores nothing and does not decide who may reach whom (`relay.services.policy`).
"""

from dataclasses import dataclass
from typing import Final

from relay.errors import RefusedError, SignatureError
from relay.services.signatures import RelayKey, verify
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.messages import (
    Enrol,
    ErrorCode,
    FetchOwnList,
    Login,
    Policy,
    PrekeyCounts,
    Register,
)
from relay.wire.names import Address, check_username
from relay.wire.records import (
    PREKEY_BYTES,
    Device,
    DeviceList,
    PreKey,
    PreKeyBundle,
    PreKeyKind,
    SenderCertificate,
    SignedDeviceList,
    SignedSenderCertificate,
    deletion_bytes,
    device_list_bytes,
    device_list_hash,
    login_bytes,
    prekey_bytes,
    recovery_bytes,
    register_bytes,
    sender_certificate_bytes,
)

DAY: Final = 86_400
DEVICE_LIST_LIFETIME: Final = 18 * DAY
CLOCK_SKEW: Final = DAY
"""A client whose clock is wrong by up to a day can still publish."""
PREKEY_LIFETIME: Final = 400 * DAY
"""The relay remembers a handed-out key id until the key expires, so an expiry needs a bound."""
CERTIFICATE_LIFETIME: Final = DAY
MAX_DEVICE_LIST_BODY: Final = 2048
REFILL_BELOW: Final = 25
"""One-time prekeys of a kind: with fewer the owner is told, a quarter of what clients keep."""
REFILL_STEP: Final = 8
"""Of those, how many are handed out between one push and the next."""


_NOBODYS_LIST: Final = SignedDeviceList(
    encode(
        DeviceList("nobody@relay.example", bytes(32), 1, b"", (Device(1, bytes(32), bytes(32)),), 1)
    ),
    bytes(64),
)


@dataclass(frozen=True, slots=True)
class Account:
    """An account as it is stored. ``newest_device_id`` is the highest id that it ever had."""

    username: str
    signed_list: SignedDeviceList
    device_list: DeviceList
    newest_device_id: int
    policy: Policy

    def device(self, device_id: int) -> Device | None:
        """Return one of the account's devices."""
        for device in self.device_list.devices:
            if device.device_id == device_id:
                return device
        return None


@dataclass(frozen=True, slots=True)
class CodeUse:
    """The hash of a registration code that is used up by a registration at ``now``."""

    hash: bytes
    now: float


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A bundle, and how many one-time prekeys its device has left."""

    bundle: PreKeyBundle
    left: PrekeyCounts

    @property
    def needs_refill(self) -> bool:
        """Whether its owner is to be told (WIRE-18): not for each of them."""
        return (self.bundle.one_time_prekey is not None and _is_step(self.left.x25519)) or (
            self.bundle.kem_prekey.kind is PreKeyKind.ONE_TIME_MLKEM1024
            and _is_step(self.left.mlkem1024)
        )


def _is_step(left: int) -> bool:
    return left < REFILL_BELOW and left % REFILL_STEP == 0


def register(request: Register, *, relay: str, challenge: bytes, now: float) -> Account:
    """Check a registration and return the account that it asks for.

    Raises:
        RefusedError: bad username, bad signature, or not a first device list for this address.
    """
    try:
        check_username(request.username)
    except WireError as error:
        raise RefusedError(ErrorCode.BAD_USERNAME, str(error)) from error
    device_list = _checked_list(request.device_list, request.username, relay, now)
    if device_list.version != 1 or device_list.previous:
        raise RefusedError(ErrorCode.BAD_REQUEST, "the first device list has version 1")
    message = register_bytes(relay, challenge, request.device_list)
    _verified(device_list.identity_key, message, request.signature)
    newest = max(device.device_id for device in device_list.devices)
    return Account(request.username, request.device_list, device_list, newest, Policy.EVERYONE)


def updated(account: Account, signed: SignedDeviceList, *, relay: str, now: float) -> Account:
    """Return the account with a newer device list; the stored one again changes nothing.

    Raises:
        RefusedError: another identity, not a successor (STALE), or an id used again.
    """
    if signed == account.signed_list:
        return account
    old = account.device_list
    new = _checked_list(signed, account.username, relay, now)
    if new.identity_key != old.identity_key:
        raise RefusedError(ErrorCode.BAD_REQUEST, "another identity key")
    check_successor(account, new)
    newest = max(account.newest_device_id, *(device.device_id for device in new.devices))
    return Account(account.username, signed, new, newest, account.policy)


def check_successor(account: Account, new: DeviceList) -> None:
    """Check that a list may replace the stored one; versions may be missing between them.

    The owner signs its renewals before they are published, so one of them can be lost on the way:
    as between peers (IDENTITY-05), only the direct successor has to name the stored list.

    Raises:
        RefusedError: STALE, or it gives a device other keys, or an id a second time.
    """
    step = new.version - account.device_list.version
    unlinked = step == 1 and new.previous != device_list_hash(account.signed_list)
    if step < 1 or unlinked:
        raise RefusedError(ErrorCode.STALE, "not the successor of the stored device list")
    for device in new.devices:
        before = account.device(device.device_id)
        # Device ids are never reused: a session with a removed device must not reach another one.
        if before is None and device.device_id <= account.newest_device_id:
            raise RefusedError(ErrorCode.BAD_REQUEST, "a device id was used before")
        if before is not None and before != device:
            raise RefusedError(ErrorCode.BAD_REQUEST, "a device's keys never change")


def log_in(
    account: Account | None, request: Login, *, relay: str, challenge: bytes, nobody: bytes
) -> Device:
    """Return the device that a log-in proves.

    ``nobody`` is any valid public key: where there is no such account or device, a signature is
    checked against it, so that the refusal takes as long as with a wrong signature.

    Raises:
        RefusedError: LOGIN_FAILED, with one text for every reason.
    """
    device = None if account is None else account.device(request.device_id)
    message = login_bytes(relay, challenge, request.username, request.device_id)
    try:
        verify(nobody if device is None else device.signing_key, message, request.signature)
    except SignatureError as error:
        raise RefusedError(ErrorCode.LOGIN_FAILED, "this log-in is not valid") from error
    if device is None:
        raise RefusedError(ErrorCode.LOGIN_FAILED, "this log-in is not valid")
    return device


def recovered(
    account: Account | None, request: FetchOwnList, *, relay: str, challenge: bytes, nobody: bytes
) -> Account:
    """Return the account whose identity key asks on this connection; ``nobody`` as in `log_in`.

    Raises:
        RefusedError: LOGIN_FAILED, with one text for every reason.
    """
    message = recovery_bytes(relay, challenge, request.username)
    return _of_identity(account, message, request.signature, nobody)


def enrolled(
    account: Account | None,
    request: Enrol,
    *,
    relay: str,
    challenge: bytes,
    nobody: bytes,
    now: float,
) -> Account:
    """Return the account with the list that its identity key brings on this connection.

    Raises:
        RefusedError: LOGIN_FAILED where it is not that key; otherwise as `updated`.
    """
    message = register_bytes(relay, challenge, request.device_list)
    known = _of_identity(account, message, request.signature, nobody)
    return updated(known, request.device_list, relay=relay, now=now)


def _of_identity(
    account: Account | None, message: bytes, signature: bytes, nobody: bytes
) -> Account:
    key = nobody if account is None else account.device_list.identity_key
    try:
        verify(key, message, signature)
    except SignatureError as error:
        raise RefusedError(ErrorCode.LOGIN_FAILED, "this log-in is not valid") from error
    if account is None:
        raise RefusedError(ErrorCode.LOGIN_FAILED, "this log-in is not valid")
    return account


def check_deletion(account: Account, signature: bytes, *, relay: str, challenge: bytes) -> None:
    """Check that the identity key asks on this connection for the end of the account (WIRE-15).

    Raises:
        RefusedError: the signature does not hold.
    """
    # Signed as nothing else is: what made the account here must not also end it.
    message = deletion_bytes(relay, challenge, account.signed_list)
    _verified(account.device_list.identity_key, message, signature)


def check_prekeys(
    prekeys: tuple[PreKey, ...], *, address: str, device: Device, now: float
) -> tuple[PreKey, ...]:
    """Return the prekeys, each of the right length, in date, and signed by the device.

    Raises:
        RefusedError: one of them is not, or two have the same kind and key id.
    """
    seen: set[tuple[int, int]] = set()
    for prekey in prekeys:
        if len(prekey.key) != PREKEY_BYTES[prekey.kind]:
            raise RefusedError(ErrorCode.BAD_REQUEST, "a prekey has the wrong length")
        if not now < prekey.expires <= now + PREKEY_LIFETIME:
            raise RefusedError(ErrorCode.BAD_REQUEST, "a prekey's expiry is not acceptable")
        if (prekey.kind, prekey.key_id) in seen:
            raise RefusedError(ErrorCode.BAD_REQUEST, "a key id occurs twice")
        seen.add((prekey.kind, prekey.key_id))
        message = prekey_bytes(address, device.device_id, prekey)
        _verified(device.signing_key, message, prekey.signature)
    return prekeys


def certify(key: RelayKey, account: Account, *, now: float) -> SignedSenderCertificate:
    """Return the relay's word, for 24 hours, that this identity key owns this address."""
    device_list = account.device_list
    expires = int(now) + CERTIFICATE_LIFETIME
    body = encode(SenderCertificate(device_list.address, device_list.identity_key, expires))
    unsigned = SignedSenderCertificate(body, bytes(64))
    return SignedSenderCertificate(body, key.sign(sender_certificate_bytes(unsigned)))


def read_list(signed: SignedDeviceList) -> DeviceList:
    """Decode a device list without checking it: for what the directory itself stored."""
    return decode(signed.body, DeviceList, limit=MAX_DEVICE_LIST_BODY)


def read_nobody() -> None:
    """Do what `read_list` does to an account, for a name that nobody has (WIRE-12)."""
    read_list(_NOBODYS_LIST)


def _checked_list(signed: SignedDeviceList, username: str, relay: str, now: float) -> DeviceList:
    try:
        device_list = read_list(signed)
    except WireError as error:
        raise RefusedError(ErrorCode.BAD_REQUEST, "not a device list") from error
    if device_list.address != str(Address(username, relay)):
        raise RefusedError(ErrorCode.BAD_REQUEST, "the device list is for another address")
    if not now < device_list.expires <= now + DEVICE_LIST_LIFETIME + CLOCK_SKEW:
        raise RefusedError(ErrorCode.BAD_REQUEST, "the device list's expiry is not acceptable")
    ids = [device.device_id for device in device_list.devices]
    if sorted(set(ids)) != ids:
        raise RefusedError(ErrorCode.BAD_REQUEST, "device ids are in ascending order, each once")
    _verified(device_list.identity_key, device_list_bytes(signed), signed.signature)
    return device_list


def _verified(key: bytes, message: bytes, signature: bytes) -> None:
    try:
        verify(key, message, signature)
    except SignatureError as error:
        raise RefusedError(ErrorCode.BAD_REQUEST, "a signature does not hold") from error
