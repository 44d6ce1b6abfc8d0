"""Stored form of a ratchet (spec/ratchet.md, "State"): a struct inside a peer's record.

Encryption at rest is the store's work.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import Meta, Struct

from e2ecall.protocol.chains import (
    MAX_RECEIVING_CHAINS,
    ReceivingChain,
    SendingChain,
    SkippedKey,
)
from e2ecall.protocol.ratchetstate import RatchetState
from e2ecall.secret import Secret
from relay.wire.records import Hash64, Key32

_NUMBER: Final = 4
_KEY: Final = 32
_TIME: Final = 8


class StoredSending(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`SendingChain` as stored."""

    triple: bytes
    header_key: Key32
    chain_key: Key32
    n: int
    previous_n: int

    def __repr__(self) -> str:
        """Show nothing: it is keys."""
        return "StoredSending(...)"


class StoredReceiving(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`ReceivingChain` as stored; ``skipped`` is ``u32 n || key || u64 expires`` for each."""

    triple: bytes
    header_key: Key32
    chain_key: Key32 | None
    n: int
    skipped: bytes

    def __repr__(self) -> str:
        """Show nothing: it is keys."""
        return "StoredReceiving(...)"


class StoredRatchet(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`RatchetState` as stored, part of a peer's record."""

    handshake_hash: Hash64
    initiator: bool
    root_key: Key32
    dh_private: Key32 | None
    kem_seed: Hash64 | None
    sending: StoredSending | None
    next_sending_header_key: Key32
    receiving: Annotated[tuple[StoredReceiving, ...], Meta(max_length=MAX_RECEIVING_CHAINS)]
    next_receiving_header_key: Key32

    def __repr__(self) -> str:
        """Show nothing: it is keys."""
        return "StoredRatchet(...)"


def to_stored(state: RatchetState) -> StoredRatchet:
    """Return the form in which the encrypted store keeps a ratchet."""
    sending = state.sending
    return StoredRatchet(
        handshake_hash=state.handshake_hash,
        initiator=state.initiator,
        root_key=state.root_key.expose(),
        dh_private=_exposed(state.dh_private),
        kem_seed=_exposed(state.kem_seed),
        sending=None
        if sending is None
        else StoredSending(
            sending.triple,
            sending.header_key.expose(),
            sending.chain_key.expose(),
            sending.n,
            sending.previous_n,
        ),
        next_sending_header_key=state.next_sending_header_key.expose(),
        receiving=tuple(
            StoredReceiving(
                chain.triple,
                chain.header_key.expose(),
                _exposed(chain.chain_key),
                chain.n,
                _packed(chain.skipped),
            )
            for chain in state.receiving
        ),
        next_receiving_header_key=state.next_receiving_header_key.expose(),
    )


def from_stored(stored: StoredRatchet) -> RatchetState:
    """Return the ratchet of `to_stored`."""
    sending = stored.sending
    return RatchetState(
        handshake_hash=stored.handshake_hash,
        initiator=stored.initiator,
        root_key=Secret(stored.root_key),
        dh_private=_secret(stored.dh_private),
        kem_seed=_secret(stored.kem_seed),
        sending=None
        if sending is None
        else SendingChain(
            sending.triple,
            Secret(sending.header_key),
            Secret(sending.chain_key),
            sending.n,
            sending.previous_n,
        ),
        next_sending_header_key=Secret(stored.next_sending_header_key),
        receiving=tuple(
            ReceivingChain(
                chain.triple,
                Secret(chain.header_key),
                _secret(chain.chain_key),
                chain.n,
                _unpacked(chain.skipped),
            )
            for chain in stored.receiving
        ),
        next_receiving_header_key=Secret(stored.next_receiving_header_key),
    )


def _exposed(secret: Secret | None) -> bytes | None:
    return None if secret is None else secret.expose()


def _secret(value: bytes | None) -> Secret | None:
    return None if value is None else Secret(value)


def _packed(skipped: Mapping[int, SkippedKey]) -> bytes:
    return b"".join(
        n.to_bytes(_NUMBER) + entry.key.expose() + entry.expires.to_bytes(_TIME)
        for n, entry in skipped.items()
    )


def _unpacked(table: bytes) -> dict[int, SkippedKey]:
    skipped = {}
    for start in range(0, len(table), _NUMBER + _KEY + _TIME):
        entry = table[start : start + _NUMBER + _KEY + _TIME]
        key = Secret(entry[_NUMBER:-_TIME])
        skipped[int.from_bytes(entry[:_NUMBER])] = SkippedKey(key, int.from_bytes(entry[-_TIME:]))
    return skipped
