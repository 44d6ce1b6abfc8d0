"""What a call tells its owner (spec/call.md, "Events"): typed, immutable, in order.

Values only. The shell that owns the call acts on them: it sounds, shows, and starts media.
"""

from dataclasses import dataclass, field
from enum import StrEnum, unique

from e2ecall.errors import Reason
from e2ecall.protocol.callkeys import MediaKeys
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.messages import Candidate, MediaDescription, Path, Rekey
from e2ecall.protocol.sas import SAS
from relay.wire.messages import TurnCredential


@unique
class EndReason(StrEnum):
    """Why a call is over."""

    HANGUP = "hangup"
    DECLINED = "declined"
    BUSY = "busy"
    CANCELLED = "cancelled"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    """Accepted, but no media flowed within `CONNECT_TIMEOUT`."""
    NOT_AUTHENTIC = "not_authentic"
    """The peer did not prove to hold the key of this call. To be shown to the user."""
    PROTOCOL_ERROR = "protocol_error"
    """The peer sent what ends a call, such as a candidate outside the relay."""
    KEYS_EXPIRED = "keys_expired"
    """The keys of the call were not replaced in time."""
    MEDIA_FAILED = "media_failed"
    CONNECTION_LOST = "connection_lost"
    """Nothing authentic came from the other end for too long, or its relay is out of reach."""
    PEER_FAILED = "peer_failed"
    """The peer says that something failed at its end; it does not say what."""
    CALL_BACK = "call_back"
    """The peer does not go on with this call, and says that it will call back."""
    SUPERSEDED = "superseded"
    """Both called at once and the peer's call goes on instead (glare)."""


@dataclass(frozen=True, slots=True)
class PeerRinging:
    """Caller: the callee's device is there. Its media transport may be allocated now, not used.

    ``turn`` is the credential for this end's TURN allocation.
    """

    turn: TurnCredential


@dataclass(frozen=True, slots=True)
class SasReady:
    """The spoken code of this call is known."""

    code: SAS


@dataclass(frozen=True, slots=True)
class Alert:
    """Callee: the exchange is complete, the phone may ring."""

    wants_video: bool


@dataclass(frozen=True, slots=True)
class StartMedia:
    """The call was accepted: ICE, DTLS and media may start now, and never before this event.

    ``audio`` and ``video`` are what this end sends, ``peer_audio`` and ``peer_video`` what the
    peer announced to send.
    """

    keys: MediaKeys
    local: MediaDescription
    remote: MediaDescription
    remote_candidates: tuple[Candidate, ...]
    audio: bool
    video: bool
    peer_audio: bool
    peer_video: bool


@dataclass(frozen=True, slots=True)
class RemoteCandidates:
    """More checked candidates of the peer; only ever after `StartMedia`."""

    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class PeerMediaState:
    """What the peer says that it sends and does. For display only."""

    controls: Controls


@dataclass(frozen=True, slots=True)
class PeerText:
    """The peer wrote something; it may hold any characters."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class VideoAsked:
    """The peer asks for this end's camera, or to go on without. The user decides, nobody else."""

    video: bool


@dataclass(frozen=True, slots=True)
class RekeyDue:
    """Caller: a new epoch is due. Draw `RekeySecrets` and call `Call.rekey`."""


@dataclass(frozen=True, slots=True)
class RekeyProposed:
    """Callee: the caller begins a new epoch, with shares that were checked.

    Draw `CalleeSecrets` for ``rekey`` and call `Call.answer_rekey`.
    """

    rekey: Rekey


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """Both ends can have the keys of a new epoch: accept frames of it before any message leaves.

    ``send`` tells whether to send in it at once (caller), or after the peer's first authentic
    frame in it, which `Call.enter_epoch` is told (callee). From there on the frame keys of the
    former epoch live `OLD_KEYS_LIFETIME`; those of any before it end now.
    """

    keys: MediaKeys
    send: bool


@dataclass(frozen=True, slots=True)
class EpochConfirmed:
    """Callee: the caller has the keys of this epoch, so send frames in it as well."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PathDue:
    """Caller: the path is to be replaced. Draw a transport and call `Call.replace_path`."""


@dataclass(frozen=True, slots=True)
class PathProposed:
    """Callee: the caller replaces the path, with shares and a description that were checked.

    Draw `CalleeSecrets` for ``path``, fetch a ticket, allocate, and call `Call.answer_path`.
    """

    path: Path


@dataclass(frozen=True, slots=True)
class PathAgreed:
    """Caller: both ends can have the new epoch's keys. Allocate, and call `Call.ready_path`.

    ``turn`` is the credential for this end's TURN allocation, ``local`` what the Path described.
    """

    epoch: int
    turn: TurnCredential
    local: MediaDescription


@dataclass(frozen=True, slots=True)
class ReplacePath:
    """Connect the transport whose description is ``local``, under these keys and no others.

    When it carries what is authentic the old one ends; `Call.path_alive` and `Call.path_failed`
    are told.
    """

    keys: MediaKeys
    local: MediaDescription
    remote: MediaDescription
    remote_candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """Always the last event, exactly once.

    ``detail`` names precisely what the peer did wrong, for logs and tests only.
    """

    reason: EndReason
    by_peer: bool
    detail: Reason | None = None


CallEvent = (
    PeerRinging
    | SasReady
    | Alert
    | StartMedia
    | RemoteCandidates
    | PeerMediaState
    | PeerText
    | VideoAsked
    | RekeyDue
    | RekeyProposed
    | NewEpoch
    | EpochConfirmed
    | PathDue
    | PathProposed
    | PathAgreed
    | ReplacePath
    | Ended
)
