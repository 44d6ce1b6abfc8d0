"""Stored form of a peer's record (spec/ratchet.md, "Sessions").

Encryption at rest is the store's work.
"""

from typing import Annotated

from msgspec import Meta, Struct

from e2ecall.protocol.devices import VerifiedDeviceList
from e2ecall.protocol.encoding import decode_stored, encode_stored, parse_stored_address
from e2ecall.protocol.peer import MAX_ARCHIVED, Handshake, PeerState, Session
from e2ecall.protocol.ratchetstore import StoredRatchet, from_stored, to_stored
from relay.wire.records import AddressText, DeviceId, DeviceList, Hash64, PreKey, UnixSeconds


class _StoredSession(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    session_id: bytes
    ratchet: StoredRatchet
    handshake: Handshake | None
    archived_at: UnixSeconds
    last_resort_kem: bool
    one_time_prekey: bool
    created: UnixSeconds


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: Annotated[int, Meta(ge=2, le=2)]
    address: AddressText
    device_id: DeviceId
    device_list: DeviceList
    device_list_hash: Hash64
    sealing_key: PreKey
    proven: bool
    sessions: Annotated[tuple[_StoredSession, ...], Meta(max_length=1 + MAX_ARCHIVED)]
    heard: UnixSeconds


def peer_to_bytes(peer: PeerState) -> bytes:
    """Return the record for the encrypted store."""
    sessions = tuple(
        _StoredSession(
            session.session_id,
            to_stored(session.ratchet),
            session.handshake,
            session.archived_at,
            session.last_resort_kem,
            session.one_time_prekey,
            session.created,
        )
        for session in peer.sessions
    )
    return encode_stored(
        _Stored(
            2,
            str(peer.address),
            peer.device_id,
            peer.device_list.body,
            peer.device_list.hash,
            peer.sealing_key,
            peer.proven,
            sessions,
            peer.heard,
        )
    )


def peer_from_bytes(data: bytes) -> PeerState:
    """Read a record of `peer_to_bytes`.

    Raises:
        StoreError: it is none.
    """
    stored = decode_stored(data, _Stored)
    sessions = tuple(
        Session(
            session.session_id,
            from_stored(session.ratchet),
            session.handshake,
            session.archived_at,
            session.last_resort_kem,
            session.one_time_prekey,
            session.created,
        )
        for session in stored.sessions
    )
    return PeerState(
        parse_stored_address(stored.address),
        stored.device_id,
        VerifiedDeviceList(stored.device_list, stored.device_list_hash),
        stored.sealing_key,
        stored.proven,
        sessions,
        stored.heard,
    )
