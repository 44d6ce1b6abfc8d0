"""How often a peer may break off an exchange (spec/call.md, "Unfinished exchanges").

A peer that takes a Ringing and never shows its nonce had a free guess at a spoken code. Here
those are counted, one immutable value per peer; the client stores and shows it.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Self

from msgspec import Meta, Struct

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.messages import CallId
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError

MAX_UNFINISHED: Final = 3
"""Exchanges that may stay unfinished within `UNFINISHED_WINDOW`; a fourth is not answered."""

UNFINISHED_WINDOW: Final = 600.0
"""Seconds an unfinished exchange counts."""

REMEMBERED_CALLS: Final = 32
"""CallIds that cannot be used again; fresh shares make an older one harmless."""

_LIMIT: Final = 4_096


class Unfinished(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``[call_id, started_ms]``: a Ringing that went out and no Reveal that opened."""

    call_id: CallId
    started_ms: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF_FFFF)]


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    unfinished: Annotated[tuple[Unfinished, ...], Meta(max_length=MAX_UNFINISHED)]
    rung: Annotated[tuple[CallId, ...], Meta(max_length=REMEMBERED_CALLS)]


@dataclass(frozen=True, slots=True)
class ExchangeGuard:
    """The exchanges with one peer, as callee. Times are Unix seconds.

    Store what `start` returned before the Ringing leaves, so that a restart forgets nothing.
    """

    unfinished: tuple[Unfinished, ...] = ()
    rung: tuple[bytes, ...] = ()

    def start(self, call_id: bytes, now: float) -> Self:
        """Return the guard with this exchange counted; call it before `Call.ring` (CALL-08).

        Raises:
            RemoteProtocolError: REPLAYED, where the CallId was used before; LIMIT, where
                `MAX_UNFINISHED` exchanges are unfinished. No Ringing may go out then.
        """
        if call_id in self.rung:
            raise RemoteProtocolError(Reason.REPLAYED)
        recent = self._recent(now)
        if len(recent) >= MAX_UNFINISHED:
            raise RemoteProtocolError(Reason.LIMIT)
        started = Unfinished(call_id, int(now * 1000))
        return type(self)((*recent, started), (*self.rung, call_id)[-REMEMBERED_CALLS:])

    def finish(self, call_id: bytes) -> Self:
        """Return the guard without this exchange: its Reveal opened (the `Alert` event)."""
        others = tuple(entry for entry in self.unfinished if entry.call_id != call_id)
        return type(self)(others, self.rung)

    def count(self, now: float) -> int:
        """Return how many exchanges are unfinished, to be shown with the peer's name."""
        return len(self._recent(now))

    def to_bytes(self) -> bytes:
        """Return the guard for the store."""
        return encode(_Stored(self.unfinished, self.rung))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a stored guard.

        Raises:
            LocalProtocolError: these are not the bytes of a guard.
        """
        try:
            stored = decode(data, _Stored, limit=_LIMIT)
        except WireError as error:
            raise LocalProtocolError("not a stored exchange guard") from error
        return cls(stored.unfinished, stored.rung)

    def _recent(self, now: float) -> tuple[Unfinished, ...]:
        return tuple(
            entry
            for entry in self.unfinished
            if abs(now - entry.started_ms / 1000) < UNFINISHED_WINDOW
        )
