"""What is known of one peer device (spec/ratchet.md, "Sessions"): identity, keys, sessions.

Immutable values and how sessions succeed each other. Messages go through
`e2ecall.protocol.session`; the stored form is `e2ecall.protocol.peerstore`.
"""

from dataclasses import dataclass, replace
from typing import Final

from msgspec import Struct

from e2ecall.protocol.bundle import verify_sealing_key
from e2ecall.protocol.devices import VerifiedDeviceList
from e2ecall.protocol.ratchet import skipped_count, within_room, without_expired
from e2ecall.protocol.ratchetstate import RatchetState
from relay.wire.codec import decode
from relay.wire.names import Address
from relay.wire.records import (
    Device,
    DeviceList,
    Hash64,
    Key32,
    KeyId,
    PreKey,
    SignedDeviceList,
)

MAX_ARCHIVED: Final = 5
ARCHIVE_LIFETIME: Final = 14 * 86_400
"""Seconds that a replaced session still decrypts: as long as an envelope waits at a relay."""

UNANSWERED_LIFETIME: Final = 86_400
"""Seconds after which a session that got no reply is begun anew: what its handshake names, such
as prekeys and the device list, will not be there for ever."""

RENEWAL_INTERVAL: Final = 3_600
"""Seconds between two sessions that replace each other, at either end (SESSION-02, SESSION-07)."""


class Handshake(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the initiator repeats until the first reply; the fields are `InitialMessage`'s."""

    device_list: SignedDeviceList
    recipient_list: Hash64
    signed_prekey_id: KeyId
    one_time_prekey_id: KeyId | None
    kem_prekey_id: KeyId
    ephemeral: Key32
    kem_ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """One ratchet with the peer.

    ``handshake`` is set from initiating until the first reply. ``archived_at`` is in Unix seconds,
    0 while active. The next two tell which prekeys it used. ``created`` is in Unix seconds.
    """

    session_id: bytes
    ratchet: RatchetState
    handshake: Handshake | None
    archived_at: int
    last_resort_kem: bool
    one_time_prekey: bool
    created: int = 0


@dataclass(frozen=True, slots=True)
class PeerState:
    """Everything about one peer device; ``sessions`` begins with the active one.

    ``proven`` says that a relay the user chose vouched for name and identity key belonging
    together: in a sender certificate, or by serving the bundle. ``heard`` is when the last
    message came, or when we began, in Unix seconds.
    """

    address: Address
    device_id: int
    device_list: VerifiedDeviceList
    sealing_key: PreKey
    proven: bool
    sessions: tuple[Session, ...]
    heard: int = 0

    @property
    def identity_key(self) -> bytes:
        """The peer's 32-byte identity key, pinned at first contact."""
        return self.device_list.body.identity_key

    @property
    def device(self) -> Device:
        """The device's public keys."""
        return self.device_list.device(self.device_id)

    @property
    def active(self) -> Session:
        """The session that messages are sent in."""
        return self.sessions[0]

    @property
    def established(self) -> bool:
        """Tell whether the peer has shown that it holds the active session."""
        return self.active.handshake is None

    def session(self, session_id: bytes) -> Session | None:
        """Return the session with this id."""
        for session in self.sessions:
            if session.session_id == session_id:
                return session
        return None

    def with_session(self, session: Session) -> "PeerState":
        """Return the state with a session in the place of its former self."""
        sessions = tuple(
            session if other.session_id == session.session_id else other for other in self.sessions
        )
        return replace(self, sessions=sessions)

    def activated(self, session: Session, *, now: float) -> "PeerState":
        """Return the state with ``session`` active and the others archived, five at most."""
        archived = (
            replace(other, archived_at=other.archived_at or int(now))
            for other in self.sessions
            if other.session_id != session.session_id
        )
        sessions = (replace(session, archived_at=0), *archived)
        return replace(self, sessions=sessions[: 1 + MAX_ARCHIVED])


def is_expired(session: Session, *, now: float) -> bool:
    """Tell whether an archived session's 14 days are over."""
    return bool(session.archived_at) and now >= session.archived_at + ARCHIVE_LIFETIME


def is_unanswered(session: Session, *, now: float) -> bool:
    """SESSION-08: tell whether to give up waiting for a reply and to begin another session."""
    if session.handshake is None:
        return False
    signed = session.handshake.device_list
    expires = decode(signed.body, DeviceList, limit=len(signed.body)).expires
    # The handshake has to hold for as long as an envelope may wait at a relay.
    short = expires - now < ARCHIVE_LIFETIME and now >= session.created + RENEWAL_INTERVAL
    return short or now >= session.created + UNANSWERED_LIFETIME


def is_crowded(peer: PeerState, *, now: float) -> bool:
    """SESSION-07: tell whether the peer began as many sessions lately as are kept."""
    archived = peer.sessions[1:]
    return len(archived) >= MAX_ARCHIVED and all(
        now < session.archived_at + RENEWAL_INTERVAL for session in archived
    )


def without_expired_keys(peer: PeerState, *, now: float) -> PeerState:
    """Return the state without archived sessions and skipped keys whose time is over.

    For the owner's housekeeping: an idle peer's keys should not outlive their time in the store.
    """
    sessions = tuple(
        replace(session, ratchet=without_expired(session.ratchet, now=now))
        for session in peer.sessions
        if not is_expired(session, now=now)
    )
    return replace(peer, sessions=sessions)


def with_skipped_keys(peer: PeerState, room: int) -> PeerState:
    """RATCHET-14: return the state with at most ``room`` skipped keys, of all its sessions.

    The active session keeps its own first, then the ones that were active last.
    """
    if sum(skipped_count(session.ratchet) for session in peer.sessions) <= room:
        return peer
    sessions = []
    for session in peer.sessions:
        kept = within_room(session.ratchet, room)
        room -= skipped_count(kept)
        sessions.append(replace(session, ratchet=kept))
    return replace(peer, sessions=tuple(sessions))


def with_sealing_key(peer: PeerState, prekey: PreKey, *, now: float) -> PeerState:
    """Return the state with a newer sealing key that the peer sent; an older one changes nothing.

    Raises:
        RemoteProtocolError: it is not a valid sealing key of this device (see `verify_prekey`).
    """
    verify_sealing_key(prekey, address=peer.address, device=peer.device, now=now)
    return replace(peer, sealing_key=newer_key(peer.sealing_key, prekey))


def newer_key(known: PreKey, other: PreKey) -> PreKey:
    """SESSION-06: return which of two sealing keys of one device to use from now on.

    An older one has a lower id and expires earlier. A key that was made while its owner's clock was
    ahead expires later than those after it; a store that went back uses ids once more.
    """
    is_older = other.expires < known.expires and other.key_id <= known.key_id
    return known if is_older else other
