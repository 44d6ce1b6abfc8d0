"""Accounts, devices, records and prekeys that the vectors share (spec/identity.md, prekeys.md).

All private keys are drawn from names.
"""

from dataclasses import dataclass

from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.primitives import (
    H,
    dh_key,
    draw,
    kem_key,
    labelled,
    sign,
    sign_key,
)

NOW = 1_800_000_000
"""The time at which vectors happen, in Unix seconds."""

DAY = 86_400
EXPIRES = NOW + 18 * DAY


@dataclass(frozen=True)
class Device:
    """A device's private keys."""

    device_id: int
    signing_seed: bytes
    dh_private: bytes

    @classmethod
    def named(cls, name: str, device_id: int) -> "Device":
        """Draw a device."""
        return cls(device_id, draw(f"{name} signing {device_id}"), draw(f"{name} dh {device_id}"))

    @property
    def entry(self) -> list[Value]:
        """``[device_id, signing_key, dh_key]``."""
        return [self.device_id, sign_key(self.signing_seed), dh_key(self.dh_private)]


@dataclass(frozen=True)
class Account:
    """An identity with one or more devices."""

    username: str
    relay: str
    identity_seed: bytes
    devices: tuple[Device, ...]

    @classmethod
    def named(cls, username: str, relay: str, device_ids: tuple[int, ...] = (1,)) -> "Account":
        """Draw an account."""
        devices = tuple(Device.named(username, device_id) for device_id in device_ids)
        return cls(username, relay, draw(f"{username} identity"), devices)

    @property
    def address(self) -> str:
        """``username@relay``."""
        return f"{self.username}@{self.relay}"

    @property
    def identity_key(self) -> bytes:
        """The public identity key."""
        return sign_key(self.identity_seed)

    def body(self, **changes: Value) -> bytes:
        """Return an encoded DeviceList: version 1 with all devices, but for the changes."""
        fields: dict[str, Value] = {
            "address": self.address,
            "identity_key": self.identity_key,
            "version": 1,
            "previous": b"",
            "devices": [device.entry for device in self.devices],
            "expires": EXPIRES,
        }
        return enc(list((fields | changes).values()))

    def signed_list(self, body: bytes | None = None) -> list[Value]:
        """Return SignedDeviceList of an encoded body."""
        body = self.body() if body is None else body
        return [body, sign(self.identity_seed, labelled("device list", body))]

    @property
    def list_hash(self) -> bytes:
        """The hash of version 1 of the list."""
        return list_hash(self.body())


def list_hash(body: bytes) -> bytes:
    """Return the hash that names a device list."""
    return H("device list hash", body)


def certificate(
    relay_seed: bytes, address: str, identity_key: bytes, expires: int = NOW + DAY
) -> list[Value]:
    """Return SignedSenderCertificate."""
    body = enc([address, identity_key, expires])
    return [body, sign(relay_seed, labelled("sender certificate", body))]


@dataclass(frozen=True)
class Prekey:
    """A prekey with its private key."""

    kind: int
    key_id: int
    private: bytes
    expires: int = EXPIRES

    @classmethod
    def named(cls, name: str, kind: int, key_id: int) -> "Prekey":
        """Draw a prekey of a kind."""
        length = {1: 32, 2: 96, 3: 32, 4: 64, 5: 64}[kind]
        return cls(kind, key_id, draw(f"{name} prekey {kind} {key_id}", length))

    @property
    def key(self) -> bytes:
        """The public key."""
        if self.kind in (1, 3):
            return dh_key(self.private)
        if self.kind == 2:
            return kem_key(768, self.private[:64]) + dh_key(self.private[64:])
        return kem_key(1024, self.private)

    def record(self, address: str, device: Device, **changes: Value) -> list[Value]:
        """Return PreKey, signed by the device over what ``changes`` makes of it."""
        fields: dict[str, Value] = {
            "kind": self.kind,
            "key_id": self.key_id,
            "expires": self.expires,
            "key": self.key,
        }
        values = list((fields | changes).values())
        message = labelled("prekey", enc([address, device.device_id, *values]))
        return [*values, sign(device.signing_seed, message)]


RELAY = "relay.example"
ALICE = Account.named("alice", RELAY)
BOB = Account.named("bob", RELAY, (1, 7))
CAROL = Account.named("carol", "127.0.0.1:4567", (65_535,))
RELAY_SEED = draw("relay key")
