"""Flashes with beeps: when what belongs together is seen and heard, in calls over real sockets."""

import statistics
import time

import anyio
import numpy as np
import pytest
from av import AudioFrame

from e2ecall.media.events import MediaConnected
from e2ecall.media.sources import GeneratedAudio, GeneratedVideo
from tests.media import peers
from tests.media.lossy import SOUND, LossyPath
from tests.media.test_loss import CAMERA, MICROPHONE, TimingSink, delays, least

pytestmark = pytest.mark.anyio

FLASHES = 6
PERIOD = 1.0


def lit():
    """Say whether there is light and sound now: for half of each period."""
    return time.monotonic() % PERIOD < PERIOD / 2


def beep(number):
    return peers.tone(number) if lit() else np.zeros(960, np.int16)


def flash(number):
    return np.full((270, 320), 220 if lit() else 30, np.uint8)


class Onsets:
    """A sink that notes when light and sound came on."""

    def __init__(self):
        self.seen = {MICROPHONE: [], CAMERA: []}
        self._on = {MICROPHONE: True, CAMERA: True}

    async def write(self, stream, frame, rtp_time):
        values = frame.to_ndarray().astype(int)
        level, border = (
            (np.abs(values).max(), 3000)
            if isinstance(frame, AudioFrame)
            else (
                values[:180].mean(),
                125,
            )
        )
        if level > border and not self._on[stream]:
            self.seen[stream].append(time.monotonic())
        self._on[stream] = level > border

    async def close(self):
        pass


async def test_a_flash_is_seen_when_its_beep_is_heard(turn):
    """MEDIA-60: what was seen and heard together at one end is so at the other."""
    sources = {MICROPHONE: GeneratedAudio(beep), CAMERA: GeneratedVideo(flash)}
    sink = Onsets()
    async with peers.call(turn) as pair:
        pair.callee.sink = sink
        await peers.start(pair.callee, pair.caller, controlling=False)
        await peers.start(pair.caller, pair.callee, controlling=True, sources=sources)
        with anyio.fail_after(60):
            while min(map(len, sink.seen.values())) < FLASHES:  # noqa: ASYNC110 - another thread
                await anyio.sleep(0.05)
    # The next beep is a second away: which belong together is not in question.
    apart = [
        min((heard - seen for heard in sink.seen[MICROPHONE]), key=abs)
        for seen in sink.seen[CAMERA][:FLASHES]
    ]
    assert abs(statistics.median(apart)) < 0.3


async def test_pictures_wait_for_sound_that_comes_late(turn):
    """MEDIA-60: where sound takes 200 ms longer, pictures come to be held by 100 ms and more."""
    path, sink = LossyPath(turn.uri), TimingSink()
    path.hold_up(SOUND, 0.2)
    try:
        async with peers.call(turn, callee_uri=path.uri) as pair:
            pair.callee.sink = sink
            await pair.start()
            await pair.callee.until(MediaConnected)
            await sink.until(CAMERA, 30)
            with anyio.fail_after(60):  # of the reports each takes up to 1.5 s
                while least(delays(path, sink, CAMERA)[-30:]) < 0.1:  # noqa: ASYNC110 - a thread's
                    await anyio.sleep(0.1)
    finally:
        path.close()
