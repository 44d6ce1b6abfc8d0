"""Media files: read what a user wants to send, write what was received (PyAV's containers).

Pictures are yuv420p arrays of 640 x 360 (540 rows of 640 bytes), sound is 48 kHz. It measures
nothing and sends nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from e2ecall.errors import MediaError
from e2ecall.media.counter import HEIGHT, WIDTH, Plane, stamp
from e2ecall.media.sources import SAMPLE_RATE, SAMPLES_PER_FRAME, Samples, black

PICTURE_RATE: Final = 30
_CLOCK: Final = Fraction(1, 90_000)
_SLACK: Final = 0.001
"""Seconds that a picture may be early: time stamps are rounded."""
_MAX_SOUND: Final = 600 * SAMPLE_RATE
"""Ten minutes of a user's sound file are kept in memory (58 MB), the rest is not sent."""


class FilePictures:
    """The pictures of a video file: 30 a second, fitted into 640 x 360, numbered, looped.

    Asking for growing numbers decodes the file once; asking for a smaller one starts again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pictures = self._loop()
        self._number = -1
        self._current = next(self._pictures)  # a file that cannot be sent is refused here
        self._pictures = self._loop()

    def frame(self, number: int) -> Plane:
        """Return picture ``number`` with its counter strip; see `generated.Pictures`."""
        if number < self._number:
            self._pictures = self._loop()
            self._number = -1
        while self._number < number:
            self._current = next(self._pictures)
            self._number += 1
        picture = self._current.copy()
        stamp(picture, number)
        return picture

    def _loop(self) -> Iterator[Plane]:
        while True:
            count = 0
            for picture in _read_pictures(self._path):
                yield picture
                count += 1
            if count == 0:
                raise MediaError(f"{self._path.name} shows no picture")


class FileSounds:
    """The sound of a file, mixed to mono 48 kHz and looped; see `generated.Sounds`."""

    def __init__(self, path: Path) -> None:
        self._samples = _read_sound(path)

    def samples(self, start: int, count: int) -> Samples:
        """Return ``count`` samples from sample number ``start`` on."""
        places = np.arange(start, start + count) % len(self._samples)
        taken: Samples = self._samples[places]
        return taken


def write_movie(
    path: Path, pictures: Iterable[tuple[float, Plane]], sound: Samples, sound_start: float
) -> None:
    """Write an MP4 of pictures with their times (seconds, never falling) and a stereo sound.

    ``sound`` is an array of samples by 2, whose first sample belongs to ``sound_start`` seconds.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=PICTURE_RATE, options={"crf": "18"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = _CLOCK
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        blocks = _sound_blocks(sound, sound_start)
        block = next(blocks, None)
        last = -1
        for time, picture in pictures:
            while block is not None and (block.pts or 0) < time * SAMPLE_RATE:
                container.mux(audio.encode(block))
                block = next(blocks, None)
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            last = max(round(time / _CLOCK), last + 1)  # two may have arrived at once
            frame.pts, frame.time_base = last, _CLOCK
            container.mux(video.encode(frame))
        while block is not None:
            container.mux(audio.encode(block))
            block = next(blocks, None)
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write an array of height by width by 3 (RGB) as a PNG file."""
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


def thumbnail(picture: Plane, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return a yuv420p picture scaled to ``width`` by ``height`` as an RGB array."""
    frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    image = scaled.to_ndarray()
    return image.astype(np.uint8, copy=False)


def _read_pictures(path: Path) -> Iterator[Plane]:
    """Yield one pass of a video file at 30 pictures a second, by each picture's time."""
    with _open(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path.name} has no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        lasting = 1.0 / float(stream.average_rate or PICTURE_RATE)
        start: float | None = None
        number, until, waiting = 0, 0.0, None
        for frame in container.decode(stream):
            start = frame.time if start is None else start
            while waiting is not None and number / PICTURE_RATE < frame.time - start - _SLACK:
                yield waiting
                number += 1
            waiting, until = _fit(frame), frame.time - start + lasting
        while waiting is not None and number / PICTURE_RATE < until - _SLACK:
            yield waiting
            number += 1


def _fit(frame: av.VideoFrame) -> Plane:
    """Scale a frame into 640 x 360 without distorting it, on black."""
    scale = min(WIDTH / frame.width, HEIGHT / frame.height)
    width = max(2, round(frame.width * scale) // 2 * 2)
    height = max(2, round(frame.height * scale) // 2 * 2)
    small = frame.reformat(width=width, height=height, format="yuv420p").to_ndarray()
    picture = black(WIDTH, HEIGHT).to_ndarray().astype(np.uint8)
    left, top = (WIDTH - width) // 4 * 2, (HEIGHT - height) // 4 * 2
    picture[top : top + height, left : left + width] = small[:height]
    chroma = picture[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    rows, columns = slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2)
    chroma[:, rows, columns] = small[height:].reshape(2, height // 2, width // 2)
    return picture


def _read_sound(path: Path) -> Samples:
    with _open(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path.name} has no audio stream")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        parts: list[Samples] = []
        length = 0
        for frame in container.decode(container.streams.audio[0]):
            for part in resampler.resample(frame):
                samples = part.to_ndarray().reshape(-1).astype(np.int16, copy=False)
                parts.append(samples)
                length += len(samples)
            if length >= _MAX_SOUND:
                break
    if not length:
        raise MediaError(f"{path.name} holds no sound")
    return np.concatenate(parts)[:_MAX_SOUND]


@contextmanager
def _open(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a file; what FFmpeg cannot read of it becomes a `MediaError`."""
    try:
        with av.open(str(path)) as container:
            yield container
    except (OSError, av.FFmpegError) as error:
        raise MediaError(
            f"{path} cannot be read as a media file: {error.strerror or error}",
            hint="any file that FFmpeg can decode will do, for example .mp4, .webm or .wav",
        ) from error


def _sound_blocks(sound: Samples, start: float) -> Iterator[av.AudioFrame]:
    for offset in range(0, len(sound), SAMPLES_PER_FRAME):
        block = np.ascontiguousarray(sound[offset : offset + SAMPLES_PER_FRAME]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="stereo")
        frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        frame.pts = round(start * SAMPLE_RATE) + offset
        yield frame
