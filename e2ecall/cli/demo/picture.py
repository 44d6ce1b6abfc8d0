"""What was sent and what became of it: one walk over the recording, picture by picture.

Regenerates each sent picture from the number that the received one carries and compares them.
Encoding of that number is `e2ecall.media.counter`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from e2ecall.cli.demo.quality import VideoQuality, count_gaps, psnr
from e2ecall.cli.demo.recording import recorded_pictures
from e2ecall.cli.demo.sheet import Shot, chosen
from e2ecall.errors import MediaError
from e2ecall.media import counter
from e2ecall.media.files import FilePictures, FileSounds
from e2ecall.media.generated import Pictures, Sounds
from e2ecall.media.scene import Scene
from e2ecall.media.voice import Voice


def pictures(file: Path | None, seed: int, caption: str) -> Pictures:
    """Return what to show: the user's file, or a generated landscape.

    Raises:
        MediaError: the file cannot be sent.
    """
    return Scene(seed, caption) if file is None else FilePictures(file)


def sounds(file: Path | None, seed: int) -> Sounds:
    """Return what to say: the user's file, or a generated voice.

    Raises:
        MediaError: the file cannot be sent.
    """
    return Voice(seed) if file is None else FileSounds(file)


def compare_pictures(
    sent: Pictures, sent_at: Sequence[float], folder: Path, received_at: Sequence[float]
) -> tuple[VideoQuality, list[Shot]]:
    """Compare a recording with what was sent; return the findings and pictures for the sheet.

    ``sent_at[n]`` is when picture n was taken by the sending engine, ``received_at[k]`` when the
    k-th recorded one arrived, by the same clock.

    Raises:
        MediaError: nothing that carries a number was received.
    """
    keep = set(chosen(len(received_at)))
    shots: list[Shot] = []
    numbers: list[int] = []
    likeness: list[float] = []
    delays: list[float] = []
    for place, (picture, arrival) in enumerate(
        zip(recorded_pictures(folder), received_at, strict=True)
    ):
        number = counter.read(picture[: counter.HEIGHT])
        decibels = 0.0
        if number is not None and number < len(sent_at):
            decibels = psnr(sent.frame(number)[: counter.HEIGHT], picture[: counter.HEIGHT])
            numbers.append(number)
            likeness.append(decibels)
            delays.append(arrival - sent_at[number])
        if place in keep:
            shots.append(Shot(picture, number, arrival - received_at[0], decibels))
    if not numbers:
        raise MediaError("no picture arrived that carries a number")
    median, late = (1000 * float(value) for value in np.percentile(delays, (50, 95)))
    quality = VideoQuality(
        frames=len(numbers),
        psnr_mean_db=float(np.mean(likeness)),
        psnr_min_db=min(likeness),
        latency_ms_p50=median,
        latency_ms_p95=late,
        gaps=count_gaps(numbers),
        unreadable=len(received_at) - len(numbers),
    )
    return quality, shots
