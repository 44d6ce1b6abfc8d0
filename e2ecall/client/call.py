"""One call, as a program sees it (spec/call.md): what can be asked of it, and done with it.

How it is carried out is `e2ecall.client.calllife`; what is allowed, `e2ecall.protocol.call`.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from e2ecall.client import events as public
from e2ecall.client.callcontrols import CallControls
from e2ecall.client.callmedia import MediaChoice, keeps, release
from e2ecall.client.iteration import Following
from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_table import CallState
from e2ecall.protocol.messages import LeaveReason

if TYPE_CHECKING:
    from e2ecall.media.sinks import Sink
    from e2ecall.media.sources import AudioSource, VideoSource

_RINGING: Final = frozenset({CallState.INVITED, CallState.AWAITING_REVEAL, CallState.ALERTING})


class Call(CallControls):
    """A call that was placed or that comes in. Ends by itself; leaving the client ends it too.

    Methods may be cancelled at any time: what was asked for then happens or not, and the call
    stays usable.
    """

    @property
    def peer(self) -> str:
        """The address of the other person."""
        return self._machine.remote.address

    @property
    def peer_identity(self) -> bytes:
        """The identity key that the other person has in this call, and in no other (CALL-21)."""
        return self._machine.remote.identity_key

    @property
    def rings_here(self) -> bool:
        """Callee: whether it rings, or is about to, and its user decides."""
        return self._machine.state in _RINGING and not self._by_itself

    @property
    def wants_video(self) -> bool:
        """Whether the call began with a camera of the caller's."""
        return self._machine.offer.wants_video

    @property
    def sas(self) -> public.Sas | None:
        """The code to compare by voice, once it is known."""
        return self._sas

    def events(self) -> Following[public.CallEvent]:
        """Iterate over what happens, in order, to `Ended`; for one reader at a time.

        The loop may be left and begun again at any time.
        """
        return Following(self._next_event)

    async def confirm_sas(self) -> None:
        """The spoken codes were compared and are the same: this identity is verified now.

        Raises:
            LocalProtocolError: there is no code yet.
        """
        if self._sas is None:
            raise LocalProtocolError("there is no code to compare yet")
        await self._confirm(self._machine.remote)

    async def hangup(self, reason: LeaveReason = LeaveReason.NORMAL) -> None:
        """End the call, in whichever way its state asks for, and wait until all is released.

        ``reason`` is what the other person is told: nothing, that another call goes on
        (OTHER_CALL), or that this end will call back (CALL_BACK).
        """
        self.leave(reason)
        await self.closed.wait()

    def use(
        self,
        audio: "AudioSource | None",
        video: "VideoSource | None",
        output: "Sink | None",
    ) -> None:
        """Say what to send and where to play, before the call is accepted; `IncomingCall` does."""
        self._choice = MediaChoice(audio, video, output)
        self._wanted = replace(self._wanted, camera=video is not None, recording=keeps(output))
        if self._media is not None:
            self._media.use(self._choice)

    async def _next_event(self) -> public.CallEvent:
        while not self._events:
            if self._ended is not None:
                raise StopAsyncIteration
            await self._changed.wait()
        return self._events.popleft()


class IncomingCall:
    """Somebody calls: accept or decline, while it rings."""

    def __init__(
        self, call: Call, *, verified: bool, broken_off: int, other: Call | None = None
    ) -> None:
        """Made by the client."""
        self._call = call
        self._is_taken = False
        self.other = other
        """The call that goes on while this one rings, or None."""
        self.caller = call.peer
        """The caller's address; a relay that the user chose vouches for it."""
        self.verified = verified
        """Whether the caller's identity was compared before, by a spoken code."""
        self.broken_off = broken_off
        """How many calls this person broke off in the last ten minutes before the code was known.

        Each was a guess at a code (CALL-08): where there are any, compare this one with care.
        """

    @property
    def wants_video(self) -> bool:
        """Whether the caller wants to send video, and the user's rules let it be seen."""
        return self._call.wants_video and not self._call.hides_pictures

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
        end_other: bool = False,
    ) -> Call:
        """Answer; from here on this end may send. Without ``audio`` silence is sent.

        Where another call goes on, it is put on hold first, or ended with ``end_other``. The
        sources belong to the call from here on, and are closed if it raises.

        Raises:
            LocalProtocolError: the call is over already, for instance cancelled, or it was accepted
                before; that changes nothing then.
        """
        try:
            if self._is_taken:
                raise LocalProtocolError("this call was accepted already")
            self._is_taken = True
            try:
                return await self._accept(audio, video, output, end_other=end_other)
            except BaseException:
                self._is_taken = False
                raise
        except BaseException:
            release(audio, video)
            raise

    async def _accept(
        self,
        audio: "AudioSource | None",
        video: "VideoSource | None",
        output: "Sink | None",
        *,
        end_other: bool,
    ) -> Call:
        other = self.other
        if other is None or other.ended is not None or self._call.ended is not None:
            other = None
        elif end_other:
            other.leave(LeaveReason.OTHER_CALL)
        elif other.controls.held:
            other = None
        else:
            await other.hold()  # CALL-36: no word of this end goes into two calls
        self._call.use(audio, video, output)
        try:
            await self._call.accept()
        except LocalProtocolError:
            if other is not None and other.ended is None:
                await other.resume()
            raise
        return self._call

    async def decline(self, reason: LeaveReason = LeaveReason.NORMAL) -> None:
        """Do not answer, and tell the caller; ``reason`` is as for `Call.hangup`."""
        await self._call.hangup(reason)
