"""The local device's prekeys (spec/prekeys.md): making, rotating, consuming, forgetting.

`PreKeyState` is immutable and holds private keys only; what is published leaves `maintain` as
signed records. It does not verify a peer's prekeys: that is `e2ecall.protocol.bundle`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from e2ecall.crypto.ed25519 import SIGNATURE_BYTES
from e2ecall.crypto.hpke import SealingKeyPair
from e2ecall.crypto.mlkem import MLKEM1024
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.local import LocalDevice
from e2ecall.secret import Secret
from relay.wire.codec import encode
from relay.wire.limits import MAX_BUNDLE_FIELDS, MAX_PREKEY_BATCH
from relay.wire.messages import PrekeyCounts
from relay.wire.records import PreKey, PreKeyKind, prekey_bytes

DAY: Final = 86_400
ROTATE_AFTER: Final = 2 * DAY
KEEP_RETIRED: Final = 16 * DAY
"""After its two days a key is kept this long: envelopes wait 14 days, clocks differ."""

LIFETIME: Final = ROTATE_AFTER + KEEP_RETIRED
"""Signed expiry of a rotated key, from its making."""

ONE_TIME_LIFETIME: Final = 180 * DAY
ONE_TIME_TARGET: Final = 100
REFILL_BELOW: Final = 25
MAX_ONE_TIME: Final = 400
"""One-time keys of a kind that are kept, served or not: whoever fetches bundles in a loop makes
us forget the oldest, which were served longest ago."""

ONE_TIME_KEPT: Final = ONE_TIME_LIFETIME + KEEP_RETIRED
"""Seconds from its making after which no message can come that uses a one-time key."""

MAX_USED_EPHEMERALS: Final = 1024
"""Initial messages that one signed prekey admits; at half of that it is rotated early."""

MAX_UNPROVEN_EPHEMERALS: Final = 256
"""Those of them from senders whose name nobody vouches for: such names cost nothing, and must not
use up what admits the others."""

ROTATE_CROWDED_AFTER: Final = DAY
"""Seconds that a crowded key stays current all the same: this bounds how many keys are kept."""

MAX_KEPT: Final = 20
"""Keys of one rotated kind, 18 days at one a day and some more, that the clock cannot exceed."""

_BATCH_FRAMING: Final = 64
_ROTATED: Final = (
    PreKeyKind.SIGNED_X25519,
    PreKeyKind.SEALING,
    PreKeyKind.LAST_RESORT_MLKEM1024,
)


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """A private key that serves many: times in Unix seconds, ``retired`` is 0 while current."""

    kind: PreKeyKind
    key_id: int
    created: int
    retired: int
    private: Secret
    used_ephemerals: frozenset[bytes] = frozenset()
    """Of a signed prekey: EKs of the initial messages accepted under it."""
    unproven: int = 0
    """How many of those were of unproven senders."""


@dataclass(frozen=True, slots=True)
class Refill:
    """One-time keys from ``first_key_id`` on were made at ``created``, in Unix seconds."""

    first_key_id: int
    created: int


@dataclass(frozen=True, slots=True)
class PreKeyState:
    """All private prekeys. One-time keys map key id to private key, oldest first."""

    next_key_id: int
    rotated: tuple[RotatedKey, ...]
    one_time_x25519: Mapping[int, Secret]
    one_time_mlkem1024: Mapping[int, Secret]
    sealing_key: PreKey
    """The current sealing key as published: it travels to peers inside messages too."""
    refills: tuple[Refill, ...] = ()
    """When the one-time keys were made, oldest first."""

    def find(self, kind: PreKeyKind, key_id: int) -> RotatedKey:
        """Return a rotated key, current or kept.

        Raises:
            RemoteProtocolError: `Reason.UNKNOWN_KEY`.
        """
        for key in self.rotated:
            if key.kind is kind and key.key_id == key_id:
                return key
        raise RemoteProtocolError(Reason.UNKNOWN_KEY)

    def sealing_keys(self) -> tuple[RotatedKey, ...]:
        """Return all sealing keys that may still open an envelope, newest first."""
        keys = (key for key in self.rotated if key.kind is PreKeyKind.SEALING)
        return tuple(sorted(keys, key=lambda key: -key.key_id))

    def one_time_key(self, key_id: int) -> Secret:
        """Return a one-time X25519 private key.

        Raises:
            RemoteProtocolError: `Reason.UNKNOWN_KEY`: never made, used, or forgotten.
        """
        private = self.one_time_x25519.get(key_id)
        if private is None:
            raise RemoteProtocolError(Reason.UNKNOWN_KEY)
        return private

    def kem_key(self, key_id: int) -> tuple[PreKeyKind, Secret]:
        """Return kind and seed of a one-time or last-resort ML-KEM-1024 key.

        Raises:
            RemoteProtocolError: `Reason.UNKNOWN_KEY`.
        """
        seed = self.one_time_mlkem1024.get(key_id)
        if seed is not None:
            return PreKeyKind.ONE_TIME_MLKEM1024, seed
        last_resort = PreKeyKind.LAST_RESORT_MLKEM1024
        return last_resort, self.find(last_resort, key_id).private

    def check_ephemeral(
        self, signed_prekey_id: int, ephemeral: bytes, *, proven: bool = True
    ) -> None:
        """PQXDH-06, PREKEYS-09: one EK makes at most one session; of unproven senders fewer.

        Raises:
            RemoteProtocolError: `REPLAYED`; `UNKNOWN_KEY` once the signed prekey is gone;
                `LIMIT` when it has admitted as many as are remembered.
        """
        key = self.find(PreKeyKind.SIGNED_X25519, signed_prekey_id)
        if ephemeral in key.used_ephemerals:
            raise RemoteProtocolError(Reason.REPLAYED)
        crowded = len(key.used_ephemerals) >= MAX_USED_EPHEMERALS
        if crowded or (not proven and key.unproven >= MAX_UNPROVEN_EPHEMERALS):
            raise RemoteProtocolError(Reason.LIMIT)

    def consumed(
        self,
        signed_prekey_id: int,
        ephemeral: bytes,
        *,
        one_time_id: int | None,
        kem_id: int,
        proven: bool = True,
    ) -> "PreKeyState":
        """Return the state after a handshake: one-time keys gone, its EK remembered."""
        rotated = tuple(
            replace(
                key,
                used_ephemerals=key.used_ephemerals | {ephemeral},
                unproven=key.unproven + (not proven),
            )
            if key.kind is PreKeyKind.SIGNED_X25519 and key.key_id == signed_prekey_id
            else key
            for key in self.rotated
        )
        return replace(
            self,
            rotated=rotated,
            one_time_x25519=_without(self.one_time_x25519, one_time_id),
            one_time_mlkem1024=_without(self.one_time_mlkem1024, kem_id),
        )


def generate(local: LocalDevice, *, now: float) -> tuple[PreKeyState, tuple[PreKey, ...]]:
    """Draw a new device's prekeys; return them and what is to be published."""
    maker = _Maker(local, int(now), 1)
    rotated, sealing_key = maker.rotated_keys()
    state = PreKeyState(1, rotated, {}, {}, sealing_key)
    return _refilled(state, maker, PrekeyCounts(0, 0))


