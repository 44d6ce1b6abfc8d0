"""Signed public records (spec/identity.md, spec/prekeys.md): what the directory holds and serves.

Structs and the exact bytes that are signed. It verifies nothing: the client does that in
`e2ecall.protocol`, the relay in `relay.services`.
"""

import hashlib
from enum import IntEnum, unique
from typing import Annotated

from msgspec import Meta, Struct

from relay.wire.codec import encode
from relay.wire.labels import labelled
from relay.wire.limits import MAX_DEVICE_ID, MAX_DEVICES, MAX_KEY_ID

Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Hash64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
AddressText = Annotated[str, Meta(min_length=5, max_length=288)]
DeviceId = Annotated[int, Meta(ge=1, le=MAX_DEVICE_ID)]
KeyId = Annotated[int, Meta(ge=1, le=MAX_KEY_ID)]
UnixSeconds = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF_FFFF)]


class Device(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One device's public keys: ``[device_id, Ed25519 signing key, X25519 identity DH key]``."""

    device_id: DeviceId
    signing_key: Key32
    dh_key: Key32


class DeviceList(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The devices of an account: ``[address, identity_key, version, previous, devices, expires]``.

    ``previous`` is the hash of the list before (`device_list_hash`), empty at version 1.
    """

    address: AddressText
    identity_key: Key32
    version: Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
    previous: Annotated[bytes, Meta(max_length=64)]
    devices: Annotated[tuple[Device, ...], Meta(min_length=1, max_length=MAX_DEVICES)]
    expires: UnixSeconds


class SignedDeviceList(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[encoded DeviceList, signature by its identity key over signed_device_list_bytes]``."""

    body: Annotated[bytes, Meta(max_length=2048)]
    signature: Signature


class SenderCertificate(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a relay attests to who logged in: ``[address, identity_key, expires]``."""

    address: AddressText
    identity_key: Key32
    expires: UnixSeconds


class SignedSenderCertificate(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[encoded SenderCertificate, signature by the relay's key over its labelled bytes]``."""

    body: Annotated[bytes, Meta(max_length=512)]
    signature: Signature


@unique
class PreKeyKind(IntEnum):
    """What a prekey is for; the number is signed, so no key can stand in for another kind."""

    SIGNED_X25519 = 1
    SEALING = 2
    ONE_TIME_X25519 = 3
    ONE_TIME_MLKEM1024 = 4
    LAST_RESORT_MLKEM1024 = 5


PREKEY_BYTES = {
    PreKeyKind.SIGNED_X25519: 32,
    PreKeyKind.SEALING: 1216,  # ML-KEM-768 encapsulation key || X25519 public key
    PreKeyKind.ONE_TIME_X25519: 32,
    PreKeyKind.ONE_TIME_MLKEM1024: 1568,
    PreKeyKind.LAST_RESORT_MLKEM1024: 1568,
}


class PreKey(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[kind, key_id, expires, key, signature by the device's signing key]``.

    Address and device are signed too (`prekey_bytes`) but known from the context.
    """

    kind: PreKeyKind
    key_id: KeyId
    expires: UnixSeconds
    key: Annotated[bytes, Meta(min_length=32, max_length=1568)]
    signature: Signature


class PreKeyBundle(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What an initiator fetches for one device.

    ``[device_list, device_id, signed_prekey, sealing_key, kem_prekey, one_time_prekey or nil]``;
    ``kem_prekey`` is one-time or, when none is left, last-resort: its kind says which.
    """

    device_list: SignedDeviceList
    device_id: DeviceId
    signed_prekey: PreKey
    sealing_key: PreKey
    kem_prekey: PreKey
    one_time_prekey: PreKey | None


def device_list_bytes(signed: SignedDeviceList) -> bytes:
    """Return what the identity key signs."""
    return labelled("device list", signed.body)


def device_list_hash(signed: SignedDeviceList) -> bytes:
    """Return the 64 bytes by which the next version, the handshake and the relay name a list."""
    return hashlib.sha512(labelled("device list hash", signed.body)).digest()


def sender_certificate_bytes(signed: SignedSenderCertificate) -> bytes:
    """Return what the relay's key signs."""
    return labelled("sender certificate", signed.body)


def prekey_bytes(address: str, device_id: int, prekey: PreKey) -> bytes:
    """Return what the device's signing key signs."""
    body = [address, device_id, prekey.kind, prekey.key_id, prekey.expires, prekey.key]
    return labelled("prekey", encode(body))


def endpoint_hash(certificate: bytes) -> bytes:
    """Return the 32 bytes that stand for the end of a TLS channel: SHA-256 of the certificate."""
    return hashlib.sha256(certificate).digest()


def bound_challenge(challenge: bytes, endpoint: bytes | None) -> bytes:
    """Return what is signed in place of the challenge; ``endpoint`` is None without a binding."""
    if endpoint is None:
        return challenge
    return hashlib.sha256(labelled("channel", challenge, endpoint)).digest()


def login_bytes(relay: str, challenge: bytes, username: str, device_id: int) -> bytes:
    """Return what a device signs to log in: the relay's name and the bound challenge."""
    return labelled("login", encode([relay, challenge, username, device_id]))


def recovery_bytes(relay: str, challenge: bytes, username: str) -> bytes:
    """Return what the identity key signs to see its account's device list."""
    return labelled("own device list", encode([relay, challenge, username]))


def register_bytes(relay: str, challenge: bytes, device_list: SignedDeviceList) -> bytes:
    """Return what the identity key signs to register an account, or to enrol a device."""
    return labelled("register", encode([relay, challenge, device_list.body]))


def deletion_bytes(relay: str, challenge: bytes, device_list: SignedDeviceList) -> bytes:
    """Return what the identity key signs to delete its account."""
    return labelled("delete account", encode([relay, challenge, device_list.body]))
