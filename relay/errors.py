"""Errors of the relay, by who can do something about them (spec/wire.md, Errors).

`OperatorError` is told to the person who runs the relay, `RefusedError` to the client that
asked. Bytes that are no message at all are `relay.wire.errors.WireError`.
"""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from relay.wire.messages import ErrorCode

_OF_ADDRESSES: Final = {
    errno.EADDRINUSE: "another program has this port: `ss -lntup` as root says which",
    errno.EACCES: "a port below 1024 needs root or, as the systemd unit has it, the capability "
    "CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address: `ip address` lists those it has",
}


class RelayError(Exception):
    """Root of the relay's own errors."""


class OperatorError(RelayError):
    """The relay cannot start or go on as it is set up. ``hint`` says what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration. ``key`` is ``section.key``, or a section."""

    key: str
    what: str
    hint: str | None = None
    where: str = ""
    """File and line, or the environment, once that is known."""

    def __str__(self) -> str:
        return f"{self.where}: {self.key} {self.what}" if self.where else f"{self.key} {self.what}"


class ConfigurationError(OperatorError):
    """A configuration that cannot be served, with everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class AddressError(OperatorError):
    """An address that cannot be listened on, with what to do about the usual reasons."""

    def __init__(self, message: str, reason: OSError) -> None:
        super().__init__(f"{message}: {reason.strerror}", hint=_OF_ADDRESSES.get(reason.errno or 0))


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


class FencedError(RelayError):
    """A claim on a mailbox no longer holds. ``is_taken``: by a later one, or removed for good."""

    def __init__(self, *, is_taken: bool) -> None:
        super().__init__("the mailbox is read by another connection" if is_taken else "expired")
        self.is_taken = is_taken
