"""The keys of one call (spec/callkeys.md): commitment, transcript, call key and what it yields.

Pure functions of values that are given. The order of the exchange is `e2ecall.protocol.call`;
these keys are never stored.
"""

from dataclasses import dataclass
from typing import Final, Self

from e2ecall.crypto.kdf import labelled_hash, labelled_kdf, labelled_mac, verify_mac
from e2ecall.errors import Reason, RemoteProtocolError
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.messages import (
    AuthenticatedMessage,
    Offer,
    Path,
    PathReply,
    Rekey,
    RekeyReply,
    Ringing,
    Stream,
    encode_call_message,
)
from e2ecall.protocol.sas import SAS, SAS_BITS
from e2ecall.protocol.sframe_header import key_id
from e2ecall.secret import Secret
from relay.wire.codec import encode

CALL_VERSION: Final = 1
SECRET_BYTES: Final = 64
BASE_KEY_BYTES: Final = 32

_DIRECTION: Final = {Role.CALLER: b"\x01", Role.CALLEE: b"\x02"}
_SENDER: Final = {Role.CALLER: 0, Role.CALLEE: 1}


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a call as the ratchet session knows it.

    ``address`` is ``name@relay``. ``session_hash`` is the 64-byte handshake hash of the ratchet
    session that carries the call, the same for both ends: it covers both device lists as that
    handshake saw them, so a list that is renewed later changes nothing.
    """

    address: str
    device_id: int
    identity_key: bytes
    session_hash: bytes

    def parts(self) -> tuple[bytes, ...]:
        """Return address, device id (u16), identity key and session hash, to be hashed."""
        return (
            self.address.encode(),
            self.device_id.to_bytes(2),
            self.identity_key,
            self.session_hash,
        )


@dataclass(frozen=True, slots=True)
class FrameKey:
    """What one SFrame sender, or its receiver, needs: key id and base key."""

    kid: int
    base_key: Secret


def commitment(call_id: bytes, caller: Party, callee: Party, nonce: bytes) -> bytes:
    """Return the 64-byte C of the Offer, which the Reveal's nonce opens (CALLKEY-01)."""
    return labelled_hash("call commitment", call_id, *caller.parts(), *callee.parts(), nonce)


def transcript_hash(caller: Party, callee: Party, offer: Offer, ringing: Ringing) -> bytes:
    """Return the 64-byte T over everything that both ends must agree on (CALLKEY-02)."""
    return labelled_hash(
        "call transcript",
        CALL_VERSION.to_bytes(2),
        offer.call_id,
        *caller.parts(),
        *callee.parts(),
        encode_call_message(offer),
        encode_call_message(ringing),
    )


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """One epoch's secret (64 bytes): MAC keys of both directions and base keys of all streams.

    ``transcript`` is that of the epoch: T for epoch 0, and for each later one a hash over the
    former and the Rekey exchange.
    """

    transcript: bytes
    epoch: int
    secret: Secret

    def mac(self, sender: Role, message: AuthenticatedMessage) -> bytes:
        """Return the 64-byte MAC that ``sender`` puts on ``message`` (CALLKEY-05).

        It covers label, call id, direction, type, counter and body. Body is the canonical
        array of the fields between counter and MAC; what ``message.mac`` holds plays no part.
        """
        key = self._derive("call mac key", SECRET_BYTES, _DIRECTION[sender])
        return labelled_mac(
            "call message",
            key,
            message.call_id,
            _DIRECTION[sender],
            _type(message),
            message.counter.to_bytes(4),
            _body(message),
        )

    def verify(self, sender: Role, message: AuthenticatedMessage) -> None:
        """Accept ``message`` only with the MAC that ``sender`` would put on it.

        Raises:
            RemoteProtocolError: BAD_MAC, also where it has none.
        """
        verify_mac(self.mac(sender, message), message.mac or b"")

    def frame_key(self, sender: Role, stream: Stream) -> FrameKey:
        """Return key id and 32-byte base key of what ``sender`` sends as ``stream``."""
        number = _SENDER[sender]
        parts = (stream.to_bytes(1), number.to_bytes(1))
        base_key = self._derive("call frame key", BASE_KEY_BYTES, *parts)
        return FrameKey(key_id(self.epoch, stream, number), base_key)

    def following(
        self, first: Rekey | Path, reply: RekeyReply | PathReply, x25519: Secret, mlkem: Secret
    ) -> Self:
        """Return the next epoch, which these two messages agreed on (CALLKEY-10, CALLKEY-11).

        It hangs on this epoch's secret as well as on both fresh ones; nothing leads back.
        """
        number = self.epoch + 1
        transcript = labelled_hash(
            "call rekey",
            self.transcript,
            number.to_bytes(4),
            _type(first),
            _body(first),
            _type(reply),
            _body(reply),
        )
        secret = _epoch_secret(transcript, number, self.secret, x25519, mlkem)
        return type(self)(transcript, number, secret)

    def _derive(self, purpose: str, length: int, *context: bytes) -> Secret:
        return Secret(
            labelled_kdf(
                purpose,
                salt=self.transcript,
                secrets=(self.secret,),
                context=(self.epoch.to_bytes(4), *context),
                length=length,
            )
        )


