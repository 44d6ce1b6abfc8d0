"""What travels inside the ratchet (spec/call.md, "Messages"): payloads and call messages.

Types, layouts and limits only. The order in which they are allowed is `e2ecall.protocol.call`,
their MACs are `e2ecall.protocol.callkeys`, what a description may contain is
`e2ecall.protocol.description`.
"""

from enum import IntEnum, unique
from typing import Annotated, Final, TypeVar

from msgspec import Meta, Struct

from e2ecall.errors import Reason, RemoteProtocolError
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.messages import TurnCredential
from relay.wire.records import PreKey

MAX_PAYLOAD: Final = 32_768
"""Bytes of an encoded payload: the largest padding class."""

MAX_CALL_MESSAGE: Final = 4_096
"""Bytes of an encoded call message: with ratchet header and handshake below the 16 KiB class."""

MAX_TEXT: Final = 16_384
"""Bytes of a text in UTF-8: with ratchet header and handshake below the 32 KiB class."""

MAX_CALL_TEXT: Final = 1_000
"""Characters of a text in a call: of four bytes each they just fit into a call message."""

MAX_STREAMS: Final = 4
"""One of each `Stream`."""

MAX_CANDIDATES: Final = 8
"""Two allocations a side are allowed by the relay; the rest is room for a fleet."""

CALL_ID_BYTES: Final = 16
MAC_BYTES: Final = 64

CallId = Annotated[bytes, Meta(min_length=CALL_ID_BYTES, max_length=CALL_ID_BYTES)]
Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
MLKEM768Key = Annotated[bytes, Meta(min_length=1184, max_length=1184)]
MLKEM768Ciphertext = Annotated[bytes, Meta(min_length=1088, max_length=1088)]
MAC = Annotated[bytes, Meta(min_length=MAC_BYTES, max_length=MAC_BYTES)]
Counter = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
NextEpoch = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
UnixMilliseconds = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF_FFFF)]
PayloadType = Annotated[int, Meta(ge=96, le=127)]
SSRC = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
Port = Annotated[int, Meta(ge=1, le=0xFFFF)]
ICEUfrag = Annotated[str, Meta(min_length=4, max_length=256, pattern=r"\A[A-Za-z0-9+/]*\Z")]
ICEPwd = Annotated[str, Meta(min_length=22, max_length=256, pattern=r"\A[A-Za-z0-9+/]*\Z")]
CallText = Annotated[str, Meta(min_length=1, max_length=MAX_CALL_TEXT)]
IPText = Annotated[str, Meta(min_length=2, max_length=45)]


class _Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Every message is an immutable array of fields; a tagged one begins with its number."""


# --- media ------------------------------------------------------------------------------------


@unique
class Stream(IntEnum):
    """What is sent; the number is part of the SFrame key id and of the base key."""

    MICROPHONE = 0
    CAMERA = 1
    SCREEN = 2
    SCREEN_SOUND = 3


@unique
class Codec(IntEnum):
    """How it is encoded."""

    OPUS = 1
    VP8 = 2


@unique
class CandidateType(IntEnum):
    """Kinds of ICE candidates. Only RELAY is ever used; the others exist to be refused."""

    RELAY = 1
    HOST = 2
    SRFLX = 3
    PRFLX = 4


class StreamDescription(_Message, frozen=True):
    """``[stream, codec, payload_type, ssrc, rtx_payload_type or nil, rtx_ssrc or nil]``."""

    stream: Stream
    codec: Codec
    payload_type: PayloadType
    ssrc: SSRC
    rtx_payload_type: PayloadType | None
    rtx_ssrc: SSRC | None


class MediaDescription(_Message, frozen=True):
    """``[fingerprint, ice_ufrag, ice_pwd, [stream descriptions]]`` of one side's transport.

    ``fingerprint`` is the SHA-256 of the DTLS certificate in DER.
    """

    fingerprint: Bytes32
    ice_ufrag: ICEUfrag
    ice_pwd: ICEPwd
    streams: Annotated[tuple[StreamDescription, ...], Meta(min_length=1, max_length=MAX_STREAMS)]


class Candidate(_Message, frozen=True):
    """``[type, address, port]``: an address as text, which must be a relayed IPv4 one."""

    type: CandidateType
    address: IPText
    port: Port


CandidateList = Annotated[tuple[Candidate, ...], Meta(max_length=MAX_CANDIDATES)]
SomeCandidates = Annotated[tuple[Candidate, ...], Meta(min_length=1, max_length=MAX_CANDIDATES)]


# --- payloads ---------------------------------------------------------------------------------


@unique
class PayloadKind(IntEnum):
    """What ``body`` of a payload is."""

    CALL = 1
    TEXT = 2
    INTRODUCTION = 3
    """The delivery token of the invitation that the sender takes up."""


class Payload(_Message, frozen=True):
    """``[kind, sent_at_ms, sealing_key or nil, token or nil, body]``: a ratchet plaintext.

    ``sealing_key`` and ``token`` are for answering: the sender's HPKE key and, in a first
    message, a delivery token for the peer. ``body`` is an encoded call message or UTF-8 text.
    """

    kind: PayloadKind
    sent_at_ms: UnixMilliseconds
    sealing_key: PreKey | None
    token: Bytes16 | None
    body: Annotated[bytes, Meta(min_length=1, max_length=MAX_TEXT)]

    def __repr__(self) -> str:
        """Show the kind alone: what was said, and tokens, are secrets."""
        return f"Payload({self.kind!r})"


# --- call messages ----------------------------------------------------------------------------


@unique
class LeaveReason(IntEnum):
    """What the peer is told about the end: a user's choice, and nothing that helps it attack."""

    NORMAL = 1
    NO_ANSWER = 2
    FAILED = 3
    OTHER_CALL = 4
    """The user went on with another call."""
    CALL_BACK = 5
    """The user says that they will call back."""


