"""What one end of a call lets out (spec/call.md, "Controls"): the choice of its own user.

Values only. They change by what this end does, in `e2ecall.protocol.call_controls`, and by nothing
that a peer sends.
"""

from dataclasses import dataclass

from e2ecall.protocol.messages import Stream


@dataclass(frozen=True, slots=True)
class Controls:
    """What an end sends and does, as its MediaState says it."""

    muted: bool = False
    """Silence is sent in the place of the microphone."""
    camera: bool = False
    screen: bool = False
    held: bool = False
    """Nothing of this end is sent, and nothing of the peer is shown or played until it resumes."""
    recording: bool = False
    """What the peer sends is being recorded."""

    def lets_out(self, stream: Stream) -> bool:
        """Return whether what this end captures as ``stream`` may leave it."""
        if self.held:
            return False
        match stream:
            case Stream.MICROPHONE:
                return not self.muted
            case Stream.CAMERA:
                return self.camera
            case _:
                return self.screen
