"""Sealed envelopes (spec/sealing.md): what the relay carries, without a sender and without a size.

HPKE to the recipient device's sealing key around a padded frame. It neither encrypts nor reads
ratchet messages, and base-mode HPKE proves nothing about who sealed.
"""

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Annotated, Final

from msgspec import Meta, Struct

from e2ecall.crypto import hpke
from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.encoding import decode_remote
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.pqxdh import SESSION_ID_BYTES
from e2ecall.protocol.prekeys import PreKeyState
from relay.wire.codec import encode
from relay.wire.labels import labelled
from relay.wire.names import Address
from relay.wire.records import (
    AddressText,
    DeviceId,
    Hash64,
    Key32,
    KeyId,
    PreKey,
    SignedDeviceList,
    SignedSenderCertificate,
)

ENVELOPE_VERSION: Final = 1
CALL_CLASSES: Final = (8_192, 16_384)
OTHER_CLASSES: Final = (4_096, 8_192, 16_384, 32_768)
"""Bytes of a padded frame; an envelope is `hpke.OVERHEAD` + 1 longer."""

_ENVELOPE_SIZES: Final = frozenset(1 + size + hpke.OVERHEAD for size in OTHER_CLASSES)
_FRAME_HEAD: Final = 1 + SESSION_ID_BYTES + 4
_MAX_INITIAL: Final = 8_192


class SealingKeyExpiredError(LocalProtocolError):
    """The peer's sealing key is out of date: fetch its bundle and take the key from there."""


class MessageTooLongError(LocalProtocolError):
    """The message fits no padding class; the text says how many bytes there are too many."""


@unique
class FrameKind(IntEnum):
    """First byte of a sealed frame."""

    INITIAL = 1
    MESSAGE = 2


class InitialMessage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The handshake as the initiator sends it, repeated until the first reply.

    ``[version, sender, device_id, device_list, certificate|nil, recipient_list, signed_prekey_id,
    one_time_prekey_id|nil, kem_prekey_id, ephemeral, kem_ciphertext, sealing_key]``;
    ``recipient_list`` is the hash of the device list that the initiator used.
    """

    version: Annotated[int, Meta(ge=1, le=0xFFFF)]
    sender: AddressText
    device_id: DeviceId
    device_list: SignedDeviceList
    certificate: SignedSenderCertificate | None
    recipient_list: Hash64
    signed_prekey_id: KeyId
    one_time_prekey_id: KeyId | None
    kem_prekey_id: KeyId
    ephemeral: Key32
    kem_ciphertext: Annotated[bytes, Meta(min_length=1568, max_length=1568)]
    sealing_key: PreKey


@dataclass(frozen=True, slots=True)
class Frame:
    """What is inside an envelope: session id, handshake until the first reply, ratchet message."""

    session_id: bytes
    initial: InitialMessage | None
    message: bytes

    def to_bytes(self, classes: tuple[int, ...]) -> bytes:
        """Return ``kind || session id || u32 length || body``, zero-padded to a class.

        Raises:
            MessageTooLongError: no class is large enough.
        """
        kind, body = FrameKind.MESSAGE, self.message
        if self.initial is not None:
            head = encode(self.initial)
            kind, body = FrameKind.INITIAL, len(head).to_bytes(2) + head + self.message
        data = kind.to_bytes(1) + self.session_id + len(body).to_bytes(4) + body
        for size in classes:
            if len(data) <= size:
                return data.ljust(size, b"\0")
        raise MessageTooLongError(f"the message is {len(data) - classes[-1]} bytes too long")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Frame":
        """Read an opened envelope.

        Raises:
            RemoteProtocolError: `BAD_PADDING`, `BAD_VERSION` or `MALFORMED`.
        """
        end = _FRAME_HEAD + int.from_bytes(data[_FRAME_HEAD - 4 : _FRAME_HEAD])
        # SEALING-05: a class exactly, zeros only: padding carries nothing.
        zeros = len(data) - end
        if len(data) not in OTHER_CLASSES or zeros < 0 or data.count(0, end) != zeros:
            raise RemoteProtocolError(Reason.BAD_PADDING)
        session_id, body = data[1 : 1 + SESSION_ID_BYTES], data[_FRAME_HEAD:end]
        if data[0] == FrameKind.MESSAGE:
            return cls(session_id, None, body)
        if data[0] != FrameKind.INITIAL:
            raise RemoteProtocolError(Reason.MALFORMED)
        split = 2 + int.from_bytes(body[:2])
        initial = decode_remote(body[2:split], InitialMessage, limit=_MAX_INITIAL)
        # PQXDH-07: one version, and nothing to fall back to.
        if initial.version != ENVELOPE_VERSION:
            raise RemoteProtocolError(Reason.BAD_VERSION)
        return cls(session_id, initial, body[split:])


def generate_envelope(
    frame: Frame,
    sealing_key: PreKey,
    *,
    recipient: Address,
    device_id: int,
    call: bool,
    now: float,
) -> bytes:
    """Seal a frame to a verified sealing key: ``version || encapsulated key || ciphertext || tag``.

    Raises:
        SealingKeyExpiredError: the key's signed expiry has passed.
        MessageTooLongError: no padding class is large enough.
    """
    if sealing_key.expires <= now:
        raise SealingKeyExpiredError(
            f"the sealing key of {recipient} has expired", hint="fetch the bundle again"
        )
    padded = frame.to_bytes(CALL_CLASSES if call else OTHER_CLASSES)
    info = _info(recipient, device_id, sealing_key.key_id)
    sealed = hpke.generate_sealed(sealing_key.key, padded, info)
    return ENVELOPE_VERSION.to_bytes(1) + sealed


def open_envelope(local: LocalDevice, prekeys: PreKeyState, envelope: bytes) -> Frame:
    """Open an envelope with whichever of our sealing keys it was sealed to.

    SEALING-02: an envelope names no key, so that mail in a reply box cannot be matched with the
    published keys of an account; the keys are tried, newest first.

    Raises:
        RemoteProtocolError: `BAD_VERSION`, `BAD_PADDING`, `MALFORMED`, or `NOT_AUTHENTIC` when
            no key opens it.
    """
    if envelope[:1] != ENVELOPE_VERSION.to_bytes(1):
        raise RemoteProtocolError(Reason.BAD_VERSION)
    if len(envelope) not in _ENVELOPE_SIZES:
        raise RemoteProtocolError(Reason.BAD_PADDING)
    for key in prekeys.sealing_keys():
        info = _info(local.address, local.keys.device_id, key.key_id)
        try:
            padded = hpke.open_sealed(key.private, envelope[1:], info)
        except RemoteProtocolError:
            continue
        return Frame.from_bytes(padded)
    raise RemoteProtocolError(Reason.NOT_AUTHENTIC)


def _info(recipient: Address, device_id: int, key_id: int) -> bytes:
    """SEALING-03: recipient, device and key id are bound, as HPKE's info."""
    return labelled("sealing", str(recipient).encode(), device_id.to_bytes(2), key_id.to_bytes(4))