class Offer(_Message, frozen=True, tag=1):
    """Caller to callee's account: everything of the caller that enters the call key."""

    call_id: CallId
    x25519_share: Bytes32
    mlkem_key: MLKEM768Key
    seed: Bytes32
    commitment: Bytes64
    media: MediaDescription
    wants_video: bool
    reply_box: Bytes32

    def __repr__(self) -> str:
        """Show nothing: the seed is a secret of the call key."""
        return "Offer(...)"


class Ringing(_Message, frozen=True, tag=2):
    """Callee to caller: everything of the callee that enters the call key; the phone may ring.

    ``turn`` is the caller's credential. TURN addresses come from the relay's hello, never from
    a peer.
    """

    call_id: CallId
    x25519_share: Bytes32
    mlkem_ciphertext: MLKEM768Ciphertext
    media: MediaDescription
    reply_box: Bytes32
    turn: TurnCredential


class Reveal(_Message, frozen=True, tag=3):
    """Caller to callee: opens the commitment and confirms the key."""

    call_id: CallId
    counter: Counter
    nonce: Bytes32
    mac: MAC


class Answer(_Message, frozen=True, tag=4):
    """Callee to caller: accepted; what the callee will send and where it can be reached."""

    call_id: CallId
    counter: Counter
    audio: bool
    video: bool
    candidates: CandidateList
    mac: MAC


class Decline(_Message, frozen=True, tag=5):
    """Callee to caller: not accepted. The MAC is absent only before a Ringing went out."""

    call_id: CallId
    counter: Counter
    reason: LeaveReason
    mac: MAC | None


class Busy(_Message, frozen=True, tag=6):
    """Callee to caller: in another call. Sent instead of a Ringing, so never with a MAC."""

    call_id: CallId
    counter: Counter
    reason: LeaveReason
    mac: MAC | None


class Cancel(_Message, frozen=True, tag=7):
    """Caller to callee: given up before an Answer. The MAC is absent only before a Ringing."""

    call_id: CallId
    counter: Counter
    reason: LeaveReason
    mac: MAC | None


class Hangup(_Message, frozen=True, tag=8):
    """Either side: the accepted call is over. A key exists by then, so the MAC does too."""

    call_id: CallId
    counter: Counter
    reason: LeaveReason
    mac: MAC


class Candidates(_Message, frozen=True, tag=9):
    """Either side: more candidates. The receiver uses none before the Answer."""

    call_id: CallId
    counter: Counter
    candidates: SomeCandidates
    mac: MAC


class MediaState(_Message, frozen=True, tag=10):
    """Either side: what the sender sends and does, for display; see `call_controls.Controls`."""

    call_id: CallId
    counter: Counter
    muted: bool
    camera: bool
    screen: bool
    held: bool
    recording: bool
    mac: MAC


class Rekey(_Message, frozen=True, tag=11):
    """Caller to callee: begins ``epoch`` with fresh shares; its MAC is of the epoch before."""

    call_id: CallId
    counter: Counter
    epoch: NextEpoch
    x25519_share: Bytes32
    mlkem_key: MLKEM768Key
    mac: MAC


