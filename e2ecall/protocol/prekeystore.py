"""Stored form of the private prekeys (spec/prekeys.md, "Storage").

About 11 KB for 200 one-time keys; it grows with the EKs of accepted handshakes (32 bytes each,
bounded). Encryption at rest is the store's work.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import Meta, Struct

from e2ecall.crypto import mlkem, x25519
from e2ecall.protocol.encoding import decode_stored, encode_stored
from e2ecall.protocol.prekeys import PreKeyState, Refill, RotatedKey
from e2ecall.secret import Secret
from relay.wire.records import KeyId, PreKey, PreKeyKind, UnixSeconds

_ID_BYTES: Final = 4
_TIME_BYTES: Final = 6


class _StoredKey(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: PreKeyKind
    key_id: KeyId
    created: UnixSeconds
    retired: UnixSeconds
    private: bytes
    used_ephemerals: bytes
    unproven: Annotated[int, Meta(ge=0)]

    def __repr__(self) -> str:
        """Show which key it is alone: it is private."""
        return f"_StoredKey({self.kind!r}, {self.key_id})"


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: Annotated[int, Meta(ge=1, le=1)]
    next_key_id: KeyId
    rotated: tuple[_StoredKey, ...]
    one_time_x25519: bytes
    one_time_mlkem1024: bytes
    sealing_key: PreKey
    refills: bytes

    def __repr__(self) -> str:
        """Show nothing: it is private keys."""
        return "_Stored(...)"


def prekeys_to_bytes(state: PreKeyState) -> bytes:
    """Return the record for the encrypted store."""
    rotated = tuple(
        _StoredKey(
            key.kind,
            key.key_id,
            key.created,
            key.retired,
            key.private.expose(),
            b"".join(sorted(key.used_ephemerals)),
            key.unproven,
        )
        for key in state.rotated
    )
    return encode_stored(
        _Stored(
            1,
            state.next_key_id,
            rotated,
            _packed(state.one_time_x25519),
            _packed(state.one_time_mlkem1024),
            state.sealing_key,
            b"".join(
                refill.first_key_id.to_bytes(_ID_BYTES) + refill.created.to_bytes(_TIME_BYTES)
                for refill in state.refills
            ),
        )
    )


def prekeys_from_bytes(data: bytes) -> PreKeyState:
    """Read a record of `prekeys_to_bytes`.

    Raises:
        StoreError: it is none.
    """
    stored = decode_stored(data, _Stored)
    rotated = tuple(
        RotatedKey(
            key.kind,
            key.key_id,
            key.created,
            key.retired,
            Secret(key.private),
            frozenset(_slices(key.used_ephemerals, x25519.KEY_BYTES)),
            key.unproven,
        )
        for key in stored.rotated
    )
    return PreKeyState(
        stored.next_key_id,
        rotated,
        _unpacked(stored.one_time_x25519, x25519.KEY_BYTES),
        _unpacked(stored.one_time_mlkem1024, mlkem.SEED_BYTES),
        stored.sealing_key,
        tuple(
            Refill(int.from_bytes(entry[:_ID_BYTES]), int.from_bytes(entry[_ID_BYTES:]))
            for entry in _slices(stored.refills, _ID_BYTES + _TIME_BYTES)
        ),
    )


def _packed(keys: Mapping[int, Secret]) -> bytes:
    """``u32 key id || private key`` for each, in order."""
    return b"".join(
        key_id.to_bytes(_ID_BYTES) + private.expose() for key_id, private in keys.items()
    )


def _unpacked(table: bytes, key_bytes: int) -> dict[int, Secret]:
    return {
        int.from_bytes(entry[:_ID_BYTES]): Secret(entry[_ID_BYTES:])
        for entry in _slices(table, _ID_BYTES + key_bytes)
    }


def _slices(table: bytes, size: int) -> list[bytes]:
    return [table[start : start + size] for start in range(0, len(table), size)]
