"""What a call does when its protocol asks for it (spec/call.md): ring, accept, send, tell.

Feeds the protocol with messages and acts on its events; for media that is
`e2ecall.client.calltransport`. Decides nothing about what is allowed.
"""

import logging
from dataclasses import asdict, astuple
from typing import Final

import anyio

from e2ecall.client import events as public
from e2ecall.client.calllink import CallLink
from e2ecall.client.callmedia import CallMedia
from e2ecall.client.calltransport import CallTransport
from e2ecall.errors import LocalProtocolError, RemoteProtocolError
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
from e2ecall.protocol.call_exchange import CalleeSecrets
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.messages import CallMessage, Offer
from relay.wire.messages import Ticket

GOODBYE_TIMEOUT: Final = 3.0
"""Seconds for the last messages of a call to leave."""

_log = logging.getLogger(__name__)


class CallSteps(CallTransport):
    """A call that follows its protocol."""

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

    # --- acting on it -----------------------------------------------------------------------------

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
