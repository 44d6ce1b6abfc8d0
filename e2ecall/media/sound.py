"""Microphone and speaker, through PortAudio (the extra ``audio``; spec/media.md, "Devices").

PortAudio calls from a thread of its own, which must neither wait nor raise: blocks of sound cross
over in bounded queues. A device that goes away is told once, and silence takes its place.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import numpy as np
from av import AudioFrame

from e2ecall.errors import MediaError
from e2ecall.media.elastic import ElasticBuffer
from e2ecall.media.sinks import DecodedFrame
from e2ecall.media.sources import SAMPLE_RATE, SAMPLES_PER_FRAME, audio_frame, silence
from e2ecall.protocol.messages import Stream

Lost = Callable[[str], None]
"""Is told in a sentence which device went away; called once, by any thread, and must not wait."""

MAX_WAITING: Final = 4 * SAMPLES_PER_FRAME
"""Samples from the microphone that wait to be sent; older ones are dropped."""

_RESERVE: Final = SAMPLES_PER_FRAME // 4
_TOO_MUCH: Final = SAMPLES_PER_FRAME * 3 // 2
"""Samples of the microphone that are always left over, at least and at most."""

LOST_AFTER: Final = 3.0
"""Seconds without a sign of life after which a device counts as gone; some take two to wake up."""

_BLOCK_PATIENCE: Final = 0.03
"""Seconds that a read waits for the microphone; its clock and ours are not the same."""

_BEGIN_AT: Final = 3 * SAMPLES_PER_FRAME
_KEEP_AT_MOST: Final = 10 * SAMPLES_PER_FRAME
"""Samples that wait for the speaker: it begins at 60 ms, and what is beyond 200 ms is dropped."""

_LATENCY: Final = 0.06
"""Seconds of sound that PortAudio keeps: enough for a thread of Python to be late."""

_CHANNELS: Final = 2
_SAMPLE_BYTES: Final = 2 * _CHANNELS


class _Device(ABC):
    """An open PortAudio stream, and whether it still lives."""

    def __init__(self, what: str, kind: str, device: str | None, on_lost: Lost | None) -> None:
        self._what = what
        self._on_lost = on_lost
        self._alive_at = time.monotonic()
        self._finished = False
        self._closed = False
        self._told = False
        self._opening = threading.Lock()  # PortAudio must not start and close a stream at once
        portaudio = _portaudio(what)
        open_stream = portaudio.RawInputStream if kind == "input" else portaudio.RawOutputStream
        wanted = _index_or_name(device)
        try:
            self.name = str(portaudio.query_devices(wanted, kind)["name"])
            self._stream: Any = open_stream(
                samplerate=SAMPLE_RATE,
                blocksize=SAMPLES_PER_FRAME,
                device=wanted,
                channels=1 if kind == "input" else _CHANNELS,
                dtype="int16",
                latency=_LATENCY,
                callback=self._exchange,
                finished_callback=self._finish,
            )
        except (portaudio.PortAudioError, ValueError) as error:
            raise MediaError(
                f"no {what} can be opened: {_reason(error)}",
                hint=f"plug one in, or choose another: --{what} NAME (`e2ecall doctor` tries them)",
            ) from error

    @property
    def is_lost(self) -> bool:
        """Whether the device went away."""
        return self._told

    def stop(self) -> None:
        """Close the device; from any thread, also twice."""
        with self._opening:
            if not self._closed:
                self._closed = True
                self._stream.close(ignore_errors=True)

    def _start(self) -> None:
        self._alive_at = time.monotonic()
        with self._opening:
            if self._closed:
                return
            try:
                self._stream.start()
            except Exception:  # noqa: BLE001 - PortAudio's error; its class is loaded late
                self._finish()

    @abstractmethod
    def _exchange(self, data: Any, frames: int, times: Any, status: Any) -> None:
        """Take or give a block. In PortAudio's thread."""

    def _finish(self) -> None:
        self._finished = True

    def _look(self) -> None:
        """Tell once if the device shows no sign of life."""
        gone = self._finished or time.monotonic() - self._alive_at > LOST_AFTER
        if gone and not self._told and not self._closed:
            self._told = True
            if self._on_lost is not None:
                self._on_lost(f"the {self._what} {self.name} went away")


