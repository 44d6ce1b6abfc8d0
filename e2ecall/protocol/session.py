"""The pairwise session (spec/ratchet.md, "Sessions"): initiate, seal, unseal, receive.

Ties identity, prekeys, PQXDH, ratchet and sealing together over immutable values; plaintexts are
opaque bytes. Fetching, storing and sending are the client's: it stores what a function returned
and only then lets an envelope leave.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol import ratchet
from e2ecall.protocol.bundle import verify_bundle
from e2ecall.protocol.encoding import decode_remote, parse_remote_address
from e2ecall.protocol.handshake import (
    Sender,
    generate_session,
    is_proven,
    respond,
    verify_sender,
)
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.peer import PeerState, Session, is_crowded, is_expired, newer_key
from e2ecall.protocol.pqxdh import VERSION
from e2ecall.protocol.prekeys import PreKeyState
from e2ecall.protocol.sealing import Frame, InitialMessage, generate_envelope, open_envelope
from relay.wire.names import Address
from relay.wire.records import DeviceList, PreKeyBundle


@dataclass(frozen=True, slots=True)
class Claim:
    """Who an initial message says it is from. Nothing of it is verified before `receive`."""

    address: Address
    device_id: int


@dataclass(frozen=True, slots=True)
class Unsealed:
    """An opened envelope: find the peer by ``session_id`` or, for an initial message, ``claim``."""

    frame: Frame
    claim: Claim | None

    @property
    def session_id(self) -> bytes:
        """The 16-byte id of the session that the message belongs to."""
        return self.frame.session_id

    @property
    def claimed_identity(self) -> bytes | None:
        """The identity key in the device list of an initial message.

        Raises:
            RemoteProtocolError: `MALFORMED`.
        """
        if self.frame.initial is None:
            return None
        body = self.frame.initial.device_list.body
        return decode_remote(body, DeviceList, limit=len(body)).identity_key


@dataclass(frozen=True, slots=True)
class Received:
    """A decrypted message and the states to store before anything is done with it.

    ``initial``: it began a new session. ``proven``: see `PeerState.proven`.
    """

    peer: PeerState
    prekeys: PreKeyState
    plaintext: bytes = field(repr=False)
    session_id: bytes
    initial: bool
    proven: bool


def initiate(
    local: LocalDevice,
    bundle: PreKeyBundle,
    *,
    address: Address,
    known: PeerState | None,
    now: float,
) -> PeerState:
    """Verify a bundle of ``address`` and begin a session with it; draws fresh keys.

    ``known`` is what is stored of this peer; its sessions are archived. The new session tells in
    ``last_resort_kem`` and ``one_time_prekey`` which kinds of prekey the relay served.

    Raises:
        IdentityChangedError: the identity key is not the known one; nothing may be sent.
        RemoteProtocolError: the bundle is not valid.
        LocalProtocolError: the address is our own.
    """
    if address == local.address:
        raise LocalProtocolError("this is your own address")
    verified = verify_bundle(
        bundle, address=address, now=now, known=None if known is None else known.device_list
    )
    device_id, sealing_key = verified.device.device_id, verified.sealing_key
    session = replace(generate_session(local, verified), created=int(now))
    former: tuple[Session, ...] = ()
    if known is not None and known.device_id == device_id:
        former = known.sessions
        sealing_key = newer_key(known.sealing_key, sealing_key)
    peer = PeerState(
        address=address,
        device_id=device_id,
        device_list=verified.device_list,
        sealing_key=sealing_key,
        proven=True,
        sessions=former,
        heard=int(now) if known is None else known.heard,
    )
    return peer.activated(session, now=now)


def seal(
    local: LocalDevice,
    prekeys: PreKeyState,
    peer: PeerState,
    plaintext: bytes,
    *,
    call: bool,
    now: float,
) -> tuple[PeerState, bytes]:
    """Encrypt a message in the active session and seal it; ``call`` chooses the padding.

    Draws nonces and, where a DH step is due, fresh keys. Store the state before sending.

    Raises:
        SealingKeyExpiredError: fetch the peer's bundle and call `with_sealing_key`.
        MessageTooLongError: the plaintext fits no padding class.
        LocalProtocolError: the session cannot send any more.
    """
    session = peer.active
    state, message = ratchet.encrypt(
        session.ratchet,
        plaintext,
        nonce=ratchet.generate_nonce(),
        step=ratchet.generate_step(session.ratchet),
    )
    envelope = generate_envelope(
        Frame(session.session_id, _initial(local, prekeys, session), message),
        peer.sealing_key,
        recipient=peer.address,
        device_id=peer.device_id,
        call=call,
        now=now,
    )
    return peer.with_session(replace(session, ratchet=state)), envelope


def unseal(local: LocalDevice, prekeys: PreKeyState, envelope: bytes) -> Unsealed:
    """Open an envelope with our sealing keys; nothing of it is authenticated yet.

    Raises:
        RemoteProtocolError: see `open_envelope`; `MALFORMED` for a sender that is no address.
    """
    frame = open_envelope(local, prekeys, envelope)
    if frame.initial is None:
        return Unsealed(frame, None)
    address = parse_remote_address(frame.initial.sender)
    return Unsealed(frame, Claim(address, frame.initial.device_id))


def receive(
    local: LocalDevice,
    prekeys: PreKeyState,
    peer: PeerState | None,
    unsealed: Unsealed,
    *,
    relay_keys: Mapping[str, bytes],
    now: float,
) -> Received:
    """Decrypt an opened message; ``peer`` is what is stored of its sender, None at first contact.

    ``relay_keys`` maps the names of the relays that the user chose to their Ed25519 keys. After
    a refusal the stored states stand as they are.

    Raises:
        IdentityChangedError: a known address came with another identity key.
        RemoteProtocolError: `UNKNOWN_SESSION`, `REPLAYED`, `NOT_AUTHENTIC`, or any reason of
            `verify_sender`, `respond` and the ratchet's `decrypt`; `WRONG_ADDRESS` when
            ``peer`` is not the device that the message claims to be from.
    """
    claim, initial = unsealed.claim, unsealed.frame.initial
    session = None if peer is None else peer.session(unsealed.session_id)
    if peer is not None and claim is not None:
        _check_claim(peer, claim, is_new=session is None)
    if peer is not None and session is not None:
        if initial is not None and not peer.proven:
            proven = is_proven(initial, peer.address, peer.identity_key, relay_keys, now)
            peer = replace(peer, proven=proven)
        peer = replace(peer, heard=int(now))
        return _receive_known(prekeys, peer, session, unsealed.frame, now)
    if initial is None or claim is None:
        raise RemoteProtocolError(Reason.UNKNOWN_SESSION)
    sender = verify_sender(
        local, initial, address=claim.address, known=peer, relay_keys=relay_keys, now=now
    )
    return _receive_initial(local, prekeys, peer, sender, unsealed.frame, initial, now)


def _check_claim(peer: PeerState, claim: Claim, *, is_new: bool) -> None:
    """SESSION-11: only a new session may be of another device, enrolled after the known one."""
    succeeds = is_new and claim.device_id > peer.device_id
    if peer.address != claim.address or (peer.device_id != claim.device_id and not succeeds):
        raise RemoteProtocolError(Reason.WRONG_ADDRESS)


def _receive_known(
    prekeys: PreKeyState, peer: PeerState, session: Session, frame: Frame, now: float
) -> Received:
    """Decrypt in a session that exists, which also ends the repetition of its handshake."""
    if is_expired(session, now=now):
        raise RemoteProtocolError(Reason.UNKNOWN_SESSION)
    state, plaintext = ratchet.decrypt(session.ratchet, frame.message, now=now)
    advanced = replace(session, ratchet=state, handshake=None)
    if session is peer.active:
        peer = peer.with_session(advanced)
    else:
        # SESSION-04: the one that the peer used last is active, at both ends.
        peer = peer.activated(advanced, now=now)
    return Received(peer, prekeys, plaintext, session.session_id, False, peer.proven)


def _receive_initial(
    local: LocalDevice,
    prekeys: PreKeyState,
    peer: PeerState | None,
    sender: Sender,
    frame: Frame,
    initial: InitialMessage,
    now: float,
) -> Received:
    """Begin the session of an initial message, if its first message decrypts."""
    if peer is not None and peer.device_id != sender.device.device_id:
        _check_removed(peer.device_id, sender)
        peer = replace(peer, sessions=(), sealing_key=initial.sealing_key)
    if peer is not None and is_crowded(peer, now=now):
        raise RemoteProtocolError(Reason.LIMIT)
    session = respond(local, prekeys, initial, sender)
    if session.session_id != frame.session_id:
        raise RemoteProtocolError(Reason.NOT_AUTHENTIC)
    state, plaintext = ratchet.decrypt(session.ratchet, frame.message, now=now)
    session = replace(session, ratchet=state, created=int(now))
    sealing_key = initial.sealing_key
    if peer is not None:
        sealing_key = newer_key(peer.sealing_key, sealing_key)
    peer = PeerState(
        address=sender.address,
        device_id=sender.device.device_id,
        device_list=sender.device_list,
        sealing_key=sealing_key,
        proven=sender.proven,
        sessions=() if peer is None else peer.sessions,
        heard=int(now),
    ).activated(session, now=now)
    prekeys = prekeys.consumed(
        initial.signed_prekey_id,
        initial.ephemeral,
        one_time_id=initial.one_time_prekey_id,
        kem_id=initial.kem_prekey_id,
        proven=sender.proven,
    )
    return Received(peer, prekeys, plaintext, session.session_id, True, peer.proven)


def _check_removed(device_id: int, sender: Sender) -> None:
    """SESSION-11: an account has one device; another one takes its place or is refused."""
    if any(device.device_id == device_id for device in sender.device_list.body.devices):
        raise RemoteProtocolError(Reason.UNKNOWN_KEY)


def _initial(local: LocalDevice, prekeys: PreKeyState, session: Session) -> InitialMessage | None:
    """Return the handshake to repeat, with our current certificate and sealing key."""
    handshake = session.handshake
    if handshake is None:
        return None
    return InitialMessage(
        version=VERSION,
        sender=str(local.address),
        device_id=local.keys.device_id,
        device_list=handshake.device_list,
        certificate=local.certificate,
        recipient_list=handshake.recipient_list,
        signed_prekey_id=handshake.signed_prekey_id,
        one_time_prekey_id=handshake.one_time_prekey_id,
        kem_prekey_id=handshake.kem_prekey_id,
        ephemeral=handshake.ephemeral,
        kem_ciphertext=handshake.kem_ciphertext,
        sealing_key=prekeys.sealing_key,
    )
