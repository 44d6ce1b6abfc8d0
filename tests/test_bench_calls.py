"""What the benchmark of calls makes of what was seen and heard; nothing here is measured."""

import sys

import anyio
import numpy as np
import pytest

from tests.bench.calls import material as making
from tests.bench.calls.judge import OLD, RESERVE, judge
from tests.bench.calls.rows import NETWORKS
from tests.bench.calls.stage import CallError, child, place_call
from tests.bench.calls.versus import METRICS, standing
from tests.bench.calls.witness import Seen, Sent
from tests.bench.media.stun import Credential

COUNT = 90
"""Pictures of three seconds."""
START = 1000.0
WAY = 0.1


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Return what is said and shown, drawn once."""
    return making.make(tmp_path_factory.mktemp("material"))


@pytest.fixture
def sent():
    """Return the notes of a caller who kept time."""
    return Sent(
        [START + n / 30 for n in range(COUNT)], [START + n / 50 for n in range(COUNT * 5 // 3)]
    )


def seen_of(
    material, sent, *, lost_sound=(), lost_pictures=(), late=lambda n: 0.0, stuck=lambda n: 0.0
):
    """Return what a callee has seen after 100 ms on the way, whose first second was missed."""
    seen = Seen()
    numbers = [n for n in range(30, COUNT) if n not in lost_pictures]
    for place, n in enumerate(numbers):
        seen.pictures.append((sent.pictures[n] + WAY + stuck(n), (n - 30) / 30))
        if place % 3 == 0 or stuck(n + 1):
            seen.kept[place] = material.picture(n)[:360]
    for n in range(50, len(sent.sounds)):
        if n not in lost_sound:
            at = sent.sounds[n] + WAY + late(n)
            seen.sounds.append((at, (n - 50) / 50, material.samples(n)))
    return seen


def judged(material, sent, **what):
    seen = seen_of(material, sent, **what)
    return judge(material, sent, seen, START + 1 + WAY, START + COUNT / 30 + WAY)


def test_a_perfect_call(material, sent):
    """Nothing is missing; the ear is 20 ms behind the way, the eye is not."""
    figures = judged(material, sent)
    assert figures.psnr > 70
    assert figures.frames_a_second == pytest.approx(30, abs=1)
    assert figures.freeze == pytest.approx(1 / 30, abs=0.01)
    assert figures.gaps < 1
    assert figures.mouth_to_ear == pytest.approx(120, abs=1)
    assert figures.lip_sync == pytest.approx(-20, abs=1)


def test_what_is_missing_is_counted(material, sent):
    """Five pictures are a freeze of six, and five frames of sound a gap of 100 ms."""
    figures = judged(material, sent, lost_sound=range(80, 85), lost_pictures=range(60, 65))
    assert figures.freeze == pytest.approx(6 / 30, abs=0.01)
    assert figures.gaps == pytest.approx(100 * 0.1 / 2, abs=1)


def test_what_was_seen_too_late_was_not_seen(material, sent):
    """Fifteen pictures that come together stood for as long as the reserve did not cover; it
    covers what is late by 100 ms.
    """
    figures = judged(material, sent, stuck=lambda n: max(0, 75 - n) / 30 if n >= 60 else 0)
    assert figures.freeze == pytest.approx(16 / 30, abs=0.01)
    assert figures.psnr_late > 70
    assert figures.psnr < figures.psnr_late - 5
    figures = judged(material, sent, stuck=lambda n: max(0, 62 - n) / 30 if n >= 60 else 0)
    assert figures.psnr > 70


def test_pictures_of_before_are_none_of_the_call(material, sent):
    """What is shown when it is older than a second does not count as a picture; and what comes
    behind a later one, as if after 2^32 ticks, is found in its place and spoils no other.
    """
    lost, again = range(40, 56), 70
    without = judged(material, sent, lost_pictures=lost)
    seen = seen_of(material, sent, lost_pictures=lost)
    place = seen.pictures.index((sent.pictures[again] + WAY, (again - 30) / 30)) + 1
    burst = [
        (sent.pictures[again] + WAY + n / 10_000, (n - 30) / 30 + (1 << 32) / 90_000) for n in lost
    ]
    kept = {number + len(lost) * (number >= place): luma for number, luma in seen.kept.items()}
    seen.pictures[place:place] = burst
    seen.kept = kept | {place + at: material.picture(n)[:360] for at, n in enumerate(lost)}
    figures = judge(material, sent, seen, START + 1 + WAY, START + COUNT / 30 + WAY)
    young = sum(at - sent.pictures[n] <= OLD for (at, _), n in zip(burst, lost, strict=True))
    assert 0 < young < len(lost)
    assert figures.frames_a_second == pytest.approx(without.frames_a_second + young / 2)
    assert without.psnr - 6 < figures.psnr < without.psnr
    assert figures.psnr_late > without.psnr_late


def test_the_ear_keeps_what_it_needed_once_and_not_more(material, sent):
    """After sound that was late by 60 ms all is played 60 ms later; by 300 ms, 100."""
    figures = judged(material, sent, late=lambda n: 0.06 if n == 60 else 0.0)
    assert figures.mouth_to_ear == pytest.approx(180, abs=1)
    figures = judged(material, sent, late=lambda n: max(0.0, 0.3 - 0.02 * (n - 60)) * (n >= 60))
    assert figures.mouth_to_ear <= 120 + 1000 * RESERVE + 1
    assert figures.gaps > 100 * 0.15 / 2


def test_a_call_in_which_nothing_came(material, sent):
    """Who saw and heard nothing has no picture, one freeze and one gap as long as the call."""
    figures = judge(material, sent, Seen(), START, START + 3)
    assert (figures.psnr, figures.frames_a_second, figures.freeze) == (0, 0, 3)
    assert (figures.gaps, figures.mouth_to_ear) == (100, 3000)


def test_another_sound_is_not_taken_for_it(material, sent):
    """Who heard something else has no delay: it is an error."""
    seen = seen_of(material, sent)
    draw = np.random.default_rng(1)
    seen.sounds = [
        (at, clock, draw.normal(0, 5000, 960).astype(np.int16)) for at, clock, _ in seen.sounds
    ]
    with pytest.raises(ValueError, match="not what was said"):
        judge(material, sent, seen, START, START + COUNT / 30)


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ([1, 2, 3], [6, 7, 8], 1),
        ([6, 7, 8], [1, 2, 3], -1),
        ([1, 2, 6], [6, 7, 8], 0),
        ([5.8, 5.8, 5.8], [6, 6, 6], 0),
    ],
)
def test_better_and_worse_are_beyond_the_spread(ours, theirs, wanted):
    """Every run has to be beyond every other, and by more than anybody notices."""
    gaps = next(metric for metric in METRICS if metric.field == "gaps")
    assert standing(ours, theirs, gaps, gaps.slack) == wanted
    pictures = next(metric for metric in METRICS if metric.field == "psnr")
    assert standing(ours, theirs, pictures, pictures.slack) == -wanted
    assert standing([5.8], [6], gaps, 0.0) == 1


@pytest.mark.parametrize(
    ("does", "said"),
    [("pass", "the caller died"), ("print('\"failed: so\"')", "caller failed")],
)
def test_an_end_that_gives_up(does, said):
    """An end that dies, or fails, in the place of an answer is an error that says so."""

    async def read():
        async with child("caller", [sys.executable, "-c", does]) as caller:
            await caller.read()

    with pytest.raises(CallError, match=said):
        anyio.run(read)


@pytest.mark.thorough
@pytest.mark.timeout(180)
def test_a_call_whose_ends_die(tmp_path):
    """Where both ends die before either has gathered, the call is an error that says so."""
    nobody = Credential("nobody", "nothing")
    place = (NETWORKS[0], tmp_path, "turn:127.0.0.1:9?transport=udp", (nobody, nobody))
    with pytest.raises(CallError, match="the caller died"):
        anyio.run(place_call, "e2ecall", *place)
