"""One call of the softphone: follows its events, and does what the user's keys ask for.

It draws nothing; what it learns is in its `CallModel`.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from e2ecall.cli.conversation import is_verified
from e2ecall.cli.media import MediaOptions
from e2ecall.cli.softphone.model import CallModel, Verdict
from e2ecall.client import Call, Client, Connected
from e2ecall.errors import E2ECallError, LocalProtocolError

if TYPE_CHECKING:
    from e2ecall.media.sources import VideoSource


class Conversation:
    """A call with its sources, its meters and what is shown of it. Closed by `follow`."""

    def __init__(self, me: Client, peer: str, options: MediaOptions, status: str) -> None:
        """Open the media of a call with ``peer``.

        Raises:
            MediaError: a file or a device cannot be opened.
        """
        from e2ecall.media.levels import MeteredAudio, MeteredSink

        self._me = me
        self.model = CallModel(peer, is_verified(me, peer), status)
        self._options = options
        self._stack = ExitStack()
        media = self._stack.enter_context(options.open(live=True, on_lost=self._device_lost))
        for note in media.notes:
            self.model.say(note)
        self.audio: MeteredAudio | None = MeteredAudio(media.audio) if media.audio else None
        self.video: VideoSource | None = media.video
        self._screen: VideoSource | None = media.screen
        self.output: MeteredSink = MeteredSink(media.output)
        self.placing = anyio.CancelScope()
        """What placing or taking the call happens in; hanging up before its end ends it."""
        self.came_by_itself = False
        """Whether it was taken without a key: then keys are not meant for it at once."""
        self._call: Call | None = None

    @property
    def is_placed(self) -> bool:
        """Whether there is a call to do something with."""
        return self._call is not None

    @property
    def call(self) -> Call:
        """The call, once it is placed or taken.

        Raises:
            LocalProtocolError: it is not yet.
        """
        if self._call is None:
            raise LocalProtocolError("the call is not placed yet")
        return self._call

    @property
    def levels(self) -> tuple[float, float]:
        """How loud this end and the other are, in decibels below full scale."""
        from e2ecall.media.levels import FLOOR

        own = FLOOR if self.audio is None else self.audio.level.decibels
        return own, self.output.level.decibels

    async def follow(self, call: Call) -> None:
        """Accompany the call to its end; hang up when cancelled. Releases its media."""
        self._call = call
        self.model.peer, self.model.own = call.peer, call.controls
        self.model.verified = is_verified(self._me, call.peer)  # by the full address
        try:
            async with anyio.create_task_group() as tasks:
                async for event in call.events():
                    self.model.take(event, time.monotonic())
                    self.model.own = call.controls  # call waiting changes them too
                    if not isinstance(event, Connected):
                        continue
                    if (screen := self._screen) is not None:
                        tasks.start_soon(self._do, partial(call.share_screen, screen))
                    if self._options.seconds is not None:
                        tasks.start_soon(_hang_up_after, call, self._options.seconds)
                tasks.cancel_scope.cancel()
            await call.closed.wait()
        finally:
            call.leave()
            self.close()

    def close(self) -> None:
        """Release the media of a call that never began."""
        self._stack.close()

    # --- keys -------------------------------------------------------------------------------------

    async def toggle_mute(self) -> None:
        """Mute the microphone, or let it be heard again."""
        muted = not self.call.controls.muted
        await self._do(lambda: self.call.mute(muted))

    async def toggle_camera(self) -> None:
        """Turn the camera off, or on."""
        on = not self.call.controls.camera
        await self._do(self._turn_camera_on if on else lambda: self.call.camera(False))

    async def toggle_screen(self) -> None:
        """End sharing the screen, or share it."""
        shared = self.call.controls.screen
        await self._do(partial(self.call.share_screen, None) if shared else self._share_screen)

    async def toggle_hold(self) -> None:
        """Put the call on hold, or go on with it."""
        await self._do(self.call.resume if self.call.controls.held else self.call.hold)

    async def write(self, text: str) -> None:
        """Show a text to the other person."""
        if await self._do(lambda: self.call.write(text)):
            self.model.say(text, "you")

    async def judge(self, verdict: Verdict) -> None:
        """Take what the user says of the code; if it differs the call ends."""
        if not self.model.asks_to_compare:
            return
        self.model.verdict = verdict
        if verdict is Verdict.DIFFERENT:
            self.call.leave()
        elif await self._do(self.call.confirm_sas):
            self.model.verified = True
            self.model.say(f"{self.model.peer} is verified.")
        else:
            self.model.verdict = Verdict.OPEN

    def hang_up(self) -> None:
        """End the call; `follow` returns when all is released."""
        if self._call is None:
            self.placing.cancel()
        else:
            self._call.leave()

    def _device_lost(self, what: str) -> None:
        """Say that a device went away; by any thread."""
        self.model.say(f"{what[0].upper()}{what[1:]}: silence or black is sent instead.")

    async def _turn_camera_on(self) -> None:
        open_ = partial(self._options.open_camera, self._device_lost)
        await self.call.camera(True, await anyio.to_thread.run_sync(open_))

    async def _share_screen(self) -> None:
        open_ = partial(self._options.open_screen, self._device_lost)
        await self.call.share_screen(await anyio.to_thread.run_sync(open_))

    async def _do(self, action: Callable[[], Awaitable[None]]) -> bool:
        """Do what a key asks for; what is refused is said in the call's lines."""
        try:
            await action()
        except E2ECallError as error:
            self.model.say(told(error))
            return False
        finally:
            self.model.own = self.call.controls
        return True


def told(error: E2ECallError) -> str:
    """Return an error in one line, with what to do."""
    return f"That did not work: {error}" + (f" ({error.hint})" if error.hint else "")


async def _hang_up_after(call: Call, seconds: float) -> None:
    await anyio.sleep(seconds)
    call.leave()
