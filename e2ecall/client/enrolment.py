"""A new device of an account whose identity key was imported (spec/account.md, "Enrolment").

Draws the device's keys once, stores them, and asks the relay for a place in the device list. What
else was imported is `e2ecall.client.moving`.
"""

from collections.abc import Awaitable
from typing import Annotated, Final, Protocol, Self, TypeVar

from msgspec import Meta, Struct
from msgspec.structs import replace

from e2ecall.crypto.ed25519 import Ed25519KeyPair
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import LocalProtocolError, RelayError
from e2ecall.protocol.account_export import ExportedAccount
from e2ecall.protocol.devices import VerifiedDeviceList, verify_own_list
from e2ecall.protocol.encoding import decode_stored, encode_stored, parse_stored_address
from e2ecall.protocol.identity import DeviceKeys, IdentityKey, sign_recovery, sign_register
from e2ecall.protocol.local import LocalDevice
from e2ecall.secret import Secret
from relay.wire.limits import MAX_DEVICE_ID
from relay.wire.messages import Done, Enrol, FetchOwnList, OwnList, Reply, Request
from relay.wire.names import Address
from relay.wire.records import AddressText, DeviceId, Key32

_FORMAT: Final = 1

R = TypeVar("R", bound=Reply)


class Ask(Protocol):
    """A request on the connection that the device is to be logged in on."""

    def __call__(self, body: Request, kind: type[R], /) -> Awaitable[R]:
        """Return the reply of type ``kind``, or raise the refusal."""
        ...


class Enrolment(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An identity key, and the keys of a device that the relay may not know yet, as stored."""

    format: Annotated[int, Meta(ge=_FORMAT, le=_FORMAT)]
    address: AddressText
    identity_seed: Key32
    newest_device_id: DeviceId
    list_version: Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
    signing_seed: Key32
    dh_private: Key32

    @classmethod
    def generate(cls, exported: ExportedAccount) -> Self:
        """Draw the keys of a new device."""
        keys = DeviceKeys.generate(1)
        return cls(
            _FORMAT,
            exported.address,
            exported.identity_seed,
            exported.newest_device_id,
            exported.list_version,
            keys.signing.seed.expose(),
            keys.dh.private.expose(),
        )

    def updated(self, exported: ExportedAccount) -> Self:
        """Return the same keys with what another export of this identity says."""
        return replace(
            self,
            address=exported.address,
            newest_device_id=max(self.newest_device_id, exported.newest_device_id),
            list_version=max(self.list_version, exported.list_version),
        )

    def __repr__(self) -> str:
        """Show the address alone."""
        return f"Enrolment({self.address!r})"

    @property
    def at(self) -> Address:
        """The address of the account."""
        return parse_stored_address(self.address)

    @property
    def identity(self) -> IdentityKey:
        """The identity key."""
        return IdentityKey.from_bytes(self.identity_seed)

    def keys(self, device_id: int) -> DeviceKeys:
        """Return the keys of the device under an id."""
        return DeviceKeys(
            device_id,
            Ed25519KeyPair.from_seed(Secret(self.signing_seed)),
            X25519KeyPair.from_private(Secret(self.dh_private)),
        )

    def to_bytes(self) -> bytes:
        """Return the record for the encrypted store."""
        return encode_stored(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a record of `to_bytes`.

        Raises:
            StoreError: it is none.
        """
        return decode_stored(data, cls)


async def enrol(enrolment: Enrolment, ask: Ask, *, challenge: bytes, now: float) -> LocalDevice:
    """Get the device into the account's list at the relay and log it in; may be repeated.

    Raises:
        RelayError: refused, or the relay shows a list that is older than the export.
        RemoteProtocolError: what it shows is not this account's list.
        ConnectionFailedError: nobody knows; the next attempt finds out.
    """
    identity, address = enrolment.identity, enrolment.at
    signature = sign_recovery(
        identity, relay=address.relay, challenge=challenge, username=address.username
    )
    reply = await ask(FetchOwnList(address.username, signature), OwnList)
    stored = verify_own_list(reply.device_list, identity.public, address=address)
    if stored.body.version < enrolment.list_version:
        raise RelayError(
            "the relay shows an older device list than the one that was exported",
            hint="ask its operator whether a backup was restored",
        )
    local = _already(enrolment, stored, reply)
    if local is None:
        device_id = _next_id(enrolment, stored, reply.newest_device_id)
        local = LocalDevice.enrolled(address, identity, enrolment.keys(device_id), stored, now=now)
    signature = sign_register(
        identity, relay=address.relay, challenge=challenge, device_list=local.device_list
    )
    await ask(Enrol(address.username, local.device_list, signature), Done)
    return local


def _already(
    enrolment: Enrolment, stored: VerifiedDeviceList, reply: OwnList
) -> LocalDevice | None:
    """Return the device if the relay has it: an earlier attempt whose answer was lost."""
    for device in stored.body.devices:
        keys = enrolment.keys(device.device_id)
        if keys.public == device:
            return LocalDevice(enrolment.at, enrolment.identity, keys, reply.device_list)
    return None


def _next_id(enrolment: Enrolment, stored: VerifiedDeviceList, newest: int) -> int:
    """ACCOUNT-06: an id above every one that anybody knows of; ids are never reused."""
    known = [device.device_id for device in stored.body.devices]
    device_id = max(newest, enrolment.newest_device_id, *known) + 1
    if device_id > MAX_DEVICE_ID:
        raise LocalProtocolError("this account has used up its device ids")
    return device_id
