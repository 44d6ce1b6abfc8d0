"""A sink that writes an MP4 file (spec/media.md, "Sinks").

What is recorded is the decrypted call, in the clear: it is the user's decision and file. Encoding
happens in a thread of the recorder. It records one sound and one picture.
"""

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av import AudioFrame, VideoFrame

from e2ecall.media.sinks import DecodedFrame
from e2ecall.media.sources import SAMPLE_RATE, VIDEO_CLOCK
from e2ecall.media.worker import Worker
from e2ecall.protocol.messages import Stream

MAX_AHEAD: Final = 10.0
"""Seconds by which a recording may be longer than it took (MEDIA-55)."""

_MAX_SILENCE: Final = 10 * SAMPLE_RATE
"""Samples of silence written at once: what a longer gap lacks comes before the next frames."""

_SLACK: Final = SAMPLE_RATE // 10
"""Samples that sound may come early or late before silence is put in: network jitter."""


class RecorderSink:
    """Writes H.264 and AAC to ``path``; pictures are scaled to ``width`` x ``height``.

    The other person is told that they are recorded (CALL-32).
    """

    keeps: Final = True

    def __init__(
        self,
        path: Path | str,
        *,
        audio: Stream = Stream.MICROPHONE,
        video: Stream | None = Stream.CAMERA,
        width: int = 640,
        height: int = 360,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` is for tests: seconds that nobody sets."""
        self._clock = clock
        self._path = Path(path)
        self._audio, self._video = audio, video
        self._size = (width, height)
        self._worker: Worker | None = None
        self._recording: _Recording | None = None
        self._start: float | None = None
        self._offsets: dict[Stream, float] = {}

    async def write(self, stream: Stream, frame: DecodedFrame, rtp_time: int) -> None:
        """Record a frame of the chosen streams; others are dropped."""
        if stream not in (self._audio, self._video):
            return
        now = self._clock()
        if self._worker is None:
            self._start, self._worker = now, Worker("e2ecall-recorder")
        assert self._start is not None
        # Streams count from their own first frame; its arrival puts them side by side.
        offset = self._offsets.setdefault(stream, now - self._start)
        passed = now - self._start
        await self._worker.run(lambda: self._record(frame, offset, rtp_time, passed))

    async def close(self) -> None:
        """Finish the file. Nothing is written if no frame came."""
        if self._worker is None:
            return
        try:
            await self._worker.run(self._finish)
        finally:
            await self._worker.close()

    def _record(self, frame: DecodedFrame, offset: float, rtp_time: int, passed: float) -> None:
        if self._recording is None:
            self._recording = _Recording(self._path, self._size, video=self._video is not None)
        clock = SAMPLE_RATE if isinstance(frame, AudioFrame) else VIDEO_CLOCK
        at, last = rtp_time + int(offset * clock), int((passed + MAX_AHEAD) * clock)
        if at > last:  # MEDIA-55 MUST
            at = int(passed * clock)
        if isinstance(frame, AudioFrame):
            self._recording.sound(frame, at, last)
        else:
            self._recording.picture(frame, at, last)

    def _finish(self) -> None:
        if self._recording is not None:
            self._recording.finish()


class _Recording:
    """The file being written, in one thread."""

    def __init__(self, path: Path, size: tuple[int, int], *, video: bool) -> None:
        self._container = av.open(str(path), mode="w", format="mp4")
        self._sound: Any = self._container.add_stream("aac", rate=SAMPLE_RATE)
        self._sound.layout = "stereo"
        self._picture: Any = None
        self._size = size
        if video:
            self._picture = self._container.add_stream("libx264", rate=30)
            self._picture.width, self._picture.height = size
            self._picture.pix_fmt = "yuv420p"
            self._picture.options = {"preset": "veryfast", "tune": "zerolatency"}
            self._picture.codec_context.time_base = Fraction(1, VIDEO_CLOCK)
        self._samples = 0
        self._last_picture = -1

    def sound(self, frame: AudioFrame, at: int, last: int) -> None:
        """Append sound whose first sample belongs at sample ``at``, after silence if need be.

        MEDIA-55 MUST: it is left out if it would end after ``last``.
        """
        room = last - frame.samples - self._samples
        if room < 0:
            return
        gap = min(at - self._samples, room, _MAX_SILENCE)
        if gap > _SLACK:
            silence = np.zeros((1, 2 * gap), dtype=np.int16)
            filler = AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
            filler.sample_rate = SAMPLE_RATE
            self._append(filler)
        self._append(frame)

    def picture(self, frame: VideoFrame, at: int, last: int) -> None:
        """Append a picture for the time ``at`` in ticks of 1/90 000 s, not after ``last``."""
        at = max(at, self._last_picture + 1)
        if self._picture is None or at > last:  # MEDIA-55 MUST
            return
        width, height = self._size
        scaled = frame.reformat(width=width, height=height, format="yuv420p")
        scaled.pts, scaled.time_base = at, Fraction(1, VIDEO_CLOCK)
        self._last_picture = at
        self._container.mux(self._picture.encode(scaled))

    def finish(self) -> None:
        """Write what the encoders still hold, and the index."""
        for stream in (self._sound, self._picture):
            if stream is not None:
                self._container.mux(stream.encode(None))
        self._container.close()

    def _append(self, frame: AudioFrame) -> None:
        frame.pts, frame.time_base = self._samples, Fraction(1, SAMPLE_RATE)
        self._samples += frame.samples
        self._container.mux(self._sound.encode(frame))
