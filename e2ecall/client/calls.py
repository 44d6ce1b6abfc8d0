"""The calls of one account (spec/call.md): placing, taking, glare; one live, and one beside it.

Brings protocol, link and media of a call together; `e2ecall.client.call` then lives its life. What
an Offer or a Cancel changes is decided at once when it comes in, and only then waited for anything.
"""

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio

from e2ecall.client.call import Call, IncomingCall
from e2ecall.client.calllink import CallLink
from e2ecall.client.callmedia import CallMedia, MediaChoice
from e2ecall.client.callrules import CallRules
from e2ecall.client.exchanges import Exchanges
from e2ecall.client.history import History
from e2ecall.client.home import Home
from e2ecall.client.livecalls import LiveCalls
from e2ecall.client.receiving import Opened
from e2ecall.client.services import Services
from e2ecall.errors import E2ECallError, LocalProtocolError, MediaError, Reason, RemoteProtocolError
from e2ecall.protocol import call as protocol
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.call_exchange import CalleeSecrets, CallerSecrets
from e2ecall.protocol.call_table import CallState
from e2ecall.protocol.callkeys import Party
from e2ecall.protocol.messages import CallMessage, Offer
from relay.wire.messages import MediaTicket, Ticket
from relay.wire.names import Address

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream

    from e2ecall.media.engine import MediaEngine
    from e2ecall.media.sinks import Sink
    from e2ecall.media.sources import AudioSource, VideoSource

CLOSE_TIMEOUT: Final = 5.0
"""Seconds for a live call to say goodbye when the client is closed."""

_MAX_WAITING: Final = 8
"""Ringing calls that nobody takes up; they end by themselves, one after the other."""

_MAX_BUSY: Final = 4
"""Offers that are answered Busy at the same time, each over a connection; others get no answer."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Placing:
    """A call that is being placed: from `Calls.place` until its Offer is stored."""

    address: Address
    choice: MediaChoice
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Ends the placing where the peer's own call goes on instead."""
    call: Call | None = None


