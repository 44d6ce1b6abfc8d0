"""What a STUN or TURN message can be refused for (RFC 8489 section 14.8, RFC 8656 section 19).

It decides nothing: parsers raise `STUNError`, request handlers raise `RefusedError`.
"""

from enum import IntEnum, unique


class STUNError(ValueError):
    """Bytes that are no well-formed STUN message or attribute; nothing of them was used."""


@unique
class ErrorCode(IntEnum):
    """The error codes this server answers with."""

    BAD_REQUEST = 400
    UNAUTHENTICATED = 401
    FORBIDDEN = 403
    UNKNOWN_ATTRIBUTE = 420
    ALLOCATION_MISMATCH = 437
    STALE_NONCE = 438
    ADDRESS_FAMILY_NOT_SUPPORTED = 440
    WRONG_CREDENTIALS = 441
    UNSUPPORTED_TRANSPORT_PROTOCOL = 442
    PEER_ADDRESS_FAMILY_MISMATCH = 443
    ALLOCATION_QUOTA_REACHED = 486
    INSUFFICIENT_CAPACITY = 508

    @property
    def reason(self) -> str:
        """The reason phrase, for people who read a packet dump."""
        return self.name.replace("_", " ").capitalize()


class RefusedError(Exception):
    """A request that is answered with an error response; the state is as it was before.

    ``unknown`` lists the attribute types of a 420.
    """

    def __init__(self, code: ErrorCode, *, unknown: tuple[int, ...] = ()) -> None:
        super().__init__(code.reason)
        self.code = code
        self.unknown = unknown