def maintain(
    state: PreKeyState, local: LocalDevice, counts: PrekeyCounts | None, *, now: float
) -> tuple[PreKeyState, tuple[PreKey, ...]]:
    """Rotate, refill and forget; return the new state and what is to be published.

    ``counts`` is what the relay still holds, None where that is not known: then nothing is
    refilled. Store the state before publishing. Fresh keys are drawn as needed.
    """
    moment = int(now)
    state = without_expired(state, now=now)
    maker = _Maker(local, moment, state.next_key_id)
    # PREKEYS-13: what the clock was ahead by must not keep keys current for as long.
    kept = [replace(key, created=min(key.created, moment)) for key in state.rotated]
    sealing_key = state.sealing_key
    if any(_is_due(key, moment) for key in kept if not key.retired):
        # PREKEYS-04: a retired key lives on for what was sealed or begun with it.
        kept = [replace(key, retired=key.retired or moment) for key in kept]
        fresh, sealing_key = maker.rotated_keys()
        kept.extend(fresh)
    state = replace(state, rotated=_newest(kept), sealing_key=sealing_key)
    if counts is None:
        counts = PrekeyCounts(ONE_TIME_TARGET, ONE_TIME_TARGET)
    return _refilled(state, maker, counts)


def without_expired(state: PreKeyState, *, now: float) -> PreKeyState:
    """Return the state without private keys whose time is over; needs nothing of a relay."""
    moment = int(now)
    state = _without_old(state, moment)
    kept = [key for key in state.rotated if not key.retired or moment < key.retired + KEEP_RETIRED]
    return replace(state, rotated=tuple(kept))


