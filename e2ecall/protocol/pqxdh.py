"""PQXDH with ML-KEM-1024 (spec/pqxdh.md): the first keys of a session.

Pure derivation from given keys, after Signal's PQXDH, revision 3, with every exchanged value
in one transcript hash. It verifies no signature and consumes no key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from e2ecall.crypto.kdf import HASH_BYTES, labelled_hash, labelled_kdf
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.secret import Secret
from relay.wire.names import Address
from relay.wire.records import PreKeyKind

VERSION: Final = 1
SESSION_ID_BYTES: Final = 16

_KEY: Final = 32
_NO_SALT: Final = bytes(HASH_BYTES)


@dataclass(frozen=True, slots=True)
class Party:
    """One side as the transcript names it; ``dh_key`` is the device's X25519 identity DH key."""

    address: Address
    device_id: int
    identity_key: bytes
    device_list_hash: bytes
    dh_key: bytes

    def parts(self) -> tuple[bytes, ...]:
        """Return the fields as they enter the transcript hash."""
        device_id = self.device_id.to_bytes(2)
        address = str(self.address).encode()
        return address, device_id, self.identity_key, self.device_list_hash, self.dh_key


@dataclass(frozen=True, slots=True)
class Transcript:
    """Everything that was exchanged. ``one_time_prekey`` is (key id, key), or None without."""

    initiator: Party
    responder: Party
    signed_prekey_id: int
    signed_prekey: bytes
    one_time_prekey: tuple[int, bytes] | None
    ephemeral: bytes
    kem_kind: PreKeyKind
    kem_key_id: int
    kem_key: bytes
    kem_ciphertext: bytes

    def hash(self) -> bytes:
        """Return the 64-byte handshake hash, which names this handshake in all that follows.

        PQXDH-04: both sides hash what they saw, so any difference gives different keys.
        """
        one_time_id, one_time_key = b"", b""
        if self.one_time_prekey is not None:
            one_time_id = self.one_time_prekey[0].to_bytes(4)
            one_time_key = self.one_time_prekey[1]
        return labelled_hash(
            "pqxdh transcript",
            VERSION.to_bytes(2),
            *self.initiator.parts(),
            *self.responder.parts(),
            self.signed_prekey_id.to_bytes(4),
            self.signed_prekey,
            one_time_id,
            one_time_key,
            self.ephemeral,
            self.kem_kind.to_bytes(1),
            self.kem_key_id.to_bytes(4),
            self.kem_key,
            self.kem_ciphertext,
        )


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """What the ratchet starts from: root key, the two first header keys, the session's names."""

    handshake_hash: bytes
    session_id: bytes
    root_key: Secret
    initiator_header_key: Secret
    responder_header_key: Secret


def initiator_keys(
    transcript: Transcript,
    *,
    identity_dh: X25519KeyPair,
    ephemeral: X25519KeyPair,
    kem_secret: Secret,
) -> SessionKeys:
    """Derive the session as its initiator; ``kem_secret`` belongs to the KEM ciphertext.

    Raises:
        RemoteProtocolError: `Reason.BAD_POINT`.
    """
    secrets = [
        identity_dh.exchange(transcript.signed_prekey),
        ephemeral.exchange(transcript.responder.dh_key),
        ephemeral.exchange(transcript.signed_prekey),
    ]
    if transcript.one_time_prekey is not None:
        secrets.append(ephemeral.exchange(transcript.one_time_prekey[1]))
    return _derive(transcript, [*secrets, kem_secret])


def responder_keys(
    transcript: Transcript,
    *,
    identity_dh: X25519KeyPair,
    signed_prekey: X25519KeyPair,
    one_time_prekey: X25519KeyPair | None,
    kem_secret: Secret,
) -> SessionKeys:
    """Derive the session as its responder.

    Raises:
        RemoteProtocolError: `Reason.BAD_POINT`.
    """
    secrets = [
        signed_prekey.exchange(transcript.initiator.dh_key),
        identity_dh.exchange(transcript.ephemeral),
        signed_prekey.exchange(transcript.ephemeral),
    ]
    if one_time_prekey is not None:
        secrets.append(one_time_prekey.exchange(transcript.ephemeral))
    return _derive(transcript, [*secrets, kem_secret])


def _derive(transcript: Transcript, secrets: Sequence[Secret]) -> SessionKeys:
    handshake_hash = transcript.hash()
    keys = labelled_kdf(
        "pqxdh",
        salt=_NO_SALT,
        secrets=secrets,
        context=(handshake_hash,),
        length=3 * _KEY + SESSION_ID_BYTES,
    )
    return SessionKeys(
        handshake_hash,
        session_id=keys[3 * _KEY :],
        root_key=Secret(keys[:_KEY]),
        initiator_header_key=Secret(keys[_KEY : 2 * _KEY]),
        responder_header_key=Secret(keys[2 * _KEY : 3 * _KEY]),
    )
