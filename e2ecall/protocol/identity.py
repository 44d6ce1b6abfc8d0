"""Identity and device keys and what they sign alone (spec/identity.md).

The identity key is the root of trust of an account; each device has a signing and a DH key.
Device lists are `e2ecall.protocol.devices`; nothing here decides whom to trust.
"""

from dataclasses import dataclass
from typing import Final, Self

from e2ecall.crypto.ed25519 import Ed25519KeyPair, verify
from e2ecall.crypto.kdf import labelled_hash
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.encoding import decode_remote
from e2ecall.secret import Secret
from relay.wire.names import Address
from relay.wire.records import (
    Device,
    SenderCertificate,
    SignedDeviceList,
    SignedSenderCertificate,
    login_bytes,
    recovery_bytes,
    register_bytes,
    sender_certificate_bytes,
)

_MAX_CERTIFICATE: Final = 512


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """The account's Ed25519 key pair."""

    keys: Ed25519KeyPair

    @classmethod
    def generate(cls) -> Self:
        """Draw a fresh identity."""
        return cls(Ed25519KeyPair.generate())

    @property
    def public(self) -> bytes:
        """The 32-byte public identity key."""
        return self.keys.public

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of labelled bytes."""
        return self.keys.sign(message)

    def to_bytes(self) -> bytes:
        """Return the 32-byte seed, for the encrypted store."""
        return self.keys.seed.expose()

    @classmethod
    def from_bytes(cls, seed: bytes) -> Self:
        """Restore a stored identity."""
        return cls(Ed25519KeyPair.from_seed(Secret(seed)))


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """One device: Ed25519 signing key pair and X25519 identity DH key pair."""

    device_id: int
    signing: Ed25519KeyPair
    dh: X25519KeyPair

    @classmethod
    def generate(cls, device_id: int) -> Self:
        """Draw fresh keys for a device; ids are never reused in an account."""
        return cls(device_id, Ed25519KeyPair.generate(), X25519KeyPair.generate())

    @property
    def public(self) -> Device:
        """The entry of this device in the device list."""
        return Device(self.device_id, self.signing.public, self.dh.public)


def sign_login(device: DeviceKeys, *, relay: str, challenge: bytes, username: str) -> bytes:
    """Return the device's signature that logs one connection in at ``relay``.

    IDENTITY-08: the relay's name and the connection's challenge are signed, so that no other
    relay and no other connection can use it.
    """
    return device.signing.sign(login_bytes(relay, challenge, username, device.device_id))


def sign_register(
    identity: IdentityKey, *, relay: str, challenge: bytes, device_list: SignedDeviceList
) -> bytes:
    """Return the identity key's signature that creates the account at ``relay``."""
    return identity.sign(register_bytes(relay, challenge, device_list))


def sign_recovery(identity: IdentityKey, *, relay: str, challenge: bytes, username: str) -> bytes:
    """Return the identity key's signature that shows its account's device list (WIRE-17)."""
    return identity.sign(recovery_bytes(relay, challenge, username))


def verify_sender_certificate(
    signed: SignedSenderCertificate, relay_key: bytes, *, now: float
) -> SenderCertificate:
    """Return the certificate if ``relay_key`` signed it and it has not expired.

    That it speaks of the sender at hand is the caller's to compare (IDENTITY-09).

    Raises:
        RemoteProtocolError: `Reason.BAD_SIGNATURE`, `MALFORMED` or `EXPIRED`.
    """
    verify(relay_key, sender_certificate_bytes(signed), signed.signature)
    certificate = decode_remote(signed.body, SenderCertificate, limit=_MAX_CERTIFICATE)
    if certificate.expires <= now:
        raise RemoteProtocolError(Reason.EXPIRED)
    return certificate


def fingerprint(address: Address, identity_key: bytes) -> bytes:
    """Return the 64-byte hash that stands for an identity in safety numbers and invitations."""
    return labelled_hash("identity fingerprint", str(address).encode(), identity_key)
