"""The report says what was measured, in the words and fields that are promised."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from e2ecall.cli.demo import report, sheet
from e2ecall.cli.demo.evidence import Evidence, SRTPKey
from e2ecall.cli.demo.picture import compare_pictures
from e2ecall.cli.demo.quality import AudioQuality, VideoQuality
from e2ecall.cli.demo.recording import RecordingSink, mono, recorded_pictures, recorded_sound
from e2ecall.errors import MediaError
from e2ecall.media.files import write_png
from e2ecall.media.generated import moving_picture, speech_like_sound
from e2ecall.media.scene import Scene
from e2ecall.protocol.messages import Stream

GOOD = report.Findings(
    caller_sas="Dog Cat Lion Horse",
    callee_sas="Dog Cat Lion Horse",
    setup_ms=212.3,
    ring_ms=41.0,
    text_arrived=True,
    video=VideoQuality(238, 41.5, 36.0, 12.0, 20.0, 0, 0),
    audio=AudioQuality(7.9, 0.98, 0.3),
    relay_packets=2_000,
    relay_bytes=1_000_000,
    plaintext_hits=0,
    control_hits=5_000,
)


def test_the_json_file_has_exactly_the_promised_fields(tmp_path):
    """`report.json` holds the fields that users and checks rely on, and no others."""
    path = tmp_path / "report.json"
    report.write_json(GOOD, path)
    content = json.loads(path.read_text("utf-8"))
    assert {key: sorted(value) if isinstance(value, dict) else None for key, value in
            content.items() if key != "versions"} == {
        "ok": None,
        "sas": ["callee", "caller"],
        "setup_ms": None,
        "ring_ms": None,
        "video": ["frames", "latency_ms_p50", "psnr_mean_db"],
        "audio": ["control_similarity", "seconds", "similarity"],
        "relay": ["bytes", "control_hits", "packets", "plaintext_hits"],
    }  # fmt: skip
    assert content["ok"] is True
    assert {"python", "aiortc", "cryptography"} <= set(content["versions"])


@pytest.mark.parametrize(
    "change",
    [
        {"callee_sas": "Dog Cat Lion Unicorn"},
        {"caller_sas": "", "callee_sas": ""},
        {"setup_ms": 1_500.0},
        {"text_arrived": False},
        {"video": dataclasses.replace(GOOD.video, frames=59)},
        {"video": dataclasses.replace(GOOD.video, psnr_mean_db=29.9)},
        {"video": dataclasses.replace(GOOD.video, gaps=1)},
        {"video": dataclasses.replace(GOOD.video, unreadable=1)},
        {"audio": dataclasses.replace(GOOD.audio, similarity=0.89)},
        {"audio": dataclasses.replace(GOOD.audio, control_similarity=0.5)},
        {"relay_packets": 0},
        {"plaintext_hits": 1},
        {"control_hits": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_broken_promise_alone_is_not_ok(change):
    """One bound missed makes the whole demonstration fail, and its line says NO."""
    bad = dataclasses.replace(GOOD, **change)
    assert report.is_ok(GOOD)
    assert not report.is_ok(bad)
    assert sum(not row.kept for row in report.rows(bad)) == 1


def test_the_table_names_the_verdict_and_the_files(tmp_path):
    """A person reads what was measured, whether it is good, and where to look."""
    for findings, verdict in ((GOOD, "unreadable to its relay"), (
        dataclasses.replace(GOOD, plaintext_hits=3), "Not every promise was kept")):  # fmt: skip
        text = io.StringIO()
        report.show(Console(file=text, width=110), findings, tmp_path)
        assert verdict in text.getvalue()
        assert "contact-sheet.png" in text.getvalue()
        assert "41.5 dB" in text.getvalue()


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.mark.anyio
async def test_a_recording_is_compared_with_what_was_sent(folder):
    """Perfect pictures have perfect PSNR; one that is missing is a gap; delays are measured."""
    sink = RecordingSink(folder)
    source = moving_picture(7)
    for number in range(20):
        frame = source.read()
        if number != 11:
            await sink.write(Stream.CAMERA, frame, 0)
    await sink.close()
    received = [10.0 + n / 30 for n in range(19)]
    sent = [10.0 - 0.05 + n / 30 for n in range(20)]
    quality, shots = compare_pictures(Scene(7), sent, folder, received)
    assert (quality.frames, quality.gaps, quality.unreadable) == (19, 1, 0)
    assert quality.psnr_min_db > 20  # the caption differs, nothing else
    assert quality.latency_ms_p50 == pytest.approx(50, abs=40)
    assert len(shots) == sheet.CELLS
    assert [shots[0].number, shots[-1].number] == [0, 19]


@pytest.mark.anyio
async def test_a_recording_keeps_pictures_and_sound_as_they_were(folder):
    """What the sink wrote is read back bit by bit, stereo mixed to mono."""
    sink = RecordingSink(folder)
    picture, sound = moving_picture(7).read(), speech_like_sound(7).read()
    stereo = np.repeat(sound.to_ndarray().reshape(-1, 1), 2, axis=1)
    await sink.write(Stream.CAMERA, picture, 0)
    frame = type(sound).from_ndarray(stereo.reshape(1, -1).copy(), format="s16", layout="stereo")
    await sink.write(Stream.MICROPHONE, frame, 0)
    await sink.close()
    assert [p.tobytes() for p in recorded_pictures(folder)] == [picture.to_ndarray().tobytes()]
    assert np.array_equal(recorded_sound(folder), stereo)
    assert np.array_equal(mono(recorded_sound(folder)), sound.to_ndarray().reshape(-1))
    assert sink.sound_at is not None


@pytest.fixture(params=["asyncio"])
def anyio_backend(request):
    """Sinks run on the media engine's loop, which is asyncio's."""
    return request.param


def test_nothing_received_is_an_error(folder):
    """An empty recording has no quality."""
    (folder / "pictures.yuv").touch()
    with pytest.raises(MediaError, match="no picture arrived"):
        compare_pictures(Scene(1), [], folder, [])


@pytest.mark.parametrize("count", [0, 1, 16, 17, 240])
def test_a_contact_sheet_is_drawn_for_any_number_of_pictures(count, tmp_path):
    """At most sixteen pictures, first and last among them, on a sheet of the right size."""
    places = sheet.chosen(count)
    assert len(places) == min(count, sheet.CELLS)
    assert places == sorted(set(places))
    if count:
        assert (places[0], places[-1]) == (0, count - 1)
    scene = Scene(1)
    shots = [sheet.Shot(scene.frame(n), n or None, n / 30, 40.0) for n in places]
    image = sheet.draw("title", "subtitle", shots)
    assert image.shape[1] == 1_380
    write_png(tmp_path / "sheet.png", image)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_evidence_is_read_as_it_was_written(tmp_path, call):
    """Keys, descriptions and frames survive the file."""
    evidence = call.caller.evidence()
    evidence.sent_pictures = [1.5, 2.25]
    evidence.save(tmp_path / "evidence.json")
    assert Evidence.load(tmp_path / "evidence.json") == evidence
    assert isinstance(Evidence.load(tmp_path / "evidence.json").sending_keys[0], SRTPKey)
