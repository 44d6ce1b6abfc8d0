"""The life of one call: its tasks, and what is released when it ends (spec/call.md, CALL-17).

What the tasks do for the protocol is `e2ecall.client.callsteps`.
"""

import contextlib
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import anyio

from e2ecall.client import events as public
from e2ecall.client.callmedia import release
from e2ecall.client.callsteps import GOODBYE_TIMEOUT, CallSteps
from e2ecall.client.history import PastCall
from e2ecall.errors import ConnectionFailedError, E2ECallError, MediaError
from e2ecall.protocol import call as protocol
from e2ecall.protocol.call_events import EndReason
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.messages import Stream

if TYPE_CHECKING:
    from e2ecall.media.events import PathAlive, PathFailed, PathLost

_TICK: Final = 0.25
"""Seconds between looks at the clock: a deadline may pass while the machine sleeps."""

_CHECK_INTERVAL: Final = 3.0
"""Seconds between looks at the lines to the relay while the path is lost."""

_END_REASONS: Final = {
    "wrong_fingerprint": EndReason.NOT_AUTHENTIC,
    "undecryptable": EndReason.NOT_AUTHENTIC,
    "silent": EndReason.CONNECTION_LOST,
}
"""How a failure of the media transport is told; anything else is MEDIA_FAILED."""

_log = logging.getLogger(__name__)


class CallLife(CallSteps):
    """A call that is carried to its end by `run`."""

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

    async def run(self) -> None:
        """Carry the call to its end and release what it holds; raises nothing. The client runs it.

        What goes wrong inside is logged and ends this call alone.
        """
        self.under_way.set()
        try:
            with self._life:
                async with anyio.create_task_group() as tasks:
                    self._pump()
                    for task in (
                        self._keep_time,
                        self._follow_media,
                        self._follow_link,
                        self._keep_reachable,
                    ):
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
            await self._note_end()
        finally:
            release(self._choice.audio, self._choice.video)
            self.closed.set()

    def abandon(self) -> None:
        """End the call now, without its last words."""
        self._life.cancel()

    # --- tasks ------------------------------------------------------------------------------------

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
            link = self._link
            try:
                await link.send(message, self._machine.peer_box)
            except ConnectionFailedError:
                if self.state is CallState.CONNECTED and link is self._link and not link.lost:
                    # CALL-46: it does not end for want of signalling. A copy does no harm.
                    self._outgoing.appendleft(message)
                    continue
                self.fail(EndReason.CONNECTION_LOST)
                return
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
            EpochEntered,
            FirstFrame,
            FrameRefused,
            KeyWorn,
            MediaFailed,
            PathAlive,
            PathFailed,
            PathLost,
            PeerClosed,
            Quality,
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
                    case EpochEntered(epoch=epoch):
                        self._epoch_entered(epoch)
                    case KeyWorn(epoch=epoch):
                        self._machine.key_worn(epoch, self._clock())
                        self._pump()
                    case Quality():
                        self._tell_quality(public.Quality(**asdict(event)))
                    case PathLost() | PathAlive() | PathFailed():
                        self._follow_path(event)
                    case MediaFailed(reason=reason):
                        _log.warning("media failed: %s", reason)
                        self.fail(_END_REASONS.get(reason, EndReason.MEDIA_FAILED))
                    case PeerClosed():
                        # The Hangup says why, but takes another way: give it time to arrive.
                        await anyio.sleep(GOODBYE_TIMEOUT)
                        self.fail(EndReason.CONNECTION_LOST)

    def _tell_quality(self, quality: public.Quality) -> None:
        """Tell it in place of one that nobody read, so that none pile up."""
        if self._events and isinstance(self._events[-1], public.Quality):
            self._events.pop()
        self._tell(quality)
        self._notify()

    def _follow_path(self, event: "PathLost | PathAlive | PathFailed") -> None:
        """Have a lost path replaced, and tell the program so while it lasts."""
        from e2ecall.media.events import FailureReason, PathAlive, PathFailed, PathLost

        now = self._clock()
        match event:
            case PathLost(silent=silent):
                self._lost_at = anyio.current_time()
                self._machine.path_lost(now - silent, now)
                self._path_is_replaced()
            case PathAlive(epoch=epoch):
                self._machine.path_alive(epoch, now)
                if self._reconnecting and self.state is CallState.CONNECTED:
                    self._tell(public.Reconnected())
                self._lost_at, self._reconnecting = None, False
            case PathFailed(reason=FailureReason.WRONG_FINGERPRINT):
                self.fail(EndReason.NOT_AUTHENTIC)  # R8: somebody is in between
            case PathFailed(epoch=epoch, reason=reason):
                _log.warning("another path did not come about: %s", reason)
                self._machine.path_failed(epoch, now)
        self._pump()

    async def _keep_reachable(self) -> None:
        """While the path is lost, find out soon whether the relay can be reached, and how."""
        while self._ended is None:
            if self._lost_at is None:
                await self._changed.wait()
                continue
            if self._link is not None:
                self._link.check()
            self.check_home()
            with anyio.move_on_after(_CHECK_INTERVAL):
                await self.wait_ended()

    def _epoch_entered(self, epoch: int) -> None:
        """Callee: media sends in a new epoch, because the caller does."""
        if self.state is CallState.CONNECTED and epoch > self._machine.epoch:
            self._machine.enter_epoch(epoch, self._clock())
        self._pump()

    def _first_frame(self, stream: Stream) -> None:
        if self.state is CallState.CONNECTING:
            self._machine.media_connected(self._clock())
            if self._machine.state is CallState.CONNECTED:
                self._connected_at = self._clock()
                self._tell(public.Connected())
        if stream is Stream.CAMERA:
            self._tell(public.FirstVideo())
        self._pump()

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

    async def _note_end(self) -> None:
        """Have the call noted among the past ones (HISTORY-01)."""
        if self._ended is None or self._ended.reason is EndReason.SUPERSEDED:
            return
        connected, machine = self._connected_at, self._machine
        past = PastCall(
            machine.remote.address,
            machine.role is Role.CALLER or self._by_itself,  # CALL-09: whoever lost called too
            self._began,
            0.0 if connected is None else max(0.001, self._clock() - connected),
            self._ended.reason,
            machine.offer.wants_video,
        )
        with anyio.CancelScope(shield=True):
            try:
                await self._note(past)
            except E2ECallError as error:  # a full disk must not keep a call from its end
                _log.warning("a call could not be noted: %s", type(error).__name__)

    def _detach(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