def are_ahead(published: Iterable[PreKey], *, now: float) -> bool:
    """PREKEYS-13: tell whether some of these were made when the clock was over a day ahead."""
    return any(
        prekey.expires > now + DAY + (LIFETIME if prekey.kind in _ROTATED else ONE_TIME_LIFETIME)
        for prekey in published
    )


def batches(prekeys: Iterable[PreKey]) -> list[tuple[PreKey, ...]]:
    """Split prekeys into tuples that each fit one PublishPrekeys request (under 48 KiB)."""
    result: list[tuple[PreKey, ...]] = []
    batch: list[PreKey] = []
    size = _BATCH_FRAMING
    for prekey in prekeys:
        length = len(encode(prekey))
        if batch and (size + length > MAX_PREKEY_BATCH or len(batch) == MAX_BUNDLE_FIELDS):
            result.append(tuple(batch))
            batch, size = [], _BATCH_FRAMING
        batch.append(prekey)
        size += length
    if batch:
        result.append(tuple(batch))
    return result


def sign_prekey(
    local: LocalDevice, kind: PreKeyKind, key_id: int, *, expires: int, key: bytes
) -> PreKey:
    """Return the published record of a prekey, signed by the device."""
    unsigned = PreKey(kind, key_id, expires, key, bytes(SIGNATURE_BYTES))
    message = prekey_bytes(str(local.address), local.keys.device_id, unsigned)
    return PreKey(kind, key_id, expires, key, local.keys.signing.sign(message))


class _Maker:
    """Draws keys under ascending ids and collects what is to be published."""

    def __init__(self, local: LocalDevice, now: int, next_key_id: int) -> None:
        self._local = local
        self.now = now
        self.next_key_id = next_key_id
        self.published: list[PreKey] = []

    def make(self, kind: PreKeyKind, lifetime: int) -> tuple[int, Secret]:
        """Draw one key, sign it, and return its id and private key."""
        private, public = _generate_key(kind)
        key_id = self.next_key_id
        self.next_key_id += 1
        expires = self.now + lifetime
        self.published.append(sign_prekey(self._local, kind, key_id, expires=expires, key=public))
        return key_id, private

    def rotated_keys(self) -> tuple[tuple[RotatedKey, ...], PreKey]:
        """Draw one key of each rotated kind; return them and the published sealing key."""
        keys = []
        for kind in _ROTATED:
            key_id, private = self.make(kind, LIFETIME)
            keys.append(RotatedKey(kind, key_id, self.now, 0, private))
        sealing = next(key for key in self.published if key.kind is PreKeyKind.SEALING)
        return tuple(keys), sealing

    def refill(
        self, keys: Mapping[int, Secret], kind: PreKeyKind, count: int
    ) -> Mapping[int, Secret]:
        """Return ``keys`` with as many fresh ones as bring the relay's ``count`` to the target."""
        if count >= REFILL_BELOW:
            return keys
        refilled = dict(keys)
        for _ in range(ONE_TIME_TARGET - count):
            key_id, private = self.make(kind, ONE_TIME_LIFETIME)
            refilled[key_id] = private
        # PREKEYS-07: bounded, the oldest go first.
        return dict(list(refilled.items())[-MAX_ONE_TIME:])