class Calls(LiveCalls):
    """Brings the calls of an account about, whichever side begins them."""

    def __init__(self, services: Services, history: History, rules: CallRules) -> None:
        super().__init__(services, history, rules)
        self._exchanges = Exchanges(services)
        self._placing: _Placing | None = None
        self._answering_busy = 0
        self._closed = False
        self._engine: MediaEngine | None = None
        self._engine_lock = anyio.Lock()
        self._stack = AsyncExitStack()
        self._send_incoming, self._incoming = anyio.create_memory_object_stream[IncomingCall](
            _MAX_WAITING
        )

    @property
    def incoming(self) -> "MemoryObjectReceiveStream[IncomingCall]":
        """Calls that ring; it ends when no more can come."""
        return self._incoming

    def end_incoming(self) -> None:
        """No more calls can come in."""
        self._send_incoming.close()

    async def place(
        self,
        address: Address,
        audio: "AudioSource | None",
        video: "VideoSource | None",
        output: "Sink | None",
    ) -> Call:
        """Call somebody; see `Client.call`, which closes the sources where this raises."""
        if self._closed:
            raise LocalProtocolError("this client is closed")
        if self._placing is not None or not self._may_place():
            raise LocalProtocolError("there is a call already", hint="hang up, or hold it, first")
        self._services.sessions.check_identity(address)
        placing = self._placing = _Placing(address, MediaChoice(audio, video, output))
        try:
            with placing.scope:
                await self._offer(placing)
            assert placing.call is not None
            await placing.call.under_way.wait()
        except BaseException:
            if placing.call is not None:
                placing.call.leave()
            raise
        finally:
            self._placing = None
        return placing.call

    def take(self, opened: Opened, message: CallMessage, home: Home) -> None:
        """Take a call message that came to the account; never waits, never raises."""
        try:
            if not isinstance(message, Offer):
                self._take_other(opened, message)
            elif self._is_called(opened) or self._admission.rings(opened, message):
                self._take_offer(opened, message, home)
        except RemoteProtocolError as error:
            _log.info("an offer was refused: %s", error.reason)
        except Exception:  # noqa: BLE001 - one message must not end the account's line
            _log.exception("a call message could not be taken")

    async def close(self) -> None:
        """Hang up, then release; in bounded time, also when cancelled."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            for call in (self._call, self._second):
                if call is not None:
                    call.leave()
            calls = tuple(self._running)
            with anyio.move_on_after(CLOSE_TIMEOUT):
                for call in calls:
                    await call.closed.wait()
            for call in calls:
                call.abandon()
            for call in calls:
                await call.closed.wait()
            await self._stack.aclose()
        self._send_incoming.close()
        self._incoming.close()

    # --- placing ------------------------------------------------------------------------------

    async def _offer(self, placing: _Placing) -> None:
        """Send the Offer of the call, unless the peer's own call takes its place meanwhile."""
        at = self._services.endpoint_of(placing.address)
        link = await self._services.open_link(placing.address, at=at)
        media = None
        try:
            await self._services.sessions.ensure(placing.address, fetch=link.fetch_bundle)
            own = media = await self._create_media()
            await link.offer(lambda *ends: self._place(placing, link, own, *ends))
        except BaseException as error:
            if placing.call is not None and placing.call.by_itself:
                # CALL-09: the same call goes on with the peer's Offer; ours does not matter.
                if media is None or placing.call.owns(media):
                    link.close()
                else:
                    await _release(link, media)
                if isinstance(error, E2ECallError):
                    return
            elif placing.call is not None:
                await self._drop(placing.call)
            else:
                await _release(link, media)
            raise
        assert placing.call is not None  # what made the Offer
        self._start(placing.call)

    def _place(
        self, placing: _Placing, link: CallLink, media: CallMedia, local: Party, remote: Party
    ) -> Offer:
        if placing.call is not None:
            # CALL-09: the peer's own Offer was here first, and cancelling this one takes a moment.
            raise LocalProtocolError("the peer calls already")
        self._services.sessions.check_identity(placing.address)  # not blocked meanwhile
        machine = protocol.Call.place(
            local,
            remote,
            media=media.description,
            wants_video=placing.choice.video is not None,
            reply_box=link.box,
            secrets=CallerSecrets.generate(),
            now=self._services.steady(),
        )
        placing.call = self._adopt(machine, placing.choice)
        placing.call.attach(link, media)
        (offer,) = machine.messages_to_send()
        assert isinstance(offer, Offer)
        return offer

    # --- taking -------------------------------------------------------------------------------

    def _take_other(self, opened: Opened, message: CallMessage) -> None:
        """Take what came to the account and not to the call's box: a Cancel before our Ringing."""
        for call in self._alive():
            if call.peer == str(opened.peer):
                call.receive(message)

    def _is_called(self, opened: Opened) -> bool:
        """Tell whether this end calls that person, and so wants to talk to them (CALL-09)."""
        called = {call.peer for call in self._alive() if call.state is CallState.OFFERED}
        if self._placing is not None:
            called.add(str(self._placing.address))
        return opened.proven and str(opened.peer) in called

    def _take_offer(self, opened: Opened, offer: Offer, home: Home) -> None:
        # Its age is told by the time of day; from here on that has no say (CALL-13).
        age = self._services.clock() - opened.payload.sent_at_ms / 1000
        now = self._services.steady()
        try:
            machine = protocol.Call.incoming(
                opened.local, opened.remote, offer, sent_at=now - age, now=now
            )
        except RemoteProtocolError as error:
            if error.reason is Reason.EXPIRED and age > 0:
                self._admission.note_missed(opened, offer, EndReason.NO_ANSWER)
            raise
        placing = self._placing
        glare = {call: call.glare(offer, opened.remote) for call in self._alive()}
        if protocol.Glare.OURS in glare.values():
            return
        theirs = [call for call, outcome in glare.items() if outcome is protocol.Glare.THEIRS]
        if theirs:
            (call,) = theirs
            call.carry_on(machine)
        elif placing is not None and placing.address == opened.peer and placing.call not in glare:
            # CALL-09: no Offer of ours is out, so theirs has nothing to lose against.
            call = placing.call = self._adopt(machine, placing.choice, by_itself=True)
        elif placing is None and (not glare or self._may_wait()):
            call = self._adopt(machine, MediaChoice())
        else:
            self._admission.note_missed(opened, offer, EndReason.BUSY)
            self._refuse_busy(opened.peer, machine)
            return
        if placing is not None:
            placing.scope.cancel()
        self._services.tasks.start_soon(self._answer_offer, call, opened, offer, home)

    async def _answer_offer(self, call: Call, opened: Opened, offer: Offer, home: Home) -> None:
        try:
            await self._ring(call, opened, offer, home)
            if call.rang:
                await self._await_alert(call, opened, offer)
        except RemoteProtocolError as error:
            # CALL-08: it stands among the missed calls as what it is.
            _log.info("an offer was refused: %s", error.reason)
            call.fail(EndReason.NOT_AUTHENTIC)
        except E2ECallError as error:
            _log.warning("a call could not be taken: %s", type(error).__name__)
            call.fail(EndReason.CONNECTION_LOST)
        except Exception:  # noqa: BLE001 - one call must not end the client
            _log.exception("a call could not be taken")
            call.fail(EndReason.CONNECTION_LOST)
        finally:
            if call not in self._running and not call.rang:
                await self._drop(call)

    async def _ring(self, call: Call, opened: Opened, offer: Offer, home: Home) -> None:
        """Prepare and send the Ringing; a call that ends on the way sends none.

        Raises:
            RemoteProtocolError: this Offer must not be answered.
            E2ECallError: something that a call needs could not be had.
        """
        peer, counted = opened.peer, False
        call.fetch_ticket = lambda: home.line.request(MediaTicket(), Ticket)
        call.check_home = home.line.check
        secrets = CalleeSecrets.generate(offer)
        self._exchanges.check(peer, offer.call_id)  # before it costs anything
        call.attach(await self._services.open_link(peer, at=self._services.endpoint))
        with call.preparing:
            ticket = await home.line.request(MediaTicket(), Ticket)
            if not call.has_media:
                call.provide(await self._create_media())
            # CALL-08: stored before the Ringing leaves, and not earlier: an Offer that is taken
            # back before it was answered is no guess.
            counted = True
            await self._exchanges.start(peer, offer.call_id)
            call.ring(ticket, secrets)
            self._start(call)
        if counted and not call.rang:
            await self._exchanges.finish(peer, offer.call_id)
        if call.by_itself and call not in self._running:
            await call.say_goodbye()  # hung up already, by who had placed it

    async def _await_alert(self, call: Call, opened: Opened, offer: Offer) -> None:
        await call.alerting.wait()
        if call.ended is None:
            await self._exchanges.finish(opened.peer, offer.call_id)
            if not call.by_itself:
                self._announce(call, opened)

    def _announce(self, call: Call, opened: Opened) -> None:
        self._admission.rang(opened.peer)
        ringing = IncomingCall(
            call,
            verified=self._services.sessions.contacts.is_verified(
                opened.peer, opened.remote.identity_key
            ),
            broken_off=self._exchanges.count(opened.peer),
            # CALL-36: whichever of the two was here first; it goes on while this one rings.
            other=next((one for one in self._alive() if one is not call), None),
        )
        try:
            self._send_incoming.send_nowait(ringing)
        except (anyio.WouldBlock, anyio.ClosedResourceError, anyio.BrokenResourceError):
            call.leave()  # nobody takes calls here

    def _refuse_busy(self, peer: Address, machine: protocol.Call) -> None:
        if self._answering_busy < _MAX_BUSY:
            self._answering_busy += 1
            self._services.tasks.start_soon(self._send_busy, peer, machine)

    async def _send_busy(self, peer: Address, machine: protocol.Call) -> None:
        try:
            link = await self._services.open_link(peer, at=self._services.endpoint)
            try:
                machine.busy(self._services.steady())
                for message in machine.messages_to_send():
                    await link.send(message, machine.peer_box)
            finally:
                link.close()
        except E2ECallError as error:
            _log.warning("a call could not be answered as busy: %s", type(error).__name__)
        finally:
            self._answering_busy -= 1

    # --- common -------------------------------------------------------------------------------

    async def _create_media(self) -> CallMedia:
        async with self._engine_lock:
            if self._closed:
                raise MediaError("the client is closed")
            if self._engine is None:
                from e2ecall.media.engine import MediaEngine, Settings  # aiortc takes half a second

                self._engine = await self._stack.enter_async_context(
                    MediaEngine(Settings(tls=self._services.tls))
                )
        return await CallMedia.create(self._engine)


async def _release(link: CallLink, media: CallMedia | None) -> None:
    with anyio.CancelScope(shield=True):
        if media is not None:
            await media.close()
            media.events.close()
        link.close()
