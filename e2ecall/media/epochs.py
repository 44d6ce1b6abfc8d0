"""The change from one epoch's frame keys to the next, on the media loop (spec/sframe.md, "Epochs").

Here, and not in the program's own loop, because neither a switch nor the end of a key may wait for
a program that is busy. When an epoch is agreed on is `e2ecall.protocol.call_epochs`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from e2ecall.media.events import EpochEntered, MediaEvent
from e2ecall.media.outgoing import OutgoingStream
from e2ecall.protocol.callkeys import FrameKey
from e2ecall.protocol.messages import Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender


@dataclass(frozen=True, slots=True)
class EpochChange:
    """The frame keys of a new epoch: a sender for each own stream, and the peer's keys.

    ``send`` tells whether to send in it at once, or after the peer's first frame in it. The keys
    of the epoch before it live ``old_keys`` seconds from there on.
    """

    epoch: int
    senders: Mapping[Stream, SFrameSender]
    receiving: tuple[FrameKey, ...]
    send: bool
    old_keys: float


class Epochs:
    """The epochs of one transport: one, or two during a change. Lives on the media loop."""

    def __init__(
        self,
        receiver: SFrameReceiver,
        outgoing: Mapping[Stream, OutgoingStream],
        report: Callable[[MediaEvent], None],
    ) -> None:
        self._receiver = receiver
        self._outgoing = outgoing
        self._report = report
        self._waiting: EpochChange | None = None
        self._using = 0  # the epoch in which this end sends frames
        self._retiring: asyncio.TimerHandle | None = None

    def change(self, change: EpochChange) -> None:
        """Accept frames of a new epoch; what came before the present one is refused from now on."""
        self._stop_timer()
        # CALLKEY-20: the keys that are used on a path live until another one took its place.
        self._receiver.retire_before(min(change.epoch - 1, self._using))
        self.prepare(change)
        if change.send:
            self._enter(change)
        else:
            self._waiting = change

    def prepare(self, change: EpochChange) -> None:
        """Accept frames of a new epoch, on whichever path they are allowed to come."""
        for key in change.receiving:
            self._receiver.add_key(key.kid, key.base_key)

    def move(self, change: EpochChange) -> None:
        """Send in the epoch of a path that took the place of another, or stay in a later one."""
        if change.epoch > self._using:
            self._stop_timer()
            if self._waiting is not None and self._waiting.epoch < change.epoch:
                self._waiting = None
            self._enter(change, waiting=self._waiting)

    def authenticated(self, epoch: int) -> None:
        """Take the epoch of a frame that was authenticated: the first of a new one is the sign."""
        waiting = self._waiting
        if waiting is not None and epoch == waiting.epoch:
            self._enter(waiting)
            self._report(EpochEntered(epoch))

    def close(self) -> None:
        """Change nothing any more."""
        self._stop_timer()
        self._waiting = None

    def _enter(self, change: EpochChange, waiting: EpochChange | None = None) -> None:
        self._waiting = waiting
        self._using = change.epoch
        for stream, track in self._outgoing.items():
            track.change_key(change.senders[stream])
        loop = asyncio.get_running_loop()
        self._retiring = loop.call_later(change.old_keys, self._retire, change.epoch)

    def _retire(self, epoch: int) -> None:
        self._retiring = None
        self._receiver.retire_before(epoch)

    def _stop_timer(self) -> None:
        if self._retiring is not None:
            self._retiring.cancel()
            self._retiring = None