def _refilled(
    state: PreKeyState, maker: _Maker, counts: PrekeyCounts
) -> tuple[PreKeyState, tuple[PreKey, ...]]:
    refill = Refill(maker.next_key_id, maker.now)
    x25519 = maker.refill(state.one_time_x25519, PreKeyKind.ONE_TIME_X25519, counts.x25519)
    mlkem = maker.refill(state.one_time_mlkem1024, PreKeyKind.ONE_TIME_MLKEM1024, counts.mlkem1024)
    drew = maker.next_key_id > refill.first_key_id
    state = replace(
        state,
        next_key_id=maker.next_key_id,
        one_time_x25519=x25519,
        one_time_mlkem1024=mlkem,
        refills=(*state.refills, refill) if drew else state.refills,
    )
    return state, tuple(maker.published)


def _newest(keys: Sequence[RotatedKey]) -> tuple[RotatedKey, ...]:
    """PREKEYS-04: keep at most `MAX_KEPT` of each kind; ``keys`` come oldest first."""
    by_kind = {kind: [key for key in keys if key.kind is kind] for kind in _ROTATED}
    return tuple(key for kept in by_kind.values() for key in kept[-MAX_KEPT:])


def _without_old(state: PreKeyState, now: int) -> PreKeyState:
    """PREKEYS-10: forget one-time keys that no initial message can use any more."""
    first_kept = min(
        (refill.first_key_id for refill in state.refills if now < refill.created + ONE_TIME_KEPT),
        default=state.next_key_id,
    )
    x25519 = _from(state.one_time_x25519, first_kept)
    mlkem1024 = _from(state.one_time_mlkem1024, first_kept)
    ids = sorted((*x25519, *mlkem1024))
    ends = [*(refill.first_key_id for refill in state.refills[1:]), state.next_key_id]
    refills = tuple(
        refill
        for refill, end in zip(state.refills, ends, strict=False)
        if bisect_left(ids, refill.first_key_id) < bisect_left(ids, end)
    )
    return replace(state, one_time_x25519=x25519, one_time_mlkem1024=mlkem1024, refills=refills)


def _from(keys: Mapping[int, Secret], first_key_id: int) -> Mapping[int, Secret]:
    return {key_id: private for key_id, private in keys.items() if key_id >= first_key_id}


def _generate_key(kind: PreKeyKind) -> tuple[Secret, bytes]:
    if kind is PreKeyKind.SEALING:
        sealing = SealingKeyPair.generate()
        return sealing.private, sealing.public
    if kind in (PreKeyKind.SIGNED_X25519, PreKeyKind.ONE_TIME_X25519):
        dh = X25519KeyPair.generate()
        return dh.private, dh.public
    kem = MLKEM1024.generate()
    return kem.seed, kem.public


def _is_due(key: RotatedKey, now: int) -> bool:
    crowded = (
        len(key.used_ephemerals) >= MAX_USED_EPHEMERALS // 2
        or key.unproven >= MAX_UNPROVEN_EPHEMERALS // 2
    )
    return now >= key.created + (ROTATE_CROWDED_AFTER if crowded else ROTATE_AFTER)


def _without(keys: Mapping[int, Secret], key_id: int | None) -> Mapping[int, Secret]:
    if key_id is None or key_id not in keys:
        return keys
    rest = dict(keys)
    del rest[key_id]
    return rest
