"""The local device: everything this installation is (spec/identity.md, "Local device").

Identity, device keys, the signed device list with the hashes of its predecessors, and the
current sender certificate. Prekeys and sessions have their own records.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Final, Self

from msgspec import Meta, Struct

from e2ecall.crypto.ed25519 import SIGNATURE_BYTES, Ed25519KeyPair
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.protocol.devices import (
    DEVICE_LIST_LIFETIME,
    VerifiedDeviceList,
    sign_device_list,
)
from e2ecall.protocol.encoding import decode_stored, parse_stored_address
from e2ecall.protocol.identity import DeviceKeys, IdentityKey
from e2ecall.secret import Secret
from relay.wire.codec import decode, encode
from relay.wire.names import Address
from relay.wire.records import (
    AddressText,
    DeviceId,
    DeviceList,
    Hash64,
    Key32,
    SignedDeviceList,
    SignedSenderCertificate,
    device_list_hash,
)

RENEW_BEFORE: Final = 16 * 86_400
"""Seconds of life left at which a list is renewed: a first message may wait 14 days at a relay,
and the device list in it has to be valid when it is read."""

_CLOCK_ERROR: Final = 86_400
"""Seconds by which a clock may be wrong: a relay takes what was signed by it."""

_MAX_PREVIOUS: Final = 8
"""Own list versions that an initiator may still have seen. They are at least two days apart, so
that 8 of them outlast a bundle that was used for a day and an envelope that waited 14."""


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[format, address, identity, device_id, signing, dh, list, certificate|nil, previous]``."""

    format: Annotated[int, Meta(ge=1, le=1)]
    address: AddressText
    identity_seed: Key32
    device_id: DeviceId
    signing_seed: Key32
    dh_private: Key32
    device_list: SignedDeviceList
    certificate: SignedSenderCertificate | None
    previous: Annotated[tuple[Hash64, ...], Meta(max_length=_MAX_PREVIOUS)]


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """This installation's account and device; immutable, renewed by `renewed`."""

    address: Address
    identity: IdentityKey
    keys: DeviceKeys
    device_list: SignedDeviceList
    certificate: SignedSenderCertificate | None = None
    previous_lists: tuple[bytes, ...] = ()

    @classmethod
    def generate(cls, address: Address, *, now: float, device_id: int = 1) -> Self:
        """Draw a new account with one device and sign its first device list."""
        unsigned = SignedDeviceList(b"", bytes(SIGNATURE_BYTES))
        device = cls(address, IdentityKey.generate(), DeviceKeys.generate(device_id), unsigned)
        return device.begun_anew(now)

    @property
    def verified_list(self) -> VerifiedDeviceList:
        """The own device list in the form in which a peer's is used."""
        body = decode(self.device_list.body, DeviceList, limit=len(self.device_list.body))
        return VerifiedDeviceList(body, device_list_hash(self.device_list))

    def owns_list(self, list_hash: bytes) -> bool:
        """Tell whether a hash names this account's current list or a recent one."""
        return list_hash in (device_list_hash(self.device_list), *self.previous_lists)

    def needs_renewal(self, now: float) -> bool:
        """Tell whether the device list should be renewed and published."""
        return self.verified_list.body.expires - now < RENEW_BEFORE

    def is_expired(self, now: float) -> bool:
        """Tell whether nobody takes the list any more."""
        return self.verified_list.body.expires <= now

    def is_ahead(self, now: float) -> bool:
        """IDENTITY-19: tell whether the list was signed when the clock was over a day ahead."""
        return self.verified_list.body.expires > now + DEVICE_LIST_LIFETIME + _CLOCK_ERROR

    def begun_anew(self, now: float) -> Self:
        """Return this device with its first list signed anew, where no relay has taken that yet."""
        device_list = sign_device_list(
            self.identity,
            address=self.address,
            version=1,
            previous=b"",
            devices=(self.keys.public,),
            expires=int(now) + DEVICE_LIST_LIFETIME,
        )
        return replace(self, device_list=device_list)

    def renewed(self, now: float) -> Self:
        """Return this device with the next version of its list, valid for 18 days from now."""
        current = self.verified_list
        device_list = sign_device_list(
            self.identity,
            address=self.address,
            version=current.body.version + 1,
            previous=current.hash,
            devices=current.body.devices,
            expires=int(now) + DEVICE_LIST_LIFETIME,
        )
        previous = (current.hash, *self.previous_lists)[:_MAX_PREVIOUS]
        return replace(self, device_list=device_list, previous_lists=previous)

    @classmethod
    def enrolled(
        cls,
        address: Address,
        identity: IdentityKey,
        keys: DeviceKeys,
        stored: VerifiedDeviceList,
        *,
        now: float,
    ) -> Self:
        """Return a new device of an account whose newest list is ``stored``, as its only one.

        ACCOUNT-06: the devices before it are lost, or given up with this.
        """
        device_list = sign_device_list(
            identity,
            address=address,
            version=stored.body.version + 1,
            previous=stored.hash,
            devices=(keys.public,),
            expires=int(now) + DEVICE_LIST_LIFETIME,
        )
        return cls(address, identity, keys, device_list)

    def with_certificate(self, certificate: SignedSenderCertificate) -> Self:
        """Return this device with the certificate that its relay issued."""
        return replace(self, certificate=certificate)

    def to_bytes(self) -> bytes:
        """Return the record for the encrypted store."""
        return encode(
            _Stored(
                format=1,
                address=str(self.address),
                identity_seed=self.identity.to_bytes(),
                device_id=self.keys.device_id,
                signing_seed=self.keys.signing.seed.expose(),
                dh_private=self.keys.dh.private.expose(),
                device_list=self.device_list,
                certificate=self.certificate,
                previous=self.previous_lists,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a record of `to_bytes`.

        Raises:
            StoreError: it is none.
        """
        stored = decode_stored(data, _Stored)
        keys = DeviceKeys(
            stored.device_id,
            Ed25519KeyPair.from_seed(Secret(stored.signing_seed)),
            X25519KeyPair.from_private(Secret(stored.dh_private)),
        )
        return cls(
            parse_stored_address(stored.address),
            IdentityKey.from_bytes(stored.identity_seed),
            keys,
            stored.device_list,
            stored.certificate,
            stored.previous,
        )
