"""The softphone: its calls, those that ring, and what others write; from the client to the screen.

Draws nothing and reads no keys: `app` shows what is here ten times a second.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from e2ecall.cli.conversation import check, check_code
from e2ecall.cli.happenings import describe_loss
from e2ecall.cli.media import MediaOptions
from e2ecall.cli.output import harmless, local_time
from e2ecall.cli.softphone.conversation import Conversation, told
from e2ecall.cli.softphone.model import MAX_LINES, CallModel, Line, Verdict
from e2ecall.client import Client, IncomingCall
from e2ecall.errors import E2ECallError
from e2ecall.protocol.call_events import EndReason

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Phone:
    """What goes on at one client. `run` ends when there is nothing more to do, or by `quit`."""

    me: Client
    options: MediaOptions
    tasks: TaskGroup
    welcome: frozenset[str] = frozenset()
    """Addresses whose calls are taken without asking, where none goes on."""
    stays: bool = True
    """Whether the phone goes on waiting for calls after the last one."""
    calls: list[Conversation] = field(default_factory=list)
    """Those that go on; the last one is shown."""
    ringing: list[IncomingCall] = field(default_factory=list)
    past: list[CallModel] = field(default_factory=list)
    """The calls that ended."""
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=MAX_LINES))
    """What was written outside of calls, and what happened to them."""
    failure: Exception | None = None
    """What made a call impossible that was asked for at the start."""
    done: anyio.Event = field(default_factory=anyio.Event)

    @property
    def current(self) -> Conversation | None:
        """The call that is shown."""
        return self.calls[-1] if self.calls else None

    @property
    def can_swap(self) -> bool:
        """Whether there are two calls that can be gone to; one that is being taken cannot yet."""
        return len(self.calls) > 1 and all(call.is_placed for call in self.calls)

    def quit(self) -> None:
        """End; whoever runs the phone hangs up then."""
        self.done.set()

    def spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        """Do something that a key asked for, without waiting for it."""
        self.tasks.start_soon(work, *arguments)

    async def take_calls(self) -> None:
        """Let calls ring, until the connection of the account ends for good."""
        self.me.let_calls_wait()
        try:
            async for incoming in self.me.incoming():
                welcome = incoming.caller in self.welcome
                if welcome and not self.calls:
                    self.spawn(self.answer, incoming, False, True)
                else:
                    self.ringing.append(incoming)
                    self.spawn(self._forget_when_over, incoming)
        except E2ECallError as error:
            self._fail(error)

    async def take_messages(self) -> None:
        """Show messages as they come in."""
        try:
            async for message in self.me.messages():
                sender = message.sender if message.proven else f"{message.sender} (not proven)"
                self.say(harmless(message.text), f"{local_time(message.sent_at)} {sender}")
        except E2ECallError as error:
            self._fail(error)

    async def take_missed(self) -> None:
        """Show calls that did not ring."""
        try:
            async for past in self.me.missed():
                kind = "video call" if past.video else "call"
                self.say(f"a missed {kind}", f"{local_time(past.began)} {past.peer}")
        except E2ECallError as error:
            self._fail(error)

    async def take_losses(self) -> None:
        """Show which messages were lost, or are held back."""
        try:
            async for loss in self.me.missing():
                self.say(describe_loss(loss))
        except E2ECallError as error:
            self._fail(error)

    async def place(self, name: str) -> None:
        """Call somebody; at the start of a phone that does not stay, an error ends it."""
        try:
            conversation = Conversation(self.me, name, self.options, "Calling")
        except E2ECallError as error:
            self._refused(error)
            return
        self.calls.append(conversation)
        call = None
        try:
            with conversation.placing:
                call = await self.me.call(
                    name,
                    audio=conversation.audio,
                    video=conversation.video,
                    output=conversation.output,
                )
        except E2ECallError as error:
            self._drop(conversation)
            self._refused(error)
            return
        if call is None:
            self._drop(conversation)
            self.say(f"The call to {name} was given up.")
            self._end_unless_it_stays()
        else:
            await self._follow(conversation, call)

    async def answer(
        self, incoming: IncomingCall, end_other: bool = False, by_itself: bool = False
    ) -> None:
        """Take a call; another one is put on hold, or ended with ``end_other``.

        ``by_itself``: no key asked for it.
        """
        self._stop_ringing(incoming)
        try:
            conversation = Conversation(self.me, incoming.caller, self.options, "Connecting")
        except E2ECallError as error:
            self._refused(error)
            await incoming.decline()
            return
        conversation.came_by_itself = by_itself
        self.calls.append(conversation)
        is_taken = False
        try:
            with conversation.placing:
                await incoming.accept(
                    audio=conversation.audio,
                    video=conversation.video,
                    output=conversation.output,
                    end_other=end_other,
                )
                is_taken = True
        except E2ECallError as error:
            _log.info("a call could not be taken: %s", type(error).__name__)
        if not is_taken:  # hung up before it was taken, or given up by the caller
            incoming.call.leave()
        await self._follow(conversation, incoming.call)

    async def decline(self, incoming: IncomingCall) -> None:
        """Do not answer."""
        self._stop_ringing(incoming)
        self.say(f"A call of {incoming.caller} was declined.")
        await incoming.decline()
        self._end_unless_it_stays()

    async def block(self, peer: str) -> None:
        """Refuse somebody from now on, which ends what rings or goes on with them.

        ``peer`` is the whole address.
        """
        for incoming in [one for one in self.ringing if one.caller == peer]:
            self._stop_ringing(incoming)
        try:
            await self.me.block(peer)
        except E2ECallError as error:
            self.say(told(error))
        if any(contact.address == peer and contact.blocked for contact in self.me.contacts()):
            self.say(f"{peer} is blocked.")
        self._end_unless_it_stays()

    async def swap(self) -> None:
        """Go over to the other call; the one before is put on hold."""
        if not self.can_swap:
            return
        shown, other = self.calls[-1], self.calls[-2]
        if not shown.call.controls.held:
            await shown.toggle_hold()
        if not (shown.call.controls.held or shown.call.ended):
            return  # it said why; no word is to go into two calls
        if other.call.controls.held and other.call.ended is None:
            await other.toggle_hold()
        if other in self.calls:
            self.calls.remove(other)
            self.calls.append(other)

    def say(self, text: str, who: str = "") -> None:
        """Add a line, also to the call that is shown."""
        for lines in (self.lines, *([] if self.current is None else [self.current.model.lines])):
            lines.append(Line(who, text))

    def check(self) -> None:
        """Raise what the one call of a phone that does not stay came to.

        Raises:
            E2ECallError: it was not possible, or it came to a bad end.
        """
        if self.failure is not None:
            raise self.failure
        if self.stays:
            return
        for model in self.past[:1]:
            check_code(differs=model.verdict is Verdict.DIFFERENT, peer=model.peer)
            # Whoever gave it up, it is no failure: the user did, or there is nobody to answer.
            if model.ended is not None and model.ended.reason is not EndReason.CANCELLED:
                check(model.ended, model.peer)

    async def _follow(self, conversation: Conversation, call: Any) -> None:
        try:
            await conversation.follow(call)
        finally:
            self.calls.remove(conversation)
            self.past.append(conversation.model)
            self._tell_end(conversation.model)
            self._end_unless_it_stays()

    def _drop(self, conversation: Conversation) -> None:
        """Forget a call that never began."""
        conversation.close()
        self.calls.remove(conversation)

    def _end_unless_it_stays(self) -> None:
        if not self.stays and not self.calls:
            self.quit()

    async def _forget_when_over(self, incoming: IncomingCall) -> None:
        """Stop ringing when the caller gives up."""
        await incoming.call.wait_ended()
        if incoming in self.ringing:
            self._stop_ringing(incoming)
            self.say(f"{incoming.caller} called and gave up.")
            self._end_unless_it_stays()

    def _stop_ringing(self, incoming: IncomingCall) -> None:
        if incoming in self.ringing:
            self.ringing.remove(incoming)

    def _tell_end(self, model: CallModel) -> None:
        talked = ""
        if model.connected_at is not None:
            talked = f" after {clock(time.monotonic() - model.connected_at)}"
        self.say(f"{model.peer}: {model.status.rstrip('.')}{talked}.")
        if model.verdict is Verdict.DIFFERENT:
            self.say("They saw another code: somebody between you may have been listening.")

    def _refused(self, error: E2ECallError) -> None:
        """Tell that what was asked for cannot be; a phone that is there for it alone ends."""
        if self.stays or self.calls:
            self.say(told(error))
        else:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.quit()


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds."""
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
