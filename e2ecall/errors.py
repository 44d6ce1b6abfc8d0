"""Every error that e2ecall raises, by what the person or program can do about it.

A peer or relay that misbehaves raises a `RemoteProtocolError` with an opaque text; its `reason`
says precisely what was wrong, for logs and tests only. It translates no foreign exception: each
boundary does that itself.
"""

from enum import StrEnum, unique


class E2ECallError(Exception):
    """Root of all errors of this package. ``hint`` says what the user can do, where it helps."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class LocalProtocolError(E2ECallError):
    """The caller of this library asked for something that the state does not allow."""


@unique
class Reason(StrEnum):
    """What exactly a peer or relay did wrong. Never sent to it."""

    MALFORMED = "malformed"
    BAD_VERSION = "bad_version"
    BAD_SIGNATURE = "bad_signature"
    BAD_POINT = "bad_point"
    BAD_KEM_KEY = "bad_kem_key"
    EXPIRED = "expired"
    STALE_DEVICE_LIST = "stale_device_list"
    WRONG_ADDRESS = "wrong_address"
    UNKNOWN_KEY = "unknown_key"
    REPLAYED = "replayed"
    UNKNOWN_SESSION = "unknown_session"
    NOT_AUTHENTIC = "not_authentic"
    TOO_MANY_SKIPPED = "too_many_skipped"
    CHAIN_MISMATCH = "chain_mismatch"
    BAD_PADDING = "bad_padding"
    BAD_COMMITMENT = "bad_commitment"
    BAD_MAC = "bad_mac"
    WRONG_CALL = "wrong_call"
    UNEXPECTED_MESSAGE = "unexpected_message"
    BAD_CANDIDATE = "bad_candidate"
    BAD_MEDIA_DESCRIPTION = "bad_media_description"
    BAD_FRAME_HEADER = "bad_frame_header"
    UNKNOWN_FRAME_KEY = "unknown_frame_key"
    LIMIT = "limit"
    BLOCKED = "blocked"


class RemoteProtocolError(E2ECallError):
    """A peer or relay sent something that is refused. The state is as it was before."""

    def __init__(self, reason: Reason) -> None:
        super().__init__("the message was refused")
        self.reason = reason


class IdentityChangedError(E2ECallError):
    """A known address shows another identity key. Nothing was sent and nothing was replaced."""


class VerificationFailedError(E2ECallError):
    """Two people compared, and an identity differs. Nothing was verified."""


class StoreError(E2ECallError):
    """The store cannot be opened or written; what it held is untouched."""


class ExportError(E2ECallError):
    """An exported account cannot be read; nothing was imported."""


class RelayError(E2ECallError):
    """The relay refused a request; ``retry_after`` is in seconds, 0 where retrying is no use."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class NotReachableError(RelayError):
    """No such user, or one who does not accept this. Relays never tell which."""


class UsernameTakenError(RelayError):
    """The username is somebody else's."""


class ConnectionFailedError(E2ECallError):
    """The relay cannot be reached, or the connection broke."""


class MediaError(E2ECallError):
    """Media cannot start or cannot go on."""
