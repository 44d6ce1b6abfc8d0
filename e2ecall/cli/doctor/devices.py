"""Which devices calls could use: microphone, speaker, camera and screen."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from e2ecall.cli.doctor.finding import Finding, Health
from e2ecall.errors import MediaError

if TYPE_CHECKING:
    from e2ecall.media.capture import Capture
    from e2ecall.media.sound import Microphone, Speaker

    Device: TypeAlias = Microphone | Speaker | Capture

_ELSE: Final = "calls can be made with files (--audio, --video), or with silence"


def device_findings() -> Iterator[Finding]:
    """Open each kind of device for a moment and yield what came of it; nothing is kept or sent."""
    from e2ecall.media.capture import Camera, Screen
    from e2ecall.media.sound import Microphone, Speaker

    openings: dict[str, Callable[[], Device]] = {
        "microphone": Microphone,
        "speaker": Speaker,
        "camera": Camera,
        "screen": Screen,
    }
    for what, open_device in openings.items():
        yield _try(what, open_device)


def _try(what: str, open_device: "Callable[[], Device]") -> Finding:
    try:
        device = open_device()
    except MediaError as error:
        return Finding(what, Health.ABSENT, str(error), error.hint or _ELSE)
    name = device.name
    device.stop()
    return Finding(what, Health.WORKS, name)