class Microphone(_Device):
    """An audio source: the microphone ``device``, by name or number; None: the system's choice.

    It is open from the beginning, and listens from the first `read` on, which is when a call was
    accepted. ``on_lost`` is told when it goes away; silence is sent from then on.

    Raises:
        MediaError: the extra is not installed, or there is no such device.
    """

    def __init__(self, device: str | None = None, *, on_lost: Lost | None = None) -> None:
        self._sound = ElasticBuffer(1, low=_RESERVE, high=_TOO_MUCH, most=MAX_WAITING)
        self._there = threading.Condition()
        self._started = False
        super().__init__("microphone", "input", device, on_lost)

    def read(self) -> AudioFrame:
        """Return the next 20 ms, or silence where the device has none; see `AudioSource.read`."""
        if not self._started:
            self._started = True
            self._start()
        with self._there:
            if not self._told:
                self._there.wait_for(
                    lambda: self._sound.ready(SAMPLES_PER_FRAME) or self._closed, _BLOCK_PATIENCE
                )
            block = self._sound.take(SAMPLES_PER_FRAME)
        if block is None:
            self._look()
            return silence()
        return audio_frame(block.reshape(-1))

    def close(self) -> None:
        """Close the device; a `read` that waits returns."""
        self.stop()
        with self._there:
            self._there.notify_all()

    def _exchange(self, data: Any, frames: int, times: Any, status: Any) -> None:  # noqa: ARG002 - PortAudio's signature
        self._alive_at = time.monotonic()
        with self._there:
            self._sound.put(np.frombuffer(bytes(data), dtype=np.int16).reshape(-1, 1))
            self._there.notify()


class Speaker(_Device):
    """A sink that plays what the peer says on ``device``; its arguments are as of `Microphone`."""

    def __init__(self, device: str | None = None, *, on_lost: Lost | None = None) -> None:
        self._sound = ElasticBuffer(
            _CHANNELS, low=SAMPLES_PER_FRAME, high=_BEGIN_AT, most=_KEEP_AT_MOST
        )
        self._lock = threading.Lock()
        self._plays = False
        super().__init__("speaker", "output", device, on_lost)
        self._start()

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:  # noqa: ARG002 - see `Sink`
        """Take a frame; pictures are dropped."""
        if stream is not Stream.MICROPHONE or not isinstance(frame, AudioFrame):
            return
        self._look()
        samples = frame.to_ndarray().astype(np.int16, copy=False).reshape(-1, _CHANNELS)
        with self._lock:
            self._sound.put(samples)

    async def close(self) -> None:
        """Close the device."""
        self.stop()

    def _exchange(self, data: Any, frames: int, times: Any, status: Any) -> None:  # noqa: ARG002 - PortAudio's signature
        self._alive_at = time.monotonic()
        with self._lock:
            # After a gap a little is saved up again, or every late packet would be heard.
            begins = self._plays or len(self._sound) >= _BEGIN_AT
            played = self._sound.take(frames) if begins else None
            self._plays = played is not None
        sound = b"" if played is None else played.tobytes()
        data[:] = sound.ljust(frames * _SAMPLE_BYTES, b"\0")


def preload() -> None:
    """Have PortAudio look for devices now, if it is there; stderr is turned off meanwhile."""
    with suppress(MediaError):  # told when a device is asked for
        _portaudio("device")


def _portaudio(what: str) -> Any:
    """Load PortAudio's binding, which is looked for only when a device is asked for."""
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise MediaError(
            f"a {what} needs a library that is not installed",
            hint="pip install 'e2ecall[audio]'",
        ) from error
    except OSError as error:
        raise MediaError(
            f"a {what} needs PortAudio, which is not on this system",
            hint="on Debian and Ubuntu: sudo apt-get install -y libportaudio2",
        ) from error
    return sounddevice


def _index_or_name(device: str | None) -> str | int | None:
    return int(device) if device is not None and device.isdecimal() else device


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
