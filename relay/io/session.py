"""One signalling connection (spec/wire.md, Connections): receive, answer, deliver, end.

Requests are carried out one after the other, or as one where they came together and belong together
(`relay.services.runs`), so a client that sends faster than it is answered is held back by its own
socket; deliveries wait for the socket as well. Nothing is queued in memory but what one read gave.
What requests do is in `relay.io.requests`.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import structlog
import trio

from relay.errors import FencedError, RefusedError, StorageError
from relay.io.capture import RECEIVED, SENT
from relay.io.endings import Code, Ending
from relay.io.logs import place
from relay.io.metrics import DONE, FAULT
from relay.io.node import Node
from relay.io.websocket import ClosedError, FloodError, SilentError, WebSocket
from relay.services.delivery import Claim, DeliveryQueue, Fetch
from relay.services.mailbox import DeviceMailbox, Mail, MailboxName
from relay.services.runs import goes_on
from relay.wire.codec import decode, encode
from relay.wire.errors import WireError
from relay.wire.limits import CHALLENGE_BYTES, MAX_FRAME
from relay.wire.messages import (
    PROTOCOL_VERSION,
    Binding,
    ClientFrame,
    Displaced,
    ErrorCode,
    Failure,
    GoingAway,
    Hello,
    PrekeysLow,
    Reply,
    Request,
    ServerFrame,
    SetAside,
)
from relay.wire.records import bound_challenge

log = structlog.get_logger()

LAST_WRITE_SECONDS: Final = 1.0
"""For a frame that is being written when the connection is to end."""
FAREWELL_SECONDS: Final = 2.0
"""How long a client may take to receive its last push."""
CLOSE_SECONDS: Final = 4.0
"""How long the closing handshake may take; then the socket is simply closed."""
RELEASE_SECONDS: Final = 2.0
"""For giving claims back at the end; a claim that stays is overruled by the next one."""
MAX_REFUSALS: Final = 100
"""Requests of one connection that may be refused before it ends: a client at fault stops then."""

MAX_WRITE: Final = 65_536
"""Bytes that are given to the socket at once, unless one frame alone is longer: a client that does
not read lets no more than that wait."""
LONGEST_SILENCE: Final = 0.05
"""Seconds for which readers wait until all that came with their mail was answered (WIRE-23)."""
MAX_COUNT: Final = 0xFFFF
"""The most that SetAside says."""


class Answer(Protocol):
    """What carries out requests on a session."""

    async def __call__(
        self, session: "Session", requests: Sequence[Request], size: int
    ) -> Sequence[Reply]:
        """Return the replies to a request of a frame of ``size`` bytes, or to several of a run.

        Raises:
            StorageError: nothing was changed, or nobody knows; the client may ask again.
        """


class Session:
    """The relay's end of one connection. `run` lasts as long as the connection."""

    def __init__(
        self,
        node: Node,
        socket: WebSocket,
        source: str,
        answer: Answer,
        *,
        endpoint: bytes | None,
    ) -> None:
        self.node = node
        self.source: Final = source
        node.connections += 1
        self.number: Final = node.connections
        challenge = os.urandom(CHALLENGE_BYTES)
        self._challenge = challenge
        self._binding = Binding.NONE if endpoint is None else Binding.ENDPOINT
        self.challenge: Final = bound_challenge(challenge, endpoint)
        """What log-ins sign here: bound to the end of TLS, if there is one."""
        self.device: DeviceMailbox | None = None
        self.queue: Final = DeliveryQueue()
        self._claims: dict[MailboxName, Claim] = {}
        self._firsts: dict[MailboxName, int] = {}
        """Of each mailbox, how much had been written when its first envelope was sent."""
        self._socket = socket
        self._answer = answer
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._wake = trio.Event()
        self._delivers = self._rests = False
        """Whether there is a task that delivers, and whether it waits to be woken."""
        self._untold: dict[MailboxName, None] = {}
        """Mailboxes for which mail came here, whose readers do not know yet."""
        self._tell_by = 0.0
        self._is_low = False
        self.set_aside = 0
        """Envelopes of which the owner has to be told that they are not delivered any more."""
        self.tokens: list[bytes] = []
        """Hashes that AddTokens gave and UseTokens has not put into effect."""
        self._writes: set[trio.CancelScope] = set()
        self._refusals = 0
        self._ending = Ending(Code.NORMAL, "")

    async def run(self) -> None:
        """Greet, serve and close the connection."""
        if not self._scope.cancel_called:
            await self._serve()
        self.node.metrics.closed(self._ending.code)
        await self._close()

    def end(self, ending: Ending) -> None:
        """End the connection soon; the first reason counts."""
        if not self._scope.cancel_called:
            self._ending = ending
            self._scope.cancel()
            for write in self._writes:
                write.deadline = min(write.deadline, trio.current_time() + LAST_WRITE_SECONDS)

    def leave(self, delay_ms: int) -> None:
        """Tell the client that the relay stops, and end the connection."""
        self.end(Ending(Code.LEAVING, "the relay stops", GoingAway(delay_ms)))

    async def read(self, mailbox: MailboxName) -> None:
        """Deliver from this mailbox from now on.

        Without a checkpoint once the mailbox is claimed: the reply comes first.

        Raises:
            RefusedError: this connection reads too many mailboxes.
            StorageError: nobody knows whether it was claimed.
        """
        if mailbox not in self.queue.mailboxes:
            if self.queue.is_full:
                raise RefusedError(ErrorCode.TOO_MANY, "too many mailboxes on one connection")
            with trio.CancelScope(shield=True):  # a claim that nobody knows of is never given back
                claim = await self.node.presence.claim(mailbox)
            self._claims[mailbox] = claim
            self.node.readers.attach(claim, self)
            self.queue.attach(mailbox)
        self.wake()
        if not self._delivers and self._nursery is not None:
            self._delivers = True
            self._nursery.start_soon(self._deliver)

    def forget_device(self) -> None:
        """Go on as an anonymous connection: the account is gone."""
        if self.device is not None:
            self.node.readers.detach(self.device, self)
            self._detach(self.device)
            self.device = None

    def came_for(self, mailbox: MailboxName) -> None:
        """Let the reader of a mailbox know that mail came, once what came with it was answered.

        WIRE-23 MUST: not before. To give mail to a reader takes time, which would say that there
        is one.
        """
        if not self._untold:
            self._tell_by = trio.current_time() + LONGEST_SILENCE
        self._untold[mailbox] = None

    def wake(self) -> None:
        """Let the deliveries go on: there is new mail, or room for it."""
        self._wake.set()

    # --- relay.services.delivery.Reader ---

    def hint(self, mailbox: MailboxName) -> None:
        """Learn that a mailbox has new mail."""
        self.queue.hint(mailbox)
        if not (self._rests and self._deliver_at_once()):
            self.wake()

    def lost(self, mailbox: MailboxName) -> None:
        """Learn that another connection reads a mailbox now, or that it is gone."""
        if mailbox == self.device:
            self.end(Ending(Code.DISPLACED, "displaced", Displaced()))
        else:
            self._detach(mailbox)

    def expired(self, _mailbox: MailboxName) -> None:
        """Learn that this node was taken for dead: the client has to claim its mailboxes anew."""
        self.end(Ending(Code.TRY_LATER, "the relay cannot deliver now"))

    def low(self) -> None:
        """Learn that the one-time prekeys of this device run out."""
        self._is_low = True
        self.wake()

    def _detach(self, mailbox: MailboxName) -> None:
        self.queue.detach(mailbox)
        self.wake()  # what was out of it took the room of others

    # --- receiving ---

    async def _serve(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._converse()
                    nursery.cancel_scope.cancel()
        finally:
            await self._release()

    async def _release(self) -> None:
        for mailbox in self._claims:
            self.node.readers.detach(mailbox, self)
        if self._claims:
            with trio.move_on_after(RELEASE_SECONDS, shield=True):
                try:
                    await self.node.presence.release(self._claims.values())
                    if lost := [place for place in self.queue.tried if not self._arrived(place)]:
                        await self.node.mailbox.untry(lost)
                except StorageError as error:
                    self.node.storage_failed(error)

    def _arrived(self, place: tuple[MailboxName, int]) -> bool:
        """Tell whether the first envelope of a mailbox did (WIRE-37)."""
        sent = self._firsts.get(place[0])
        return sent is not None and self._socket.has_arrived(sent)

    async def _converse(self) -> None:
        try:
            await self._send(ServerFrame(0, self._hello()))
            patience = self.node.limits.first_request_seconds
            while True:
                messages = await self._socket.recv_all(patience)
                try:
                    await self._received(messages)
                finally:
                    self._tell_readers()
                patience = self._patience()
        except FloodError:
            self.end(Ending(Code.VIOLATION, "too many frames"))
        except SilentError:
            self.end(Ending(Code.VIOLATION, "nothing was asked for too long"))
        except ClosedError:
            self.end(Ending(Code.NORMAL, ""))

    def _patience(self) -> float:
        """Return how long this connection may stay silent: with a mailbox, for ever."""
        waits = bool(self.queue.mailboxes)
        return float("inf") if waits else self.node.limits.anonymous_idle_seconds

    def _hello(self) -> Hello:
        node = self.node
        return Hello(
            PROTOCOL_VERSION,
            node.name,
            node.key.public,
            self._challenge,
            node.turn_urls,
            int(node.clock()),
            self._binding,
        )

    async def _received(self, messages: Sequence[str | bytes]) -> None:
        """Carry out what came, and what belongs together as one."""
        run: list[ClientFrame] = []
        size, pace, ending = 0, self.node.quotas.pace, None
        for message in messages:
            frame = self._frame(message)
            if isinstance(frame, Ending):
                ending = frame  # but what came before it is carried out
                break
            wait = 0.0 if pace is None else pace.wait(self.source, trio.current_time())
            if run and (wait or not goes_on(run, frame)):
                await self._carry_out(run, size)
                if trio.current_time() >= self._tell_by:
                    self._tell_readers()
                # Who sends much at once must not keep others from their turn.
                await trio.lowlevel.checkpoint()
                run = []
            if wait:
                until = trio.current_time() + wait
                self._tell_readers()
                # WIRE-53 MUST: in here, so that nothing more of this connection is read meanwhile.
                await trio.sleep_until(until)
            run.append(frame)
            size = len(message)
        if run:
            await self._carry_out(run, size)
        if ending is not None:
            self.end(ending)

    def _tell_readers(self) -> None:
        """Tell the readers of what was stored."""
        mailboxes, self._untold = self._untold, {}
        for mailbox in mailboxes:
            self.node.bus.hint(mailbox)

    def _frame(self, message: str | bytes) -> ClientFrame | Ending:
        """Return the frame that a message is, or how it ends the connection."""
        if self.node.capture is not None:
            raw = message.encode() if isinstance(message, str) else message
            self.node.capture.message(self.number, RECEIVED, raw)
        if isinstance(message, str):
            return Ending(Code.UNSUPPORTED, "frames are binary")
        try:
            return decode(message, ClientFrame, limit=MAX_FRAME)
        except WireError:
            # WIRE-04 MUST: what is not a frame ends the connection; there is nothing to answer.
            return Ending(Code.VIOLATION, "malformed frame")

    async def _carry_out(self, run: Sequence[ClientFrame], size: int) -> None:
        start = time.perf_counter()
        requests = [frame.body for frame in run]
        replies = await self._replies(requests, size)
        seconds = time.perf_counter() - start
        kind = type(requests[0]).__name__
        if not replies:
            self.node.metrics.request(kind, FAULT, seconds)
            return
        answers = []
        for frame, reply in zip(run, replies, strict=True):
            outcome = DONE
            if isinstance(reply, Failure):
                outcome = reply.code.name.lower()
                self._refusals += reply.code not in (ErrorCode.NOT_REACHABLE, ErrorCode.RETRY)
            self.node.metrics.request(kind, outcome, seconds)
            answers.append(ServerFrame(frame.id, reply))
        if not self._write(answers):
            self._tell_readers()  # of mail that must not wait until this client reads
            await self._drain()
        if self._refusals > MAX_REFUSALS:
            self.end(Ending(Code.VIOLATION, "too many refused requests"))

    async def _replies(self, requests: Sequence[Request], size: int) -> Sequence[Reply]:
        """Return a reply to each request; none: the connection ends."""
        try:
            return await self._answer(self, requests, size)
        except StorageError as error:
            self.node.storage_failed(error)
            failure = Failure(ErrorCode.RETRY, "the relay cannot do this now", retry_after=5)
            return [failure] * len(requests)
        except Exception as error:  # noqa: BLE001 - one request must not end the relay
            # A traceback ends in a text, and that may hold a username.
            log.error("request failed", request=type(requests[0]).__name__, **place(error))  # noqa: TRY400 - see above
            self.end(Ending(Code.INTERNAL, "internal error"))
            return []

    # --- sending ---

    async def _deliver(self) -> None:
        try:
            while True:
                if self._socket.is_behind:
                    await self._drain()
                if self._is_low:
                    self._is_low = False
                    await self._send(ServerFrame(0, PrekeysLow()))
                if self.set_aside:
                    count, self.set_aside = min(self.set_aside, MAX_COUNT), 0
                    await self._send(ServerFrame(0, SetAside(count)))
                fetch = self.queue.next_fetch()
                if fetch is None:
                    self._rests = True
                    await self._wake.wait()
                    self._rests = False
                    self._wake = trio.Event()
                    continue
                pushes = await self._fetched(fetch)
                if fetch.after == 0 and pushes:
                    await self._send(pushes.pop(0))
                    self._firsts.setdefault(fetch.mailbox, self._socket.written)
                await self._send(*pushes)
        except ClosedError:
            self.end(Ending(Code.NORMAL, ""))
        except StorageError as error:
            self.node.storage_failed(error)
            self.end(Ending(Code.TRY_LATER, "the relay cannot deliver now"))

    async def _fetched(self, fetch: Fetch) -> list[ServerFrame]:
        node, mailbox = self.node, fetch.mailbox
        claim = self._claims[mailbox]
        try:
            mails = await node.mailbox.read(claim, fetch.after, fetch.limit, node.clock())
        except FencedError as error:
            if self._claims[mailbox] != claim:
                return []  # opened anew in the meantime
            node.readers.detach(mailbox, self)
            if error.is_taken:
                self.lost(mailbox)
                node.bus.hint(mailbox)  # what woke this reader was meant for the other
            else:
                self.expired(mailbox)
            return []
        return self._pushes(fetch, mails)

    def _pushes(self, fetch: Fetch, mails: list[Mail]) -> list[ServerFrame]:
        pushes = [ServerFrame(0, push) for push in self.queue.fetched(fetch, mails)]
        self.node.metrics.delivered(len(pushes))
        return pushes

    def _deliver_at_once(self) -> bool:
        """Deliver what came, and return True, where that takes neither waiting nor a query.

        For one envelope after the other, which is what most of them are, waking the task that
        delivers costs as much as delivering does.
        """
        if self._socket.is_behind or self._scope.cancel_called:
            return False
        try:
            fetch = self.queue.next_fetch()
            if fetch is None:
                return True  # there is no room before the next Ack
            claim = self._claims[fetch.mailbox]
            mail = self.node.mailbox.take_only(claim, fetch.after)
            if mail is None:
                self.queue.hint(fetch.mailbox)
                return False
            return self._write(self._pushes(fetch, [mail])) and not self.queue.is_due
        except ClosedError:
            self.end(Ending(Code.NORMAL, ""))
        except Exception as error:  # noqa: BLE001 - whoever sent it must not end with its reader
            log.error("delivery failed", **place(error))  # noqa: TRY400 - texts may hold names
            self.end(Ending(Code.INTERNAL, "internal error"))
        return True

    async def _send(self, *frames: ServerFrame) -> None:
        """Send frames, with few calls of the kernel, and few that wait in memory."""
        for messages in self._messages(frames):
            if not self._socket.write(*messages):
                await self._drain()

    def _write(self, frames: Iterable[ServerFrame]) -> bool:
        """Send frames that are in memory as a whole; say if they left, or `_drain` is due."""
        is_taken = True
        for messages in self._messages(frames):
            is_taken = self._socket.write(*messages)
        return is_taken

    def _messages(self, frames: Iterable[ServerFrame]) -> Iterator[list[bytes]]:
        """Encode frames, and put together what leaves at once."""
        waiting: list[bytes] = []
        size = 0
        for frame in frames:
            data = encode(frame)
            if self.node.capture is not None:
                self.node.capture.message(self.number, SENT, data)
            if waiting and size + len(data) > MAX_WRITE:
                yield waiting
                waiting, size = [], 0
            waiting.append(data)
            size += len(data)
        if waiting:
            yield waiting

    async def _drain(self) -> None:
        """Wait until the client has taken what was sent."""
        # A cancelled write leaves half a frame behind, after which there is no farewell, so a write
        # that has begun may end. `_close` sees one that did not.
        limits = self.node.limits
        patience = LAST_WRITE_SECONDS if self._scope.cancel_called else limits.write_seconds
        with trio.CancelScope(shield=True, deadline=trio.current_time() + patience) as scope:
            self._writes.add(scope)
            try:
                await self._socket.drain()
            finally:
                self._writes.discard(scope)
        if scope.cancelled_caught:
            self.end(Ending(Code.VIOLATION, "the client does not read"))
            await trio.lowlevel.checkpoint()

    async def _close(self) -> None:
        """Say goodbye, unless half a frame is in the way; the socket's owner closes it."""
        if self._socket.is_behind:
            return
        if self._ending.push is not None:
            with trio.move_on_after(FAREWELL_SECONDS), contextlib.suppress(ClosedError):
                await self._send(ServerFrame(0, self._ending.push))
        with trio.move_on_after(CLOSE_SECONDS), contextlib.suppress(ClosedError):
            await self._socket.aclose(self._ending.code, self._ending.reason)
