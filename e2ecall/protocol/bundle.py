"""Verifying a peer's prekeys (spec/prekeys.md): a bundle becomes usable only here.

Each prekey is checked for its slot, signature, expiry and the key itself. Fetching bundles is
the client's work, using them `e2ecall.protocol.pqxdh`'s.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

from e2ecall.crypto import ed25519, hpke, mlkem, x25519
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.devices import VerifiedDeviceList, verify_device_list
from relay.wire.names import Address
from relay.wire.records import (
    PREKEY_BYTES,
    Device,
    PreKey,
    PreKeyBundle,
    PreKeyKind,
    prekey_bytes,
)

_SIGNED: Final = frozenset({PreKeyKind.SIGNED_X25519})
_SEALING: Final = frozenset({PreKeyKind.SEALING})
_ONE_TIME: Final = frozenset({PreKeyKind.ONE_TIME_X25519})
_KEM: Final = frozenset({PreKeyKind.ONE_TIME_MLKEM1024, PreKeyKind.LAST_RESORT_MLKEM1024})

_CHECK: Final[Mapping[PreKeyKind, Callable[[bytes], None]]] = {
    PreKeyKind.SIGNED_X25519: x25519.check_public_key,
    PreKeyKind.SEALING: hpke.check_public_key,
    PreKeyKind.ONE_TIME_X25519: x25519.check_public_key,
    PreKeyKind.ONE_TIME_MLKEM1024: mlkem.MLKEM1024.check_public_key,
    PreKeyKind.LAST_RESORT_MLKEM1024: mlkem.MLKEM1024.check_public_key,
}


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle whose every part was checked; ``one_time_prekey`` is None when none was left."""

    address: Address
    device_list: VerifiedDeviceList
    device: Device
    signed_prekey: PreKey
    sealing_key: PreKey
    kem_prekey: PreKey
    one_time_prekey: PreKey | None


def verify_bundle(
    bundle: PreKeyBundle, *, address: Address, now: float, known: VerifiedDeviceList | None
) -> VerifiedBundle:
    """Verify what a relay served as the bundle of ``address``.

    Raises:
        IdentityChangedError: it belongs to another identity key than ``known``.
        RemoteProtocolError: any part is not what it has to be; see `verify_device_list` and
            `verify_prekey`.
    """
    one_time = bundle.one_time_prekey
    device_list = verify_device_list(
        bundle.device_list,
        address=address,
        now=now,
        known=known,
        next_keys=[
            bundle.signed_prekey.key,
            hpke.x25519_half(bundle.sealing_key.key),
            *([] if one_time is None else [one_time.key]),
        ],
    )
    device = device_list.device(bundle.device_id)

    def checked(prekey: PreKey, kinds: Container[PreKeyKind]) -> PreKey:
        return verify_prekey(prekey, kinds=kinds, address=address, device=device, now=now)

    return VerifiedBundle(
        address,
        device_list,
        device,
        checked(bundle.signed_prekey, _SIGNED),
        checked(bundle.sealing_key, _SEALING),
        checked(bundle.kem_prekey, _KEM),
        None if one_time is None else checked(one_time, _ONE_TIME),
    )


def verify_sealing_key(prekey: PreKey, *, address: Address, device: Device, now: float) -> PreKey:
    """Return a sealing key that arrived outside a bundle; raises as `verify_prekey` does."""
    return verify_prekey(prekey, kinds=_SEALING, address=address, device=device, now=now)


def verify_prekey(
    prekey: PreKey,
    *,
    kinds: Container[PreKeyKind],
    address: Address,
    device: Device,
    now: float,
) -> PreKey:
    """Return ``prekey`` if it is one of ``kinds``, signed by ``device``, in date, and a valid key.

    Raises:
        RemoteProtocolError: `MALFORMED` (kind or length), `BAD_SIGNATURE`, `EXPIRED`,
            `BAD_POINT` or `BAD_KEM_KEY`.
    """
    # PREKEYS-02: kind, id, address and device are signed, so no key can stand in for another.
    if prekey.kind not in kinds or len(prekey.key) != PREKEY_BYTES[prekey.kind]:
        raise RemoteProtocolError(Reason.MALFORMED)
    message = prekey_bytes(str(address), device.device_id, prekey)
    ed25519.verify(device.signing_key, message, prekey.signature)
    if prekey.expires <= now:
        raise RemoteProtocolError(Reason.EXPIRED)
    _CHECK[prekey.kind](prekey.key)
    return prekey
