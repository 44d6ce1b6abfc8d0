"""A client: one account, its calls and its messages (README, "Embedding").

`Client` is what a program uses; it joins the account, its line, its calls and its texts. On AnyIO,
so on trio or asyncio; media runs in a thread of its own and is not loaded before the first call.
"""

from typing import TYPE_CHECKING

import anyio

from e2ecall.client.call import Call, IncomingCall
from e2ecall.client.callmedia import release
from e2ecall.client.clientpeople import PeopleClient
from e2ecall.client.gaps import Loss
from e2ecall.client.history import PastCall
from e2ecall.client.inbox import TextMessage
from e2ecall.client.iteration import Following

if TYPE_CHECKING:
    from e2ecall.media.sinks import Sink
    from e2ecall.media.sources import AudioSource, VideoSource


class Client(PeopleClient):
    """An open client; made by `Client.open`. Its methods may be called from any task."""

    # --- messages -----------------------------------------------------------------------------

    def messages(self) -> Following[TextMessage]:
        """Iterate over texts as they come in; one counts as taken when the next is asked for.

        The loop may be left at any time. It raises an E2ECallError when the account's connection
        has ended for good.
        """
        line, texts = self._home.line, self._inbox.messages()

        async def following() -> TextMessage:
            text = await texts(line.closed)
            if text is None:
                raise line.failure or StopAsyncIteration
            return text

        return Following(following)

    def missing(self) -> Following[Loss]:
        """Iterate over losses.

        Messages that somebody sent and that did not come in two minutes; and how many the relay
        does not deliver any more, because this device took them in none of five tries.
        One counts as told when the next is asked for. The loop may be left at any time. It raises
        an E2ECallError when the account's connection has ended for good.
        """
        line, events = self._home.line, self._services.sessions.gaps.events()

        async def following() -> Loss:
            event = await events(line.closed)
            if event is None:
                raise line.failure or StopAsyncIteration
            return event

        return Following(following)

    # --- calls --------------------------------------------------------------------------------

    async def call(
        self,
        to: str,
        *,
        audio: "AudioSource | None" = None,
        video: "VideoSource | None" = None,
        output: "Sink | None" = None,
    ) -> Call:
        """Call somebody; returns once the Offer is stored at their relay.

        Without ``audio`` silence is sent; ``output`` takes what is received. The call runs until
        it ends, whether or not its events are read. The sources belong to it, and are closed if
        this raises or is cancelled.

        Raises:
            LocalProtocolError: there is a call that is not on hold, or there are two; or this is no
                address of somebody else, or of somebody who is blocked.
            NotReachableError: no such user, or one who does not accept this.
            IdentityChangedError: the person's identity is not the known one; nothing was sent, and
                nothing will be until the user decides (`verify`, `accept_identity`).
            ConnectionFailedError: their relay cannot be reached.
        """
        try:
            return await self._calls.place(self._parse(to), audio, video, output)
        except BaseException:
            release(audio, video)  # MEDIA-50
            raise

    def incoming(self) -> Following[IncomingCall]:
        """Iterate over calls that ring, from people whose name a relay of the user's vouches for.

        The loop may be left at any time. It raises an E2ECallError when the account's connection
        has ended for good.
        """
        line, ringing = self._home.line, self._calls.incoming

        async def following() -> IncomingCall:
            while True:
                try:
                    call = await ringing.receive()
                except anyio.EndOfStream:
                    raise line.failure or StopAsyncIteration from None
                if call.call.ended is None:
                    return call

        return Following(following)

    def missed(self) -> Following[PastCall]:
        """Iterate over calls that are missed from now on, also those that came while off line.

        The loop may be left at any time. It raises an E2ECallError when the account's connection
        has ended for good.
        """
        line = self._home.line

        async def following() -> PastCall:
            call = await self._history.next_missed(line.closed)
            if call is None:
                raise line.failure or StopAsyncIteration
            return call

        return Following(following)

    def let_calls_wait(self, waiting: bool = True) -> None:
        """Let a second call ring while one is connected; without this it is answered Busy.

        It comes from `incoming` like any other, with `IncomingCall.other` set: decline it, or
        accept it, which puts the other one on hold, or ends it.
        """
        self._calls.waiting_allowed = waiting

    def history(self) -> tuple[PastCall, ...]:
        """Return the past calls, the latest to end first, also those missed while off line."""
        return self._history.all()

    def last_called(self) -> str | None:
        """Return the address that was called last from here, to call it again; None: nobody's."""
        return next((past.peer for past in self.history() if past.outgoing), None)

    @property
    def keeps_history(self) -> bool:
        """Whether calls are noted."""
        return self._history.is_kept

    async def keep_history(self, kept: bool) -> None:
        """Note calls from now on; or no longer, and forget those that were.

        Raises:
            StoreError: the disk refused; nothing has changed.
        """
        await self._history.keep(kept)

    async def clear_history(self) -> None:
        """Forget all past calls; raises as `keep_history`."""
        await self._history.clear()
