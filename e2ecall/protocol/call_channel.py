"""The MACs and counters of one call's messages (spec/callkeys.md, "Message authentication").

It knows no order of messages: that is `e2ecall.protocol.call`.
"""

import contextlib
from typing import Final, TypeVar

from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.callkeys import EpochKeys, MediaKeys
from e2ecall.protocol.messages import (
    MAC_BYTES,
    AuthenticatedMessage,
    Path,
    PathReady,
    PathReply,
    PathRequest,
    Rekey,
    RekeyReply,
    RekeyRequest,
)
from e2ecall.protocol.replay import ReplayWindow

MESSAGE_WINDOW: Final = 64
"""Messages a late one may lie behind; a relay may reorder, and no counter counts twice."""

MAX_MESSAGES: Final = 0xFFFF
"""Messages one end sends in a call."""

UNSIGNED: Final = bytes(MAC_BYTES)
"""What stands in for the MAC of a message that `CallChannel.sign` gets."""

M = TypeVar("M", bound=AuthenticatedMessage)


class CallChannel:
    """Signs what this end sends and verifies what the peer sends, once keys exist.

    It has the keys of one epoch, or of two while the ends change from one to the next.
    """

    __slots__ = ("_counter", "_live", "_peer", "_role", "_sending", "_window")

    def __init__(self, role: Role) -> None:
        self._role = role
        self._peer = Role.CALLEE if role is Role.CALLER else Role.CALLER
        self._sending: EpochKeys | None = None
        self._live: tuple[EpochKeys, ...] = ()  # the newest first
        self._counter = 0
        self._window = ReplayWindow(MESSAGE_WINDOW)

    @property
    def has_keys(self) -> bool:
        """Whether messages carry MACs."""
        return self._sending is not None

    @property
    def media_keys(self) -> MediaKeys:
        """The frame keys of this end, in the newest epoch.

        Raises:
            LocalProtocolError: there are no keys yet.
        """
        return MediaKeys(self.newest, self._role)

    @property
    def sending(self) -> EpochKeys:
        """The epoch in which this end sends.

        Raises:
            LocalProtocolError: there are no keys yet.
        """
        if self._sending is None:
            raise LocalProtocolError("the call has no keys yet")
        return self._sending

    @property
    def newest(self) -> EpochKeys:
        """The newest epoch, in which the peer may send; raises as `sending` does."""
        return self._live[0] if self._live else self.sending

    @property
    def has_room(self) -> bool:
        """Whether a message may be sent that does not end the call."""
        return self._counter < MAX_MESSAGES - 1

    def set_keys(self, keys: EpochKeys) -> None:
        """Begin with the call's first epoch: send and receive in it."""
        self._sending, self._live = keys, (keys,)

    def add_epoch(self, keys: EpochKeys) -> None:
        """Receive in a new epoch as well; what came before the present one is refused now."""
        self._live = (keys, self.sending)

    def enter_epoch(self) -> None:
        """Send in the newest epoch."""
        self._sending = self.newest

    def retire(self) -> None:
        """Refuse what was sent in any epoch but the newest."""
        self._live = self._live[:1]

    def next_counter(self, *, last: bool = False) -> int:
        """Return the counter of the next message and count it as used.

        The last of the `MAX_MESSAGES` is kept for the message that ends the call.

        Raises:
            LocalProtocolError: all others were sent.
        """
        if not (self.has_room or last):
            raise LocalProtocolError("too many messages in one call")
        counter = self._counter
        self._counter += 1
        return counter

    def sign(self, message: M) -> M:
        """Return the message with its MAC: that of the newest epoch where it is about that one.

        Raises:
            LocalProtocolError: there are no keys yet.
        """
        of_newest = isinstance(message, RekeyReply | PathReply | PathRequest)
        keys = self.newest if of_newest else self.sending
        return replace(message, mac=keys.mac(self._role, message))

    def verify(self, message: AuthenticatedMessage, keys: EpochKeys | None = None) -> None:
        """Accept a message with the peer's MAC under ``keys``, or in an epoch that it may be of.

        Raises:
            RemoteProtocolError: BAD_MAC, also where the MAC is absent or no keys exist yet.
        """
        for candidate in self._live if keys is None else (keys,):
            if _may_be_of(candidate.epoch, message):
                with contextlib.suppress(RemoteProtocolError):
                    candidate.verify(self._peer, message)
                    return
        raise RemoteProtocolError(Reason.BAD_MAC)

    def check_counter(self, message: AuthenticatedMessage) -> None:
        """Accept a verified message that is new.

        Raises:
            RemoteProtocolError: REPLAYED, or LIMIT where the peer sent too many.
        """
        if message.counter >= MAX_MESSAGES:
            raise RemoteProtocolError(Reason.LIMIT)
        self._window.check(message.counter)

    def commit(self, message: AuthenticatedMessage) -> None:
        """Remember a message that was verified, checked and acted upon."""
        self._window.advance(message.counter)

    def forget_keys(self) -> None:
        """Drop the keys: the call is over."""
        self._sending, self._live = None, ()


def _may_be_of(epoch: int, message: AuthenticatedMessage) -> bool:
    """Return whether a message of this content can be signed in this epoch (CALLKEY-12)."""
    match message:
        case Rekey() | RekeyRequest() | Path() | PathRequest():
            return message.epoch == epoch + 1
        case RekeyReply() | PathReply() | PathReady():
            return message.epoch == epoch
        case _:
            return True
