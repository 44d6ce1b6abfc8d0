"""What people do within a call (spec/call.md, "Controls"): show, hide, write, ask for video.

Nothing here moves the call to another state, and nothing that a peer sends changes what this end
lets out: `Controls` are of this end's own making (CALL-30).
"""

from e2ecall.errors import LocalProtocolError
from e2ecall.protocol.call_channel import UNSIGNED
from e2ecall.protocol.call_core import CallBasis
from e2ecall.protocol.call_events import PeerMediaState, PeerText, VideoAsked
from e2ecall.protocol.call_path import CallPaths
from e2ecall.protocol.call_table import Action, Role
from e2ecall.protocol.controls import Controls
from e2ecall.protocol.description import describes
from e2ecall.protocol.messages import (
    MAX_CALL_TEXT,
    MediaState,
    Renegotiate,
    Stream,
    Text,
)


class CallControls(CallPaths):
    """The controls of one end of a call."""

    def __init__(self, basis: CallBasis) -> None:
        super().__init__(basis)
        self._controls = Controls()
        self._media_state_counter = -1
        self._renegotiate_counter = -1

    @property
    def controls(self) -> Controls:
        """What this end lets out; nothing but its own methods changes it (CALL-30)."""
        return self._controls

    # --- what this end does -------------------------------------------------------------------

    def set_media_state(
        self,
        *,
        muted: bool,
        camera: bool,
        screen: bool = False,
        held: bool = False,
        recording: bool = False,
        now: float,
    ) -> None:
        """Change what this end lets out, and tell the peer.

        Without effect where the deadline has passed.
        """
        if self.on_time(now):
            return
        self._check(Action.SET_MEDIA_STATE)
        for stream, wanted in ((Stream.CAMERA, camera), (Stream.SCREEN, screen)):
            if wanted and not self._describes(stream):
                raise LocalProtocolError("this end has described no such stream")
        counter = self._channel.next_counter()
        self._controls = Controls(muted, camera, screen, held, recording)
        message = MediaState(
            self.call_id, counter, muted, camera, screen, held, recording, UNSIGNED
        )
        self._outgoing.append(self._channel.sign(message))

    def send_text(self, text: str, now: float) -> None:
        """Write to the peer; 1 to `MAX_CALL_TEXT` characters.

        Without effect where the deadline has passed.
        """
        if self.on_time(now):
            return
        self._check(Action.SEND_TEXT)
        if not 0 < len(text) <= MAX_CALL_TEXT:
            raise LocalProtocolError(f"a text in a call has 1 to {MAX_CALL_TEXT} characters")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise LocalProtocolError("a text cannot hold half a character") from error
        message = Text(self.call_id, self._channel.next_counter(), text, UNSIGNED)
        self._outgoing.append(self._channel.sign(message))

    def renegotiate(self, *, video: bool, now: float) -> None:
        """Ask the peer for its camera, or to go on without; its user decides.

        Without effect where the deadline has passed.
        """
        if self.on_time(now):
            return
        self._check(Action.RENEGOTIATE)
        message = Renegotiate(self.call_id, self._channel.next_counter(), video, UNSIGNED)
        self._outgoing.append(self._channel.sign(message))

    # --- what the peer does -------------------------------------------------------------------

    def _receive_control(self, message: MediaState | Text | Renegotiate) -> None:
        match message:
            case MediaState():
                self._receive_media_state(message)
            case Text(text=text):
                self._events.append(PeerText(text))
            case _:
                self._receive_renegotiate(message)

    def _receive_media_state(self, message: MediaState) -> None:
        if message.counter < self._media_state_counter:
            return  # overtaken by a newer one
        self._media_state_counter = message.counter
        controls = Controls(
            message.muted, message.camera, message.screen, message.held, message.recording
        )
        self._events.append(PeerMediaState(controls))

    def _receive_renegotiate(self, message: Renegotiate) -> None:
        if message.counter < self._renegotiate_counter:
            return  # overtaken by a newer one
        self._renegotiate_counter = message.counter
        self._events.append(VideoAsked(message.video))

    # --- helpers ------------------------------------------------------------------------------

    def _describes(self, stream: Stream) -> bool:
        """Return whether this end has described a stream as one of its own."""
        if self._role is Role.CALLER:
            return describes(self._offer.media, stream)
        return self._ringing is not None and describes(self._ringing.media, stream)
