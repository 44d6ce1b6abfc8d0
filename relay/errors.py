"""Errors of the relay, by who can do something about them (spec/wire.md, Errors).

`OperatorError` is told to the person who runs the relay, `RefusedError` to the client that
asked. Bytes that are no message at all are `relay.wire.errors.WireError`.
"""

from relay.wire.messages import ErrorCode


class RelayError(Exception):
    """Root of the relay's own errors."""


class OperatorError(RelayError):
    """The relay cannot start or go on as it is set up. ``hint`` says what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class SignatureError(RelayError):
    """A signature or a signed record does not hold. The sender learns nothing more precise."""


class TicketError(RelayError, ValueError):
    """A TURN username is not one that this relay gave out, or not any more."""


class RefusedError(RelayError):
    """A request that is answered with a `Failure` and that changed nothing.

    ``retry_after`` is in seconds; 0 where asking again is no use.
    """

    def __init__(self, code: ErrorCode, text: str, *, retry_after: int = 0) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after = retry_after


class StorageError(RelayError):
    """The storage failed; what was asked is not done and may be asked again."""