class RekeyReply(_Message, frozen=True, tag=12):
    """Callee to caller: its shares for ``epoch``; its MAC is of that epoch and confirms the key."""

    call_id: CallId
    counter: Counter
    epoch: NextEpoch
    x25519_share: Bytes32
    mlkem_ciphertext: MLKEM768Ciphertext
    mac: MAC


class RekeyRequest(_Message, frozen=True, tag=13):
    """Callee to caller: please begin ``epoch`` now; its MAC is of the epoch before."""

    call_id: CallId
    counter: Counter
    epoch: NextEpoch
    mac: MAC


class Text(_Message, frozen=True, tag=14):
    """Either side: words to be shown to the other person."""

    call_id: CallId
    counter: Counter
    text: CallText
    mac: MAC

    def __repr__(self) -> str:
        """Show nothing: what was written is a secret."""
        return "Text(...)"


class Renegotiate(_Message, frozen=True, tag=15):
    """Either side: asks for the receiver's camera, or to go on without; it decides nothing."""

    call_id: CallId
    counter: Counter
    video: bool
    mac: MAC


class Path(_Message, frozen=True, tag=16):
    """Caller to callee: begins ``epoch`` on a new transport; its MAC is of the epoch before."""

    call_id: CallId
    counter: Counter
    epoch: NextEpoch
    x25519_share: Bytes32
    mlkem_key: MLKEM768Key
    media: MediaDescription
    mac: MAC


class PathReply(_Message, frozen=True, tag=17):
    """Callee to caller: its part of a new path; its MAC is of the new epoch.

    ``turn`` is the caller's credential, as in a Ringing.
    """

    call_id: CallId
    counter: Counter
    epoch: NextEpoch
    x25519_share: Bytes32
    mlkem_ciphertext: MLKEM768Ciphertext
    media: MediaDescription
    turn: TurnCredential
    candidates: SomeCandidates
    mac: MAC


class PathReady(_Message, frozen=True, tag=18):
    """Caller to callee: where the caller can be reached; its MAC is of the new epoch."""

    call_id: CallId
    counter: Counter
    epoch: NextEpoch
    candidates: SomeCandidates
    mac: MAC


class PathRequest(_Message, frozen=True, tag=19):
    """Callee to caller: please begin ``epoch`` on a new path; its MAC is of the epoch before."""

    call_id: CallId
    counter: Counter
    epoch: NextEpoch
    mac: MAC


CallMessage = (
    Offer
    | Ringing
    | Reveal
    | Answer
    | Decline
    | Busy
    | Cancel
    | Hangup
    | Candidates
    | MediaState
    | Rekey
    | RekeyReply
    | RekeyRequest
    | Text
    | Renegotiate
    | Path
    | PathReply
    | PathReady
    | PathRequest
)

AuthenticatedMessage = (
    Reveal
    | Answer
    | Decline
    | Busy
    | Cancel
    | Hangup
    | Candidates
    | MediaState
    | Rekey
    | RekeyReply
    | RekeyRequest
    | Text
    | Renegotiate
    | Path
    | PathReply
    | PathReady
    | PathRequest
)
"""Messages after Ringing: ``[tag, call_id, counter, body fields ..., mac]``."""

T = TypeVar("T")


def encode_payload(payload: Payload) -> bytes:
    """Return the canonical bytes, the plaintext of one ratchet message."""
    return encode(payload)


def decode_payload(data: bytes) -> Payload:
    """Read a ratchet plaintext.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    return _decode(data, Payload, limit=MAX_PAYLOAD)


def encode_call_message(message: CallMessage) -> bytes:
    """Return the canonical bytes, the body of a CALL payload."""
    return encode(message)


def decode_call_message(data: bytes) -> CallMessage:
    """Read the body of a CALL payload.

    Raises:
        RemoteProtocolError: MALFORMED.
    """
    message: CallMessage = _decode(data, CallMessage, limit=MAX_CALL_MESSAGE)  # type: ignore[arg-type]  # a union is not a type to mypy
    return message


def encode_text(text: str) -> bytes:
    """Return the body of a TEXT payload."""
    return text.encode()


def decode_text(body: bytes) -> str:
    """Read the body of a TEXT payload.

    Raises:
        RemoteProtocolError: MALFORMED, where it is not UTF-8.
    """
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(Reason.MALFORMED) from error


def _decode(data: bytes, kind: type[T], *, limit: int) -> T:
    try:
        return decode(data, kind, limit=limit)
    except WireError as error:
        raise RemoteProtocolError(Reason.MALFORMED) from error
