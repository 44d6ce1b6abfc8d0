"""What a call does when its protocol asks for it (spec/call.md): send, tell, ring, open media.

Feeds the protocol with messages and time and acts on its events. It runs no tasks of its own: how a
call lives and ends is `e2ecall.client.calllife`. Decides nothing about what is allowed.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import TaskGroup

from e2ecall.client import events as public
from e2ecall.client.calllink import CallLink
from e2ecall.client.callmedia import STREAMS, CallMedia, MediaChoice, keeps
from e2ecall.client.history import PastCall
from e2ecall.errors import E2ECallError, LocalProtocolError, MediaError, RemoteProtocolError
from e2ecall.protocol import call as protocol
from e2ecall.protocol.call_core import MEDIA_STATES
from e2ecall.protocol.call_events import (
    Alert,
    Ended,
    EndReason,
    EpochConfirmed,
    NewEpoch,
    PathAgreed,
    PathDue,
    PathProposed,
    PeerMediaState,
    PeerRinging,
    PeerText,
    RekeyDue,
    RekeyProposed,
    RemoteCandidates,
    ReplacePath,
    SasReady,
    StartMedia,
    VideoAsked,
)
from e2ecall.protocol.call_events import CallEvent as ProtocolEvent
from e2ecall.protocol.call_exchange import CalleeSecrets, RekeySecrets
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.messages import (
    CallMessage,
    Candidate,
    LeaveReason,
    MediaDescription,
    Offer,
    Path,
    Stream,
)
from relay.wire.messages import Ticket, TurnCredential

if TYPE_CHECKING:
    from e2ecall.media.sources import VideoSource

MAX_EVENTS: Final = 256
"""Events kept for a program that does not read them; older ones are dropped, `Ended` never."""

GOODBYE_TIMEOUT: Final = 3.0
"""Seconds for the last messages of a call to leave."""

PATH_PAUSE: Final = 1.0
LONGEST_PATH_PAUSE: Final = 8.0
"""Seconds after which a callee that could not answer a Path tries again: doubled each time."""

_NO_MEDIA: Final = MediaChoice()

Job = Callable[..., Coroutine[Any, Any, None]]

_log = logging.getLogger(__name__)


class CallSteps:
    """One end of a call: its protocol, its link, its media, and what passes between them."""

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
        self._controlling = anyio.Lock()
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

    # --- feeding the protocol -------------------------------------------------------------------

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
        self._was_taken = True
        self._pump()

    def glare(self, offer: Offer, sender: Party) -> protocol.Glare:
        """Return what to do with an Offer that arrives while this call lives."""
        return self._machine.glare(offer, sender)

    def receive(self, message: CallMessage) -> None:
        """Take a message of the peer; refusals are logged and change nothing. Raises nothing.

        An error of this program ends the call (CALL-19): it is the line that would be ended by it.
        """
        try:
            try:
                self._machine.receive(message, self._clock())
            except RemoteProtocolError as error:
                _log.info("a call message was refused: %s", error.reason)
            self._pump()
        except Exception:  # noqa: BLE001 - one call must not end the client; see above
            _log.exception("a call ended by an error of this program")
            self.fail(EndReason.CONNECTION_LOST)

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

    # --- acting on it -----------------------------------------------------------------------------

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

    def _path_is_replaced(self) -> None:
        """Tell the program of it, once: this end misses the peer, or the peer this end."""
        if self.state is CallState.CONNECTED and not self._reconnecting:
            self._reconnecting = True
            self._tell(public.Reconnecting())

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
                self._say_controls()
                self._remote_candidates = event.remote_candidates
                self._spawn(self._start_media, event)
            case RemoteCandidates() | PathDue() | PathProposed() | PathAgreed() | ReplacePath():
                self._change_path(event)
            case RekeyDue() | RekeyProposed() | NewEpoch() | EpochConfirmed():
                self._rekey(event)
            case PeerMediaState() | PeerText() | VideoAsked():
                self._tell(_told_by_peer(event))
            case Ended(reason, by_peer):
                self._ended = public.Ended(reason, by_peer)
                self._tell(self._ended)
                self.alerting.set()
                self.under_way.set()
                self.preparing.cancel()
                # From here on, not from the next message on: one may be stuck on its way.
                self._goodbye.deadline = anyio.current_time() + GOODBYE_TIMEOUT

    def _say_controls(self) -> None:
        """Tell the peer what this end lets out, where it was told something else."""
        if self._machine.state in MEDIA_STATES and self._machine.controls != self._wanted:
            self._machine.set_media_state(**asdict(self._wanted), now=self._clock())

    def _apply_controls(self) -> None:
        """Have media send and play what the user wants, and no more."""
        wanted = self._wanted
        for stream in STREAMS:
            self.media.hold_back(stream, not wanted.lets_out(stream))
            unwanted = self._peer_muted if stream is Stream.MICROPHONE else self._hides_pictures
            quiet = wanted.held or unwanted
            self.media.silence(stream, quiet)

    def _rekey(self, event: RekeyDue | RekeyProposed | NewEpoch | EpochConfirmed) -> None:
        match event:
            case RekeyDue():
                self._machine.rekey(RekeySecrets.generate(), self._clock())
            case RekeyProposed(rekey):
                self._machine.answer_rekey(CalleeSecrets.generate(rekey), self._clock())
            case NewEpoch() | EpochConfirmed():
                try:  # CALLKEY-15: media has the keys before the reply, or a frame, can leave
                    if isinstance(event, NewEpoch):
                        self.media.change_epoch(event)
                    else:
                        self.media.enter_epoch(event.epoch)
                except MediaError as error:
                    _log.warning("new frame keys cannot be used: %s", error)
                    self.fail(EndReason.MEDIA_FAILED)

    def _change_path(
        self, event: RemoteCandidates | PathDue | PathProposed | PathAgreed | ReplacePath
    ) -> None:
        match event:
            case RemoteCandidates(candidates):
                # Both allocate before they answer, so the first ones decide; see `_start_media`.
                self._remote_candidates += candidates
            case PathDue():
                self._path_is_replaced()
                self._machine.replace_path(
                    RekeySecrets.generate(), self.media.draw(), self._clock()
                )
            case PathProposed(path):
                self._path_is_replaced()
                self._proposed = path
                self._spawn(self._answer_path, path)
            case PathAgreed():
                self._spawn(self._ready_path, event)
            case ReplacePath():
                self._spawn(self._replace_path, event)

    async def _answer_path(self, path: Path) -> None:
        """Callee: allocate and answer, for as long as this Path is the one to be answered."""
        assert self.fetch_ticket is not None  # set before it rang
        pause = PATH_PAUSE
        while self._proposed is path:
            try:
                ticket = await self.fetch_ticket()
                local = self.media.draw()
                candidates = await self._gather_path(local, path.epoch, ticket.a)
            except E2ECallError as error:
                _log.warning("another path cannot be allocated: %s", error)
                await anyio.sleep(pause)
                pause = min(2 * pause, LONGEST_PATH_PAUSE)
                continue
            # The call may have ended in the same moment in which the allocation was made.
            if self._proposed is path and self._machine.state in MEDIA_STATES:
                self._proposed = None
                secrets = CalleeSecrets.generate(path)
                self._machine.answer_path(secrets, local, ticket.b, candidates, self._clock())
                self._pump()

    async def _ready_path(self, agreed: PathAgreed) -> None:
        """Caller: allocate, and say where this end can be reached."""
        try:
            candidates = await self._gather_path(agreed.local, agreed.epoch, agreed.turn)
        except E2ECallError as error:
            _log.warning("another path cannot be allocated: %s", error)
            self._machine.path_failed(agreed.epoch, self._clock())
        else:
            if self._machine.state in MEDIA_STATES:
                self._machine.ready_path(agreed.epoch, candidates, self._clock())
        self._pump()

    async def _gather_path(
        self, local: MediaDescription, epoch: int, credential: TurnCredential
    ) -> tuple[Candidate, ...]:
        assert self._link is not None
        uris = await self._link.wait_turn_uris(credential)
        return await self.media.gather_path(local, epoch, uris, credential)

    async def _replace_path(self, event: ReplacePath) -> None:
        try:
            await self.media.replace_path(event)
        except E2ECallError as error:
            _log.warning("another path cannot be used: %s", error)
            self._machine.path_failed(event.keys.keys.epoch, self._clock())
            self._pump()

    def _spawn(self, function: Job, *args: object) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(function, *args)
        elif self._ended is None:
            self._waiting.append((function, args))

    async def _gather(self, credential: TurnCredential) -> None:
        assert self._link is not None
        try:
            self._candidates = await self.media.gather(self._link.turn_uris(credential), credential)
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

    async def _start_media(self, start: StartMedia) -> None:
        """Open media under the first keys, which nothing else here keeps (CALLKEY-16)."""
        try:
            await self.media.prepare()
            while not (self._gathered and self._remote_candidates):
                await self._changed.wait()
            async with self._controlling:
                self._apply_controls()
                await self.media.start(self._machine.role, start, self._remote_candidates)
        except E2ECallError as error:
            _log.warning("media cannot start: %s", error)
            self.fail(EndReason.MEDIA_FAILED)

    async def _accept_by_itself(self) -> None:
        try:
            await self.accept()
        except LocalProtocolError as error:
            _log.info("a call that crossed the own one was not accepted: %s", error)


def _told_by_peer(event: PeerMediaState | PeerText | VideoAsked) -> public.CallEvent:
    match event:
        case PeerMediaState(says):
            return public.MediaState(*astuple(says))
        case PeerText(text):
            return public.Text(text)
        case VideoAsked(video):
            return public.VideoAsked(video)
