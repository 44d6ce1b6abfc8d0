"""Sound between a device and a call whose clocks differ; the test is both clocks."""

import numpy as np
import pytest

from e2ecall.media.elastic import ElasticBuffer

BLOCK = 960
RATE = 48_000
LOW, HIGH, MOST = BLOCK // 4, BLOCK * 3 // 2, BLOCK * 4


def tone(start, count):
    return (10_000 * np.sin(np.arange(start, start + count) * 2 * np.pi * 440 / RATE)).astype(
        np.int16
    )


def play(off, seconds):
    """Let a device give blocks by a clock that is ``off`` by so much; take one every 20 ms.

    Who takes waits for a block that is late, up to 30 ms. Returns what was taken, the buffer, and
    for how long was waited at most.
    """
    buffer, taken = ElasticBuffer(1, low=LOW, high=HIGH, most=MOST), []
    given, waited = 0, 0.0
    for number in range(int(seconds * 50)):
        now = number * 0.02
        while True:
            while given * 0.02 / (1 + off) <= now:
                buffer.put(tone(given * BLOCK, BLOCK).reshape(-1, 1))
                given += 1
            if (block := buffer.take(BLOCK)) is not None:
                break
            now = given * 0.02 / (1 + off)
        waited = max(waited, now - number * 0.02)
        taken.append(block[:, 0])
    return taken, buffer, waited


@pytest.mark.parametrize("off", [-200e-6, 200e-6])
def test_a_clock_that_is_off_costs_no_block(off):
    """Of four minutes from a device that is 200 millionths fast or slow nothing is dropped, no
    block is waited for longer than the reserve is, and the tone has no step in it.
    """
    taken, buffer, waited = play(off, 240)
    assert buffer.dropped == 0
    assert waited <= LOW / RATE
    assert len(buffer) < HIGH + BLOCK
    steepest = 10_000 * 2 * np.pi * 440 / RATE
    assert np.abs(np.diff(np.concatenate(taken).astype(int))).max() < steepest * 1.01 + 2


def test_equal_clocks_change_nothing():
    """Where as much comes as is taken, samples stay as they were once there is a reserve."""
    taken, buffer, _ = play(0.0, 20)
    assert LOW <= len(buffer) < LOW + 100
    sound = np.concatenate(taken[-500:])
    assert np.array_equal(sound, tone(20 * RATE - len(buffer) - len(sound), len(sound)))


def test_what_is_too_much_is_used_up_slowly():
    """A reserve that was never needed shrinks by a sample in a block; both channels alike."""
    buffer = ElasticBuffer(2, low=LOW, high=HIGH, most=20 * BLOCK)
    sound = np.repeat(tone(0, 10 * BLOCK).reshape(-1, 1), 2, axis=1)
    buffer.put(sound)
    lengths = []
    for _ in range(200):
        buffer.put(sound[:BLOCK])
        block = buffer.take(BLOCK)
        assert block.shape == (BLOCK, 2)
        assert np.array_equal(block[:, 0], block[:, 1])
        lengths.append(len(buffer))
    assert lengths[49] == 10 * BLOCK
    assert lengths[199] == 10 * BLOCK - 150


def test_the_oldest_makes_room():
    """Beyond its bound a buffer drops what came first, and counts it."""
    buffer = ElasticBuffer(1, low=LOW, high=HIGH, most=MOST)
    buffer.put(tone(0, MOST + 100).reshape(-1, 1))
    assert (len(buffer), buffer.dropped) == (MOST, 100)
    assert np.array_equal(buffer.take(BLOCK)[:, 0], tone(100, BLOCK))
