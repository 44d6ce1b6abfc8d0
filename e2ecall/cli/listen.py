"""``e2ecall listen``: show messages and take calls as they come in."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated

import anyio
from cyclopts import Parameter

from e2ecall.cli.conversation import CallFailedError, check, converse, tell
from e2ecall.cli.happenings import describe_loss, describe_ringing
from e2ecall.cli.media import NO_MEDIA, MediaOptions
from e2ecall.cli.options import DEFAULT, Options, Plain
from e2ecall.cli.output import Output, harmless, local_time
from e2ecall.cli.running import run
from e2ecall.cli.softphone.show import is_usable, use_phone
from e2ecall.cli.terminal import Terminal
from e2ecall.client import Call, Client, IncomingCall, MessagesSetAside
from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_events import EndReason
from relay.wire.errors import WireError
from relay.wire.names import Address


def listen(
    *,
    accept: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    once: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    plain: Plain = False,
    media: MediaOptions = NO_MEDIA,
    options: Options = DEFAULT,
) -> None:
    """Show messages and take calls as they come in. Ctrl-C hangs up and ends.

    In a terminal there is a screen, with its keys in the last line. Otherwise each call is
    announced, and taken if you answer y; where nobody can answer, calls that --accept does not name
    are declined.

    Parameters
    ----------
    accept
        Take calls of this person without asking; a username, or name@relay. May be repeated.
    once
        End after the first call.
    plain
        Tell what happens line by line instead, and ask questions, as without a terminal.
    """
    media.check()
    access, output = options.access(), options.output()

    async def show(me: Client) -> None:
        welcome = _addresses(accept, me.address)
        await use_phone(me, media, output, once=once, welcome=welcome)

    async def work(me: Client) -> None:
        listener = Listener(me, _addresses(accept, me.address), media, Terminal(), output)
        output.tell(f"Listening as {me.address}.", "listening", address=me.address)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_show_messages, me, output)
            tasks.start_soon(_show_missed, me, output)
            tasks.start_soon(_show_missing, me, output)
            await listener.take_calls(once=once)
            tasks.cancel_scope.cancel()

    if is_usable(plain=plain, as_json=options.as_json):
        run(access.open, show, backend="asyncio")
        return

    run(access.open, work)


@dataclass(frozen=True, slots=True)
class Listener:
    """Takes the calls of one client."""

    me: Client
    welcome: frozenset[str]
    """Addresses whose calls are taken without asking."""
    media: MediaOptions
    terminal: Terminal
    output: Output

    async def take_calls(self, *, once: bool) -> None:
        """Take calls until the account's connection ends, or just one.

        Raises:
            CallFailedError: the one call came to a bad end.
        """
        async for incoming in self.me.incoming():
            self._announce(incoming)
            try:
                await self._take(incoming)
            except CallFailedError as error:
                if once:
                    raise
                _warn(error)
            if once:
                return

    def _announce(self, incoming: IncomingCall) -> None:
        mark = "verified" if incoming.verified else "not verified"
        self.output.tell(
            f"{incoming.caller} ({mark}): {describe_ringing(incoming)}",
            "rings",
            caller=incoming.caller,
            verified=incoming.verified,
            wants_video=incoming.wants_video,
            broken_off=incoming.broken_off,
        )

    async def _take(self, incoming: IncomingCall) -> None:
        call = incoming.call
        if incoming.caller not in self.welcome and not await self._is_wanted(incoming):
            await incoming.decline()
            if call.ended is not None:
                tell(call.ended, call.peer, self.output)
            return
        with self.media.open(on_lost=self.output.device_lost) as media:
            with suppress(LocalProtocolError):  # given up meanwhile: the conversation tells
                await incoming.accept(audio=media.audio, video=media.video, output=media.output)
            ended = await converse(
                self.me,
                call,
                screen=media.screen,
                seconds=self.media.seconds,
                terminal=self.terminal,
                output=self.output,
            )
        if ended.reason is not EndReason.CANCELLED:
            check(ended, incoming.caller)

    async def _is_wanted(self, incoming: IncomingCall) -> bool:
        """Ask the user, until there is an answer, nobody to ask, or the caller gives up."""
        answer: str | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_at_end, incoming.call, tasks.cancel_scope)
            answer = await self.terminal.choose("Take it? Type y or n.", "y", "yes", "n", "no")
            tasks.cancel_scope.cancel()
        return answer in {"y", "yes"}


async def _cancel_at_end(call: Call, scope: anyio.CancelScope) -> None:
    await call.wait_ended()
    scope.cancel()


async def _show_messages(me: Client, output: Output) -> None:
    async for message in me.messages():
        sender = message.sender if message.proven else f"{message.sender} (not proven)"
        output.tell(
            f"{local_time(message.sent_at)}  {sender}: {harmless(message.text)}",
            "message",
            sender=message.sender,
            proven=message.proven,
            sent_at=message.sent_at,
            text=message.text,
        )


async def _show_missed(me: Client, output: Output) -> None:
    async for call in me.missed():
        kind = "video call" if call.video else "call"
        output.tell(
            f"{local_time(call.began)}  {call.peer}: a missed {kind}.",
            "missed",
            caller=call.peer,
            began=call.began,
            video=call.video,
            reason=call.reason,
        )


async def _show_missing(me: Client, output: Output) -> None:
    async for event in me.missing():
        name = "set_aside" if isinstance(event, MessagesSetAside) else "missing"
        output.tell(describe_loss(event), name, **asdict(event))


def _warn(error: CallFailedError) -> None:
    sys.stderr.write(f"e2ecall: warning: {error}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")


def _addresses(names: Sequence[str], own: str) -> frozenset[str]:
    """Return the full addresses of people at the own relay, or at those they are named with."""
    relay = Address.parse(own).relay
    try:
        return frozenset(str(Address.parse(name, relay)) for name in names)
    except WireError as error:
        raise LocalProtocolError(f"--accept: {error}") from error
