"""Meters that listen along, and a sink that is several."""

import asyncio
import time

import numpy as np
import pytest

from e2ecall.media.levels import FLOOR, Level, MeteredAudio, MeteredSink
from e2ecall.media.sinks import CollectingSink, NullSink, TeeSink
from e2ecall.media.sources import GeneratedAudio, audio_frame, silence
from e2ecall.protocol.messages import Stream


def tone(amplitude):
    return (amplitude * np.sin(np.arange(960) * 2 * np.pi / 48)).astype(np.int16)


class Keeping(CollectingSink):
    keeps = True


@pytest.mark.parametrize(("amplitude", "decibels"), [(32_767, -3.0), (327, -43.0), (0, FLOOR)])
def test_level(amplitude, decibels):
    """A level is that of the frame in decibels below full scale, with a floor."""
    source = MeteredAudio(GeneratedAudio(lambda _: tone(amplitude), frames=1))
    assert source.level.decibels == FLOOR
    assert source.read() is not None
    assert source.level.decibels == pytest.approx(decibels, abs=0.2)
    assert source.read() is None
    source.close()


def test_old_level(monkeypatch):
    """What is not heard any more is silence."""
    level, now = Level(), time.monotonic()
    level.measure(audio_frame(tone(10_000)))
    assert level.decibels > FLOOR
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    assert level.decibels == FLOOR


def test_sinks_in_a_row():
    """All sinks behind a meter and a tee get every frame and its end, also beside a failing one."""
    first, second = Keeping(), CollectingSink()

    class Failing(NullSink):
        async def close(self):
            raise OSError

    metered = MeteredSink(TeeSink(first, second, Failing()))
    assert metered.keeps
    assert not MeteredSink(None).keeps
    assert not TeeSink(NullSink(), second).keeps

    async def play():
        await MeteredSink(None).write(Stream.MICROPHONE, silence(), 0)
        await metered.write(Stream.MICROPHONE, audio_frame(tone(10_000)), 7)
        with pytest.raises(OSError):
            await metered.close()

    asyncio.run(play())
    assert metered.level.decibels > FLOOR
    for sink in (first, second):
        assert [frame.rtp_time for frame in sink.frames] == [7]
        assert sink.closed
