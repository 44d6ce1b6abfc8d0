"""What a person does within a call (spec/call.md, "Controls"): mute, show, hold, write.

What is let out is stopped first and told then; what is let out anew is told first (CALL-31). Which
of it a peer may bring about - nothing - is `e2ecall.protocol.call_controls`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from e2ecall.client.calllife import CallLife
from e2ecall.client.callmedia import release
from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.messages import Stream

if TYPE_CHECKING:
    from e2ecall.media.sources import VideoSource

_PICTURES: Final = (Stream.CAMERA, Stream.SCREEN)


class CallControls(CallLife):
    """A call with its controls. They hold from the moment on at which the call has media."""

    @property
    def controls(self) -> Controls:
        """What this end sends and does, as its user chose."""
        return self._wanted

    async def mute(self, muted: bool = True) -> None:
        """Send silence of the same size and rate instead of the microphone, or the microphone."""
        # At once, as everything that waits for no source: a camera may take long to open.
        self._change(replace(self._wanted, muted=muted))

    async def unmute(self) -> None:
        """Send the microphone again."""
        await self.mute(muted=False)

    async def mute_peer(self, muted: bool = True) -> None:
        """Do not hear the other person, or hear them again; they are not told."""
        self._peer_muted = muted
        if self.has_media:
            self._apply_controls()

    async def hide_peer(self, hidden: bool = True) -> None:
        """Do not see the other person's camera and screen, or see them; they are not told."""
        self._hides_pictures = hidden
        if self.has_media:
            self._apply_controls()

    async def hold_to_rules(self, shows_pictures: bool, *, said: bool) -> None:
        """REACH-15: follow what the user's rules say of the peer's pictures now.

        ``said``: the user said it just now, and of nothing else. The client calls this, and ends
        the call where it raises.

        Raises:
            MediaError: the own pictures cannot be turned off.
        """
        changed = shows_pictures != self._shows_pictures
        self._shows_pictures = shows_pictures
        if not (changed or (said and not shows_pictures)):
            return
        await self.hide_peer(not shows_pictures)
        if not shows_pictures:
            shown = [stream for stream in _PICTURES if self._wants(stream)]
            self._stop(*_PICTURES)  # also one that is not on yet, because it takes long to open
            for stream in shown:
                await self._show(stream, False, None)

    async def camera(self, on: bool = True, source: "VideoSource | None" = None) -> None:
        """Turn the own camera off, which closes its source, or on, with a source.

        Without ``source`` the one before is opened once more, if it is `Repeatable`, as cameras and
        files are. A source belongs to the call from here on, and is closed if this raises.

        Raises:
            LocalProtocolError: it is to be on, and there is no source and none to open once more.
            MediaError: the one before cannot be opened any more.
        """
        await self._show(Stream.CAMERA, on, source)

    async def switch_camera(self, source: "VideoSource") -> None:
        """Send another picture as the camera's; the former source is closed. Raises as `camera`."""
        await self.camera(True, source)

    async def share_screen(self, source: "VideoSource | None") -> None:
        """Send a picture besides the camera's, or with None end that; the source is closed then.

        It belongs to the call as that of `camera` does. Raises as `camera`.
        """
        await self._show(Stream.SCREEN, source is not None, source)

    async def hold(self) -> None:
        """Let nothing out, and play and show nothing, until `resume`."""
        self._change(replace(self._wanted, held=True))

    async def resume(self) -> None:
        """Go on as it was before `hold`."""
        self._change(replace(self._wanted, held=False))

    async def write(self, text: str) -> None:
        """Show a text of 1 to 1 000 characters to the other person; it is kept nowhere.

        Raises:
            LocalProtocolError: the call was not accepted yet or is over; or no such text can be.
        """
        self._machine.send_text(text, self._clock())
        self._pump()

    async def ask_video(self, video: bool = True) -> None:
        """Ask the other person for their camera, or to go on without; they decide.

        Who asks for a camera sees it, also where the rules for calls would not show it.

        Raises:
            LocalProtocolError: the call was not accepted yet or is over.
        """
        self._machine.renegotiate(video=video, now=self._clock())
        self._pump()
        if video:
            await self.hide_peer(False)

    async def _show(self, stream: Stream, on: bool, source: "VideoSource | None") -> None:
        try:
            if not on and source is not None:
                raise LocalProtocolError("a picture that is turned off needs no source")
            if not on:
                self._stop(stream)
            asked_after = self._turned_off[stream]
            async with self._controlling:
                if on and source is None:
                    if self._wants(stream):
                        return
                    source = await self._again(stream)
                if on and asked_after != self._turned_off[stream]:
                    release(source)  # turned off since it was asked for
                else:
                    await self._exchange(stream, source)
        except BaseException:
            release(source)  # MEDIA-50
            raise

    def _stop(self, *streams: Stream) -> None:
        """Show none of these any more, from now on, whatever their sources are about to do."""
        for stream in streams:
            self._turned_off[stream] += 1
        off = {stream.name.lower(): False for stream in streams if self._wants(stream)}
        if off:
            self._change(replace(self._wanted, **off))

    def _wants(self, stream: Stream) -> bool:
        return bool(getattr(self._wanted, stream.name.lower()))

    async def _exchange(self, stream: Stream, source: "VideoSource | None") -> None:
        """Send this picture, or none; what is let out anew is told first (CALL-31)."""
        if source is None:
            if self.has_media:
                with anyio.CancelScope(shield=True):  # what was asked for is a camera that is off
                    await self.media.show(stream, None)
            return
        media, name = self.media, stream.name.lower()
        former, asked_after = self._wants(stream), self._turned_off[stream]
        self._change(replace(self._wanted, **{name: True}))
        self._shown[stream] = source
        try:
            await media.show(stream, source)
        except BaseException:
            if asked_after == self._turned_off[stream]:
                self._change(replace(self._wanted, **{name: former}))
            raise

    async def _again(self, stream: Stream) -> "VideoSource":
        """Open once more what was shown before; in a thread, as a camera takes a while."""
        before = self._shown.get(stream)
        if before is None and stream is Stream.CAMERA:
            before = self._choice.video
        again: Callable[[], VideoSource] | None = getattr(before, "again", None)
        if again is None:
            raise LocalProtocolError(
                f"the {stream.name.lower()} needs a source, to be turned on",
                hint="one that is closed stays closed, unless it can be opened again",
            )
        return await anyio.to_thread.run_sync(again)

    def _change(self, wanted: Controls) -> None:
        """Stop what is no longer let out, tell the peer, then send what is let out anew.

        All in one step, so that whoever is cancelled has changed it whole, or not.
        """
        former = self._wanted
        self._wanted = wanted
        more = any(wanted.lets_out(s) and not former.lets_out(s) for s in Stream)
        if more:
            self._say()
        if self.has_media:
            self._apply_controls()
        if not more:
            self._say()

    def _say(self) -> None:
        self._say_controls()
        self._pump()
