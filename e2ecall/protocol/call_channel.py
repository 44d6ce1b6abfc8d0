"""The MACs and counters of one call's messages (spec/callkeys.md, "Message authentication").

It knows no order of messages: that is `e2ecall.protocol.call`.
"""

from typing import Final, TypeVar

from msgspec.structs import replace

from e2ecall.errors import LocalProtocolError, Reason, RemoteProtocolError
from e2ecall.protocol.call_table import Role
from e2ecall.protocol.callkeys import EpochKeys, MediaKeys
from e2ecall.protocol.messages import MAC_BYTES, AuthenticatedMessage
from e2ecall.protocol.replay import ReplayWindow

MESSAGE_WINDOW: Final = 64
"""Messages a late one may lie behind; a relay may reorder, and no counter counts twice."""

MAX_MESSAGES: Final = 0xFFFF
"""Messages one end sends in a call."""

UNSIGNED: Final = bytes(MAC_BYTES)
"""What stands in for the MAC of a message that `CallChannel.sign` gets."""

M = TypeVar("M", bound=AuthenticatedMessage)


class CallChannel:
    """Signs what this end sends and verifies what the peer sends, once keys exist."""

    __slots__ = ("_counter", "_keys", "_peer", "_role", "_window")

    def __init__(self, role: Role) -> None:
        self._role = role
        self._peer = Role.CALLEE if role is Role.CALLER else Role.CALLER
        self._keys: EpochKeys | None = None
        self._counter = 0
        self._window = ReplayWindow(MESSAGE_WINDOW)

    @property
    def has_keys(self) -> bool:
        """Whether messages carry MACs."""
        return self._keys is not None

    @property
    def media_keys(self) -> MediaKeys:
        """The frame keys of this end.

        Raises:
            LocalProtocolError: there are no keys yet.
        """
        return MediaKeys(self._epoch(), self._role)

    def set_keys(self, keys: EpochKeys) -> None:
        """Authenticate all messages under these keys from now on."""
        self._keys = keys

    def next_counter(self, *, last: bool = False) -> int:
        """Return the counter of the next message and count it as used.

        The last of the `MAX_MESSAGES` is kept for the message that ends the call.

        Raises:
            LocalProtocolError: all others were sent.
        """
        if self._counter >= MAX_MESSAGES - 1 and not last:
            raise LocalProtocolError("too many messages in one call")
        counter = self._counter
        self._counter += 1
        return counter

    def sign(self, message: M) -> M:
        """Return the message with its MAC.

        Raises:
            LocalProtocolError: there are no keys yet.
        """
        return replace(message, mac=self._epoch().mac(self._role, message))

    def verify(self, message: AuthenticatedMessage) -> None:
        """Accept a message with the peer's MAC.

        Raises:
            RemoteProtocolError: BAD_MAC, also where the MAC is absent or no keys exist yet.
        """
        if self._keys is None:
            raise RemoteProtocolError(Reason.BAD_MAC)
        self._keys.verify(self._peer, message)

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
        self._keys = None

    def _epoch(self) -> EpochKeys:
        if self._keys is None:
            raise LocalProtocolError("the call has no keys yet")
        return self._keys
