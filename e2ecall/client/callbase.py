"""One end of a call with what it holds (spec/call.md): its protocol, link, media, events and end.

Feeds the protocol with time and acts on what it asks for, which `e2ecall.client.callsteps` says.
It runs no tasks of its own: how a call lives and ends is `e2ecall.client.calllife`.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import TaskGroup

from e2ecall.client import events as public
from e2ecall.client.calllink import CallLink
from e2ecall.client.callmedia import CallMedia, MediaChoice, keeps
from e2ecall.client.history import PastCall
from e2ecall.errors import LocalProtocolError
from e2ecall.protocol import call as protocol
from e2ecall.protocol.call_events import CallEvent as ProtocolEvent
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.call_table import CallState
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.messages import CallMessage, Candidate, LeaveReason, Path, Stream
from relay.wire.messages import Ticket

if TYPE_CHECKING:
    from e2ecall.media.sources import VideoSource

MAX_EVENTS: Final = 256
"""Events kept for a program that does not read them; older ones are dropped, `Ended` never."""

_NO_MEDIA: Final = MediaChoice()

Job = Callable[..., Coroutine[Any, Any, None]]


class CallBase(ABC):
    """One end of a call: its protocol, its link, its media, and what it tells the program."""

    def __init__(
        self,
        machine: protocol.Call,
        choice: MediaChoice = _NO_MEDIA,
        *,
        by_itself: bool = False,
        shows_pictures: bool = True,
        confirm: Callable[[Party], Awaitable[None]],
        clock: Callable[[], float],
        began: float,
        note: Callable[[PastCall], Awaitable[None]],
    ) -> None:
        """Made by the client. ``by_itself`` is for the callee after glare, who accepts at once.

        ``shows_pictures`` is whether the user's rules let the peer's pictures in. ``clock`` is what
        the protocol is told, and cannot be set; ``began`` is the time of day.
        """
        self._note = note
        self._began = began
        self._connected_at: float | None = None
        self._machine = machine
        self._choice = choice
        self._shown: dict[Stream, VideoSource] = {}  # the last of each, to be opened once more
        self._wanted = Controls(camera=choice.video is not None, recording=keeps(choice.output))
        self._peer_muted = False
        self._shows_pictures = shows_pictures
        # REACH-13: who calls with a picture, or asks for one, wants to see.
        self._hides_pictures = choice.video is None and not shows_pictures
        self._controlling = anyio.Lock()  # held while a picture is exchanged
        self._turned_off = dict.fromkeys(Stream, 0)  # how often, to tell what was asked for before
        self._by_itself = by_itself
        self._link: CallLink | None = None
        self._media: CallMedia | None = None
        self._confirm = confirm
        self._clock = clock
        self._events: deque[public.CallEvent] = deque(maxlen=MAX_EVENTS)
        self._changed = anyio.Event()
        self._proposed: Path | None = None
        self._lost_at: float | None = None
        self._reconnecting = False
        self.fetch_ticket: Callable[[], Awaitable[Ticket]] | None = None
        """Callee: how to get the ticket for another path."""
        self.check_home: Callable[[], None] = lambda: None
        """Have the line to the own relay look whether it still works."""
        self._outgoing: deque[CallMessage] = deque()
        self._candidates: tuple[Candidate, ...] = ()
        self._remote_candidates: tuple[Candidate, ...] = ()
        self._gathered = False
        self._rang = False
        self._was_taken = False
        self._life = anyio.CancelScope()
        self._goodbye = anyio.CancelScope()
        self._tasks: TaskGroup | None = None
        self._waiting: list[tuple[Job, tuple[object, ...]]] = []
        self._sas: public.Sas | None = None
        self._ended: public.Ended | None = None
        self.preparing = anyio.CancelScope()
        """What the client prepares before a Ringing; the end of the call ends it."""
        self.under_way = anyio.Event()
        """Set when the call is being carried out, or when it ended before that."""
        self.alerting = anyio.Event()
        """Set when the phone may ring, or when the call ended before that."""
        self.closed = anyio.Event()
        """Set when the call has ended and everything it held is released."""

    @property
    def state(self) -> CallState:
        """Where the call stands."""
        return self._machine.state

    @property
    def ended(self) -> public.Ended | None:
        """Why the call is over, or None while it is not."""
        return self._ended

    @property
    def media(self) -> CallMedia:
        """The call's media, for its counters.

        Raises:
            LocalProtocolError: the call ended before it had any.
        """
        if self._media is None:
            raise LocalProtocolError("this call has no media")
        return self._media

    async def wait_ended(self) -> public.Ended:
        """Wait for the end of the call and return why."""
        while self._ended is None:
            await self._changed.wait()
        return self._ended

    @property
    def has_media(self) -> bool:
        """Whether there is media already."""
        return self._media is not None

    def owns(self, media: CallMedia) -> bool:
        """Whether this is the media of the call, and so released with it."""
        return self._media is media

    @property
    def rang(self) -> bool:
        """Callee: whether the Ringing was made, and so will be sent."""
        return self._rang

    @property
    def was_taken(self) -> bool:
        """Callee: whether the call was accepted."""
        return self._was_taken

    @property
    def hides_pictures(self) -> bool:
        """Whether what the peer's camera and screen show is not shown here."""
        return self._hides_pictures

    @property
    def by_itself(self) -> bool:
        """Whether the call is accepted without asking: its user called the same person."""
        return self._by_itself

    def on_time(self) -> None:
        """Do what is due, and end the call where its time is over, also if no timer has fired."""
        self._machine.on_time(self._clock())
        self._pump()

    def leave(self, reason: LeaveReason = LeaveReason.NORMAL) -> None:
        """End the call in whichever way its state asks for, without waiting.

        ``reason`` is what the peer is told: NORMAL, OTHER_CALL or CALL_BACK.
        """
        self._machine.leave(self._clock(), reason)
        self._pump()

    def fail(self, reason: EndReason) -> None:
        """End the call because something failed at this end."""
        if self._machine.state is not CallState.ENDED:
            self._machine.failed(reason, self._clock())
        self._pump()

    def _pump(self) -> None:
        """Do what the protocol asks for after each step of it, until it asks for nothing more."""
        while True:
            self._outgoing.extend(self._machine.messages_to_send())
            events = self._machine.events()
            if not events:
                break
            for event in events:
                self._act(event)
        self._notify()

    def _tell(self, event: public.CallEvent) -> None:
        """Keep an event for the program; `Ended` is the last one, whatever media still reports."""
        if self._ended is None or event is self._ended:
            self._events.append(event)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    @abstractmethod
    def _act(self, event: ProtocolEvent) -> None:
        """Do what the protocol asks for."""

    def _spawn(self, function: Job, *args: object) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(function, *args)
        elif self._ended is None:
            self._waiting.append((function, args))
