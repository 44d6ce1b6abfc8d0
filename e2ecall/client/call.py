"""One call, as a program sees it (spec/call.md): the shell around `e2ecall.protocol.call`.

Feeds the protocol with messages and time, sends what it wants sent, and lets media begin when it
says so and not before. Decides nothing about what is allowed.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import TaskGroup

from e2ecall.client import events as public
from e2ecall.client.calllink import CallLink
from e2ecall.client.callmedia import CallMedia, MediaChoice
from e2ecall.client.iteration import Following
from e2ecall.errors import E2ECallError, LocalProtocolError, MediaError, RemoteProtocolError
from e2ecall.protocol import call as protocol
from e2ecall.protocol.call_events import (
    Alert,
    Ended,
    EndReason,
    PeerMediaState,
    PeerRinging,
    RemoteCandidates,
    SasReady,
    StartMedia,
)
from e2ecall.protocol.call_events import CallEvent as ProtocolEvent
from e2ecall.protocol.call_exchange import CalleeSecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.messages import CallMessage, Candidate, Offer, Stream
from relay.wire.messages import Ticket, TurnCredential

if TYPE_CHECKING:
    from e2ecall.media.sinks import Sink
    from e2ecall.media.sources import AudioSource, VideoSource

MAX_EVENTS: Final = 256
"""Events kept for a program that does not read them; older ones are dropped, `Ended` never."""

GOODBYE_TIMEOUT: Final = 3.0
"""Seconds for the last messages of a call to leave."""

_NO_MEDIA: Final = MediaChoice()

_TICK: Final = 0.25
"""Seconds between looks at the clock: a deadline may pass while the machine sleeps."""

_END_REASONS: Final = {
    "wrong_fingerprint": EndReason.NOT_AUTHENTIC,
    "undecryptable": EndReason.NOT_AUTHENTIC,
    "silent": EndReason.CONNECTION_LOST,
    "transport_lost": EndReason.CONNECTION_LOST,
}
"""How a failure of the media transport is told; anything else is MEDIA_FAILED."""

_Job = Callable[..., Coroutine[Any, Any, None]]

_log = logging.getLogger(__name__)


class Call:
    """A call that was placed or that comes in. Ends by itself; leaving the client ends it too.

    Methods may be cancelled at any time: what was asked for then happens or not, and the call
    stays usable.
    """

    def __init__(
        self,
        machine: protocol.Call,
        choice: MediaChoice = _NO_MEDIA,
        *,
        by_itself: bool = False,
        confirm: Callable[[Party], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """Made by the client. ``by_itself`` is for the callee after glare, who accepts at once."""
        self._machine = machine
        self._choice = choice
        self._by_itself = by_itself
        self._link: CallLink | None = None
        self._media: CallMedia | None = None
        self._confirm = confirm
        self._clock = clock
        self._events: deque[public.CallEvent] = deque(maxlen=MAX_EVENTS)
        self._changed = anyio.Event()
        self._outgoing: deque[CallMessage] = deque()
        self._start: StartMedia | None = None
        self._candidates: tuple[Candidate, ...] = ()
        self._remote_candidates: tuple[Candidate, ...] = ()
        self._gathered = False
        self._rang = False
        self._life = anyio.CancelScope()
        self._goodbye = anyio.CancelScope()
        self._tasks: TaskGroup | None = None
        self._waiting: list[tuple[_Job, tuple[object, ...]]] = []
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

    # --- what a program can ask ---------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The address of the other person."""
        return self._machine.remote.address

    @property
    def state(self) -> CallState:
        """Where the call stands."""
        return self._machine.state

    @property
    def sas(self) -> public.Sas | None:
        """The code to compare by voice, once it is known."""
        return self._sas

    @property
    def ended(self) -> public.Ended | None:
        """Why the call is over, or None while it is not."""
        return self._ended

    def events(self) -> Following[public.CallEvent]:
        """Iterate over what happens, in order, to `Ended`; for one reader at a time.

        The loop may be left and begun again at any time.
        """
        return Following(self._next_event)

    async def mute(self, muted: bool = True) -> None:
        """Send silence of the same size and rate instead of the microphone, or the microphone."""
        await self.media.mute(muted)
        if self._machine.state in {CallState.CONNECTING, CallState.CONNECTED}:
            self._machine.set_media_state(
                muted=muted, camera=self.media.sends_video, now=self._clock()
            )
            self._pump()

    async def unmute(self) -> None:
        """Send the microphone again."""
        await self.mute(muted=False)

    async def confirm_sas(self) -> None:
        """The spoken codes were compared and are the same: this identity is verified now.

        Raises:
            LocalProtocolError: there is no code yet.
        """
        if self._sas is None:
            raise LocalProtocolError("there is no code to compare yet")
        await self._confirm(self._machine.remote)

    async def hangup(self) -> None:
        """End the call, in whichever way its state asks for, and wait until all is released."""
        self.leave()
        await self.closed.wait()

    def use(
        self,
        audio: "AudioSource | None",
        video: "VideoSource | None",
        output: "Sink | None",
    ) -> None:
        """Say what to send and where to play; before the call is accepted."""
        self._choice = MediaChoice(audio, video, output)
        if self._media is not None:
            self._media.use(self._choice)

    @property
    def media(self) -> CallMedia:
        """The call's media, for its counters.

        Raises:
            LocalProtocolError: the call ended before it had any.
        """
        if self._media is None:
            raise LocalProtocolError("this call has no media")
        return self._media

    async def _next_event(self) -> public.CallEvent:
        while not self._events:
            if self._ended is not None:
                raise StopAsyncIteration
            await self._changed.wait()
        return self._events.popleft()

    async def wait_ended(self) -> public.Ended:
        """Wait for the end of the call and return why."""
        while self._ended is None:
            await self._changed.wait()
        return self._ended

    # --- life ---------------------------------------------------------------------------------

    def attach(self, link: CallLink, media: CallMedia | None = None) -> None:
        """Give the call its link, and its media if they come together; they belong to it then."""
        self._link = link
        link.on_message(self.receive)
        if media is not None:
            self.provide(media)
        self._notify()

    def provide(self, media: CallMedia) -> None:
        """Give the call its media."""
        self._media = media
        media.use(self._choice)

    @property
    def has_media(self) -> bool:
        """Whether there is media already."""
        return self._media is not None

    def owns(self, media: CallMedia) -> bool:
        """Whether this is the media of the call, and so released with it."""
        return self._media is media

    def carry_on(self, machine: protocol.Call) -> None:
        """Go on as the callee of the peer's call (CALL-09), with the media chosen for the own one.

        The former call ends without a word and without an event. A link has to be attached anew,
        as the boxes of a call are at its callee's relay.
        """
        self._machine.superseded(self._clock())
        self._machine = machine
        self._by_itself = True
        self._outgoing.clear()
        self._rang = False
        self._detach()
        self._notify()

    @property
    def rang(self) -> bool:
        """Callee: whether the Ringing was made, and so will be sent."""
        return self._rang

    @property
    def by_itself(self) -> bool:
        """Whether the call is accepted without asking: its user called the same person."""
        return self._by_itself

    async def run(self) -> None:
        """Carry the call to its end and release what it holds; raises nothing. The client runs it.

        What goes wrong inside is logged and ends this call alone.
        """
        self.under_way.set()
        try:
            with self._life:
                async with anyio.create_task_group() as tasks:
                    self._pump()
                    for task in (self._keep_time, self._follow_media, self._follow_link):
                        tasks.start_soon(task)
                    tasks.start_soon(self._carry_media)
                    with self._goodbye:
                        await self._send_all()
                    await self.wait_ended()
                    tasks.cancel_scope.cancel()
        except* Exception:  # noqa: BLE001 - one call must not end the client; see above
            _log.exception("a call ended by an error of this program")
            self.fail(EndReason.CONNECTION_LOST)
            await self.say_goodbye()
        finally:
            await self.discard()

    async def discard(self) -> None:
        """Release what the call holds, ending it if it has not ended; also if it never ran."""
        try:
            if self._ended is None:
                self.leave()
            self._detach()
            await self._close_media()
        finally:
            self.closed.set()

    def abandon(self) -> None:
        """End the call now, without its last words."""
        self._life.cancel()

    def ring(self, ticket: Ticket, secrets: CalleeSecrets) -> None:
        """Callee: send the Ringing, and make the TURN allocation."""
        assert self._link is not None
        self._machine.ring(
            media=self.media.description,
            reply_box=self._link.box,
            turn=ticket.b,
            secrets=secrets,
            now=self._clock(),
        )
        self._rang = True
        self.allocate(ticket.a)
        self._pump()

    async def _carry_media(self) -> None:
        """Do what media has to do; at the end of the call at once no more, whatever else waits."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for function, args in self._waiting:
                    tasks.start_soon(function, *args)
                self._waiting.clear()
                await self.wait_ended()
                tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            await self._close_media()

    async def _close_media(self) -> None:
        if self._media is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await self._media.close()
            except MediaError as error:  # the engine is closed, and with it this
                _log.info("media was closed already: %s", error)
            finally:
                self._media.events.close()

    def _detach(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def allocate(self, credential: TurnCredential) -> None:
        """Make this end's TURN allocation, and nothing else, while it rings."""
        self._spawn(self._gather, credential)

    async def accept(self) -> None:
        """Callee: answer, once the relayed address is there."""
        while not self._gathered and self._ended is None:
            await self._changed.wait()
        if self._ended is not None:
            raise LocalProtocolError(f"the call is over already: {self._ended.reason}")
        self._machine.accept(
            audio=True,
            video=self.media.sends_video,
            candidates=self._candidates,
            now=self._clock(),
        )
        self._pump()

    def glare(self, offer: Offer, sender: Party) -> protocol.Glare:
        """Return what to do with an Offer that arrives while this call lives."""
        return self._machine.glare(offer, sender)

    def receive(self, message: CallMessage) -> None:
        """Take a message of the peer; refusals are logged and change nothing. Raises nothing."""
        try:
            self._machine.receive(message, self._clock())
        except RemoteProtocolError as error:
            _log.info("a call message was refused: %s", error.reason)
        self._pump()

    def on_time(self) -> None:
        """End the call where its time is over, also if no timer has fired."""
        if self._machine.on_time(self._clock()):
            self._pump()

    def leave(self) -> None:
        """End the call in whichever way its state asks for, without waiting."""
        self._machine.leave(self._clock())
        self._pump()

    def fail(self, reason: EndReason) -> None:
        """End the call because something failed at this end."""
        if self._machine.state is not CallState.ENDED:
            self._machine.failed(reason, self._clock())
        self._pump()

    # --- acting on the protocol ---------------------------------------------------------------

    def _pump(self) -> None:
        """Do what the protocol asks for after each step of it."""
        self._outgoing.extend(self._machine.messages_to_send())
        for event in self._machine.events():
            self._act(event)
        self._notify()

    def _tell(self, event: public.CallEvent) -> None:
        """Keep an event for the program; `Ended` is the last one, whatever media still reports."""
        if self._ended is None or event is self._ended:
            self._events.append(event)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _act(self, event: ProtocolEvent) -> None:
        match event:
            case PeerRinging(turn):
                self._tell(public.Ringing())
                self.allocate(turn)
            case SasReady(code):
                self._sas = public.Sas(code.emoji, code.digits)
                self._tell(self._sas)
            case Alert():
                self.alerting.set()
                if self._by_itself:
                    self._spawn(self._accept_by_itself)
            case StartMedia():
                self._start = event
                self._remote_candidates = event.remote_candidates
                self._spawn(self._start_media)
            case RemoteCandidates(candidates):
                # Both allocate before they answer, so the first ones decide; see `_start_media`.
                self._remote_candidates += candidates
            case PeerMediaState(muted, camera):
                self._tell(public.MediaState(muted, camera))
            case Ended(reason, by_peer):
                self._ended = public.Ended(reason, by_peer)
                self._tell(self._ended)
                self.alerting.set()
                self.under_way.set()
                self.preparing.cancel()
                # From here on, not from the next message on: one may be stuck on its way.
                self._goodbye.deadline = anyio.current_time() + GOODBYE_TIMEOUT

    def _spawn(self, function: _Job, *args: object) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(function, *args)
        elif self._ended is None:
            self._waiting.append((function, args))

    async def _gather(self, credential: TurnCredential) -> None:
        assert self._link is not None
        try:
            self._candidates = await self.media.gather(self._link.turn_uri, credential)
            if self._machine.role is Role.CALLER:
                await self.media.prepare()
        except E2ECallError as error:
            _log.warning("media cannot be allocated: %s", error)
            self.fail(EndReason.MEDIA_FAILED)
            return
        self._gathered = True
        if self._machine.role is Role.CALLER and self._machine.state is not CallState.ENDED:
            self._machine.add_candidates(self._candidates, self._clock())
        self._pump()

    async def _start_media(self) -> None:
        start = self._start
        assert start is not None
        try:
            await self.media.prepare()
            while not (self._gathered and self._remote_candidates):
                await self._changed.wait()
            await self.media.start(self._machine.role, start, self._remote_candidates)
        except E2ECallError as error:
            _log.warning("media cannot start: %s", error)
            self.fail(EndReason.MEDIA_FAILED)

    async def _accept_by_itself(self) -> None:
        try:
            await self.accept()
        except LocalProtocolError as error:
            _log.info("a call that crossed the own one was not accepted: %s", error)

    # --- the tasks of a call ------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while self._ended is None:
            self.on_time()
            await anyio.sleep(_TICK)

    async def _send_all(self) -> None:
        """Send what is due in order, until the call has ended and all is out."""
        while self._ended is None or self._outgoing:
            if not self._outgoing or self._link is None:
                await self._changed.wait()
                continue
            message = self._outgoing.popleft()
            try:
                await self._link.send(message, self._machine.peer_box)
            except E2ECallError as error:
                _log.warning("a call message could not be sent: %s", type(error).__name__)
                self.fail(EndReason.CONNECTION_LOST)
                return

    async def say_goodbye(self) -> None:
        """Tell the peer that this end has left, where nothing else sends any more."""
        with anyio.move_on_after(GOODBYE_TIMEOUT):
            try:
                await self._send_all()
            except Exception:  # noqa: BLE001 - the same error may be in the way here
                _log.exception("the end of a call could not be told")

    async def _follow_link(self) -> None:
        while self._ended is None:
            link = self._link
            if link is None:
                await self._changed.wait()
                continue
            await link.wait_lost()
            if link is self._link:
                self.fail(EndReason.CONNECTION_LOST)

    async def _follow_media(self) -> None:
        from e2ecall.media.events import (
            FirstFrame,
            FrameRefused,
            MediaFailed,
            PeerClosed,
        )

        refused: dict[Stream, int] = {}
        with contextlib.suppress(anyio.ClosedResourceError):  # the end of media is the end here
            async for event in self.media.events:
                match event:
                    case FirstFrame(stream=stream):
                        self._first_frame(stream)
                    case FrameRefused(stream=stream, count=count):
                        refused[stream] = count
                        self._tell(public.FramesRefused(sum(refused.values())))
                        self._notify()
                    case MediaFailed(reason=reason):
                        _log.warning("media failed: %s", reason)
                        self.fail(_END_REASONS.get(reason, EndReason.MEDIA_FAILED))
                    case PeerClosed():
                        # The Hangup says why, but takes another way: give it time to arrive.
                        await anyio.sleep(GOODBYE_TIMEOUT)
                        self.fail(EndReason.CONNECTION_LOST)

    def _first_frame(self, stream: Stream) -> None:
        if self.state is CallState.CONNECTING:
            self._machine.media_connected(self._clock())
            if self._machine.state is CallState.CONNECTED:
                self._tell(public.Connected())
        if stream is Stream.CAMERA:
            self._tell(public.FirstVideo())
        self._pump()


class IncomingCall:
    """Somebody calls: accept or decline, while it rings."""

    def __init__(self, call: Call, *, verified: bool, wants_video: bool) -> None:
        """Made by the client."""
        self._call = call
        self.caller = call.peer
        """The caller's address; a relay that the user chose vouches for it."""
        self.verified = verified
        """Whether the caller's identity was compared before, by a spoken code."""
        self.wants_video = wants_video
        """Whether the caller wants to send video."""

    @property
    def call(self) -> Call:
        """The call, also before it is accepted: its state and events can be followed."""
        return self._call

    async def accept(
        self,
        *,
        audio: "AudioSource | None" = None,
        video: "VideoSource | None" = None,
        output: "Sink | None" = None,
    ) -> Call:
        """Answer; from here on this end may send. Without ``audio`` silence is sent.

        Raises:
            LocalProtocolError: the call is over already, for instance cancelled.
        """
        self._call.use(audio, video, output)
        await self._call.accept()
        return self._call

    async def decline(self) -> None:
        """Do not answer, and tell the caller."""
        await self._call.hangup()
