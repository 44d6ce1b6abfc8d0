"""Beginning a session on either side (spec/pqxdh.md): from a bundle, or from an initial message.

Verification, PQXDH and the first ratchet state. Which session becomes active, and everything
after the first message, is `e2ecall.protocol.session`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from e2ecall.crypto import hpke
from e2ecall.crypto.mlkem import MLKEM1024
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.bundle import VerifiedBundle, verify_sealing_key
from e2ecall.protocol.devices import VerifiedDeviceList, verify_device_list
from e2ecall.protocol.identity import verify_sender_certificate
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.peer import Handshake, PeerState, Session
from e2ecall.protocol.pqxdh import (
    Party,
    SessionKeys,
    Transcript,
    initiator_keys,
    responder_keys,
)
from e2ecall.protocol.prekeys import PreKeyState
from e2ecall.protocol.ratchet import generate_first_step
from e2ecall.protocol.ratchetstate import initiator_state, responder_state
from e2ecall.protocol.sealing import InitialMessage
from relay.wire.names import Address
from relay.wire.records import Device, PreKeyKind, device_list_hash


def generate_session(local: LocalDevice, bundle: VerifiedBundle) -> Session:
    """Initiate: draw an ephemeral key and a KEM ciphertext and derive the session."""
    ephemeral = X25519KeyPair.generate()
    kem_secret, kem_ciphertext = MLKEM1024.encapsulate(bundle.kem_prekey.key)
    one_time = bundle.one_time_prekey
    transcript = Transcript(
        initiator=_local_party(local, device_list_hash(local.device_list)),
        responder=_peer_party(bundle.address, bundle.device_list, bundle.device),
        signed_prekey_id=bundle.signed_prekey.key_id,
        signed_prekey=bundle.signed_prekey.key,
        one_time_prekey=None if one_time is None else (one_time.key_id, one_time.key),
        ephemeral=ephemeral.public,
        kem_kind=bundle.kem_prekey.kind,
        kem_key_id=bundle.kem_prekey.key_id,
        kem_key=bundle.kem_prekey.key,
        kem_ciphertext=kem_ciphertext,
    )
    keys = initiator_keys(
        transcript, identity_dh=local.keys.dh, ephemeral=ephemeral, kem_secret=kem_secret
    )
    handshake = Handshake(
        local.device_list,
        bundle.device_list.hash,
        bundle.signed_prekey.key_id,
        None if one_time is None else one_time.key_id,
        bundle.kem_prekey.key_id,
        ephemeral.public,
        kem_ciphertext,
    )
    return Session(
        keys.session_id,
        initiator_state(keys, bundle.signed_prekey.key, generate_first_step()),
        handshake,
        archived_at=0,
        last_resort_kem=bundle.kem_prekey.kind is PreKeyKind.LAST_RESORT_MLKEM1024,
        one_time_prekey=one_time is not None,
    )


@dataclass(frozen=True, slots=True)
class Sender:
    """Who an initial message comes from, verified as far as it can be before decrypting."""

    address: Address
    device: Device
    device_list: VerifiedDeviceList
    proven: bool


def verify_sender(
    local: LocalDevice,
    initial: InitialMessage,
    *,
    address: Address,
    known: PeerState | None,
    relay_keys: Mapping[str, bytes],
    now: float,
) -> Sender:
    """Verify device list, sealing key and certificate of an initial message.

    Raises:
        IdentityChangedError: ``known`` has another identity key.
        RemoteProtocolError: it claims to be ourselves, or a signed part does not verify.
    """
    if address == local.address:
        raise RemoteProtocolError(Reason.WRONG_ADDRESS)
    device_list = verify_device_list(
        initial.device_list,
        address=address,
        now=now,
        known=None if known is None else known.device_list,
        next_keys=[initial.ephemeral, hpke.x25519_half(initial.sealing_key.key)],
    )
    device = device_list.device(initial.device_id)
    verify_sealing_key(initial.sealing_key, address=address, device=device, now=now)
    proven = known is not None and known.proven
    if not proven:
        proven = is_proven(initial, address, device_list.body.identity_key, relay_keys, now)
    return Sender(address, device, device_list, proven)


def respond(
    local: LocalDevice, prekeys: PreKeyState, initial: InitialMessage, sender: Sender
) -> Session:
    """Derive the session of an initial message. Nothing is consumed before it has decrypted.

    Raises:
        RemoteProtocolError: `REPLAYED` (its EK was used), `UNKNOWN_KEY` (a prekey of ours is
            gone), `STALE_DEVICE_LIST` (it used no recent list of ours), `LIMIT` or `BAD_POINT`.
    """
    prekeys.check_ephemeral(initial.signed_prekey_id, initial.ephemeral, proven=sender.proven)
    if not local.owns_list(initial.recipient_list):
        raise RemoteProtocolError(Reason.STALE_DEVICE_LIST)
    signed = prekeys.find(PreKeyKind.SIGNED_X25519, initial.signed_prekey_id)
    signed_prekey = X25519KeyPair.from_private(signed.private)
    one_time = None
    if initial.one_time_prekey_id is not None:
        one_time = X25519KeyPair.from_private(prekeys.one_time_key(initial.one_time_prekey_id))
    kem_kind, kem_seed = prekeys.kem_key(initial.kem_prekey_id)
    kem_secret, kem_key = MLKEM1024.open_ciphertext(kem_seed, initial.kem_ciphertext)
    transcript = Transcript(
        initiator=_peer_party(sender.address, sender.device_list, sender.device),
        responder=_local_party(local, initial.recipient_list),
        signed_prekey_id=initial.signed_prekey_id,
        signed_prekey=signed_prekey.public,
        one_time_prekey=_named(initial.one_time_prekey_id, one_time),
        ephemeral=initial.ephemeral,
        kem_kind=kem_kind,
        kem_key_id=initial.kem_prekey_id,
        kem_key=kem_key,
        kem_ciphertext=initial.kem_ciphertext,
    )
    keys: SessionKeys = responder_keys(
        transcript,
        identity_dh=local.keys.dh,
        signed_prekey=signed_prekey,
        one_time_prekey=one_time,
        kem_secret=kem_secret,
    )
    return Session(
        keys.session_id,
        responder_state(keys, signed_prekey),
        None,
        archived_at=0,
        last_resort_kem=kem_kind is PreKeyKind.LAST_RESORT_MLKEM1024,
        one_time_prekey=one_time is not None,
    )


def is_proven(
    initial: InitialMessage,
    address: Address,
    identity_key: bytes,
    relay_keys: Mapping[str, bytes],
    now: float,
) -> bool:
    """Tell whether the message's certificate proves that name and identity key belong together.

    IDENTITY-09: only the relay in the sender's own address can vouch for its name. A certificate
    that proves nothing is as good as none: the sender stays unproven.
    """
    relay_key = relay_keys.get(address.relay)
    if initial.certificate is None or relay_key is None:
        return False
    try:
        certificate = verify_sender_certificate(initial.certificate, relay_key, now=now)
    except RemoteProtocolError:
        return False
    return certificate.address == str(address) and certificate.identity_key == identity_key


def _local_party(local: LocalDevice, list_hash: bytes) -> Party:
    keys = local.keys
    return Party(local.address, keys.device_id, local.identity.public, list_hash, keys.dh.public)


def _peer_party(address: Address, device_list: VerifiedDeviceList, device: Device) -> Party:
    identity_key = device_list.body.identity_key
    return Party(address, device.device_id, identity_key, device_list.hash, device.dh_key)


def _named(key_id: int | None, key: X25519KeyPair | None) -> tuple[int, bytes] | None:
    return None if key_id is None or key is None else (key_id, key.public)