@dataclass(frozen=True, slots=True)
class MediaKeys:
    """The frame keys of one epoch, seen from one end."""

    keys: EpochKeys
    role: Role

    def sending(self, stream: Stream) -> FrameKey:
        """Return the key for what this end sends; make exactly one `SFrameSender` of it."""
        return self.keys.frame_key(self.role, stream)

    def receiving(self, stream: Stream) -> FrameKey:
        """Return the key for what the peer sends: its sender id and no other (CALLKEY-07)."""
        peer = Role.CALLEE if self.role is Role.CALLER else Role.CALLER
        return self.keys.frame_key(peer, stream)


@dataclass(frozen=True, slots=True)
class CallKeys:
    """The call key with the transcript it is bound to, and everything derived from it."""

    transcript: bytes
    call_key: Secret

    @classmethod
    def derive(cls, transcript: bytes, x25519: Secret, mlkem: Secret, seed: Secret) -> Self:
        """Combine X25519 secret, ML-KEM secret and the Offer's seed under T (CALLKEY-03)."""
        key = labelled_kdf(
            "call key", salt=transcript, secrets=(x25519, mlkem, seed), length=SECRET_BYTES
        )
        return cls(transcript, Secret(key))

    def first_epoch(self) -> EpochKeys:
        """Return epoch 0, the one every call starts in (CALLKEY-04)."""
        secret = _epoch_secret(self.transcript, 0, self.call_key)
        return EpochKeys(self.transcript, 0, secret)

    def sas(self, nonce: bytes) -> SAS:
        """Return the spoken code: 24 bits over call key, T and the revealed nonce (CALLKEY-06)."""
        bits = labelled_kdf(
            "call sas",
            salt=self.transcript,
            secrets=(self.call_key,),
            context=(nonce,),
            length=SAS_BITS // 8,
        )
        return SAS(int.from_bytes(bits))


def verify_commitment(offer: Offer, caller: Party, callee: Party, nonce: bytes) -> None:
    """Accept ``nonce`` only where it opens the Offer's commitment.

    Raises:
        RemoteProtocolError: BAD_COMMITMENT.
    """
    expected = commitment(offer.call_id, caller, callee, nonce)
    if expected != offer.commitment:  # both are public: nothing to hide from a clock
        raise RemoteProtocolError(Reason.BAD_COMMITMENT)


def _epoch_secret(transcript: bytes, number: int, *secrets: Secret) -> Secret:
    return Secret(
        labelled_kdf(
            "call epoch",
            salt=transcript,
            secrets=secrets,
            context=(number.to_bytes(4),),
            length=SECRET_BYTES,
        )
    )


def _type(message: AuthenticatedMessage) -> bytes:
    tag = message.__struct_config__.tag
    assert isinstance(tag, int)  # each call message has a number
    return tag.to_bytes(1)


def _body(message: AuthenticatedMessage) -> bytes:
    """Return the canonical array of the fields between counter and MAC."""
    return encode([getattr(message, field) for field in message.__struct_fields__[2:-1]])
