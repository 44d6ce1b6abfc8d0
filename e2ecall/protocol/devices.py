"""Device lists: which devices an account has (spec/identity.md, "Device list").

Signing one's own, verifying a peer's against what is known of it. Storing the newest verified
list of each peer is the session's work.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from e2ecall.crypto import ed25519, x25519
from e2ecall.errors import IdentityChangedError, LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.identity import IdentityKey
from relay.wire.codec import encode
from relay.wire.limits import MAX_DEVICES
from relay.wire.names import Address
from relay.wire.records import (
    Device,
    DeviceList,
    SignedDeviceList,
    device_list_bytes,
    device_list_hash,
)

DEVICE_LIST_LIFETIME: Final = 18 * 86_400
"""Seconds: a device whose keys nobody renews can be reached this long, as its prekeys."""

_MAX_BODY: Final = 2048


@dataclass(frozen=True, slots=True)
class VerifiedDeviceList:
    """A device list whose signature, address and order were checked, with its 64-byte hash."""

    body: DeviceList
    hash: bytes

    def device(self, device_id: int) -> Device:
        """Return the device with this id.

        Raises:
            RemoteProtocolError: `Reason.UNKNOWN_KEY`: the list has no such device.
        """
        for device in self.body.devices:
            if device.device_id == device_id:
                return device
        raise RemoteProtocolError(Reason.UNKNOWN_KEY)


def sign_device_list(
    identity: IdentityKey,
    *,
    address: Address,
    version: int,
    previous: bytes,
    devices: Iterable[Device],
    expires: int,
) -> SignedDeviceList:
    """Return a signed list; ``previous`` is the hash of the list before, empty at version 1.

    Raises:
        LocalProtocolError: no device, too many, or an id twice.
    """
    ordered = tuple(sorted(devices, key=lambda device: device.device_id))
    ids = {device.device_id for device in ordered}
    if not 1 <= len(ordered) <= MAX_DEVICES or len(ids) != len(ordered):
        raise LocalProtocolError(f"an account has 1 to {MAX_DEVICES} devices with different ids")
    body = encode(DeviceList(str(address), identity.public, version, previous, ordered, expires))
    unsigned = SignedDeviceList(body, bytes(ed25519.SIGNATURE_BYTES))
    return SignedDeviceList(body, identity.sign(device_list_bytes(unsigned)))


def verify_device_list(
    signed: SignedDeviceList,
    *,
    address: Address,
    now: float,
    known: VerifiedDeviceList | None,
    next_keys: Iterable[bytes] = (),
) -> VerifiedDeviceList:
    """Verify a list shown for ``address``; ``known`` is the newest one verified before.

    ``next_keys`` are X25519 keys that the caller is about to check: they cost less together with
    those of the list.

    Raises:
        IdentityChangedError: it is validly signed by another identity key than ``known``.
        RemoteProtocolError: `BAD_SIGNATURE`, `MALFORMED`, `BAD_POINT`, `WRONG_ADDRESS`,
            `EXPIRED` or `STALE_DEVICE_LIST` (older than ``known`` or contradicting it).
    """
    body = decode_remote(signed.body, DeviceList, limit=_MAX_BODY)
    ed25519.verify(body.identity_key, device_list_bytes(signed), signed.signature)
    # IDENTITY-04: signed for one address, so one account's list is no other's.
    if body.address != str(address):
        raise RemoteProtocolError(Reason.WRONG_ADDRESS)
    x25519.expect_public_keys([*(device.dh_key for device in body.devices), *next_keys])
    _check_form(body)
    verified = VerifiedDeviceList(body, device_list_hash(signed))
    if known is not None:
        # IDENTITY-07: a known address never changes its identity key silently.
        if known.body.identity_key != body.identity_key:
            raise IdentityChangedError(
                f"{address} shows another identity key than before",
                hint="compare fingerprints with this person over another way before going on",
            )
        _check_successor(known, verified)
    if body.expires <= now:
        raise RemoteProtocolError(Reason.EXPIRED)
    return verified


def verify_own_list(
    signed: SignedDeviceList, identity_key: bytes, *, address: Address
) -> VerifiedDeviceList:
    """Verify what a relay keeps as one's own list; it may have expired while nobody renewed it.

    Raises:
        RemoteProtocolError: `BAD_SIGNATURE`, `MALFORMED`, `BAD_POINT` or `WRONG_ADDRESS`.
    """
    ed25519.verify(identity_key, device_list_bytes(signed), signed.signature)
    body = decode_remote(signed.body, DeviceList, limit=_MAX_BODY)
    if body.address != str(address) or body.identity_key != identity_key:
        raise RemoteProtocolError(Reason.WRONG_ADDRESS)
    _check_form(body)
    return VerifiedDeviceList(body, device_list_hash(signed))


def _check_form(body: DeviceList) -> None:
    """IDENTITY-03: one spelling of a list: ids ascending, ``previous`` exactly after version 1."""
    ids = [device.device_id for device in body.devices]
    if ids != sorted(set(ids)):
        raise RemoteProtocolError(Reason.MALFORMED)
    if len(body.previous) != (0 if body.version == 1 else 64):
        raise RemoteProtocolError(Reason.MALFORMED)
    for device in body.devices:
        x25519.check_public_key(device.dh_key)


def _check_successor(known: VerifiedDeviceList, shown: VerifiedDeviceList) -> None:
    """IDENTITY-05 and IDENTITY-06: versions only grow, and no device changes its keys."""
    step = shown.body.version - known.body.version
    forked = step == 0 and shown.hash != known.hash
    unlinked = step == 1 and shown.body.previous != known.hash
    if step < 0 or forked or unlinked:
        raise RemoteProtocolError(Reason.STALE_DEVICE_LIST)
    before = {device.device_id: device for device in known.body.devices}
    for device in shown.body.devices:
        if before.get(device.device_id, device) != device:
            raise RemoteProtocolError(Reason.STALE_DEVICE_LIST)
