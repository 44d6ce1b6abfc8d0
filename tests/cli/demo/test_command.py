"""`e2ecall demo` as a whole: three real processes, and what a person is told when it cannot run."""

import json
import os
import signal
import subprocess
import sys

import av
import grimp
import pytest

from e2ecall.cli.demo import examine, stage
from e2ecall.cli.demo.command import demo
from e2ecall.cli.demo.process import ChildError
from e2ecall.errors import LocalProtocolError, MediaError

RUN = """
import signal
from e2ecall.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent may have it ignored
main()
"""


@pytest.mark.timeout(180)
def test_a_demonstration_keeps_every_promise(tmp_path, capsys):
    """A real call of three seconds is whole, alike and unreadable, and the control is readable."""
    demo(seconds=3.0, output=tmp_path / "out", as_json=True)
    printed = capsys.readouterr()
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert json.loads(printed.out) == report
    assert report["ok"] is True
    assert report["sas"]["caller"] == report["sas"]["callee"] != ""
    assert report["video"]["frames"] >= 60
    assert report["video"]["psnr_mean_db"] >= 30
    assert report["audio"]["similarity"] >= 0.9
    assert report["audio"]["control_similarity"] < 0.5
    assert report["relay"]["plaintext_hits"] == 0 < report["relay"]["control_hits"]
    assert "spoken code" in printed.err
    with av.open(str(tmp_path / "out" / "callee.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == report["video"]["frames"]
    with av.open(str(tmp_path / "out" / "contact-sheet.png")) as sheet:
        assert next(sheet.decode(video=0)).width == 1_380
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "callee.mp4", "contact-sheet.png", "report.json"]  # fmt: skip


@pytest.mark.parametrize("seconds", [0, 2.9, 121, float("nan")])
def test_a_length_that_proves_nothing_is_refused(seconds, tmp_path):
    """Too short and too long calls are refused before a file or process exists."""
    with pytest.raises(LocalProtocolError, match="3 to 120 seconds"):
        demo(seconds=seconds, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_sent_is_refused(tmp_path, monkeypatch):
    """A file that is no media is named, and no process is started for it."""
    monkeypatch.setattr(examine, "play", None)
    text = tmp_path / "notes.txt"
    text.write_text("no film")
    for option in ("audio", "video"):
        with pytest.raises(MediaError, match=r"notes\.txt cannot be read"):
            demo(output=tmp_path / "out", **{option: text})


def test_a_failed_process_leaves_its_log_and_no_report(tmp_path, monkeypatch):
    """When the callee cannot start, the person learns which process failed and why."""
    monkeypatch.setattr(stage, "CALLEE", "No Name")
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("of another run")
    with pytest.raises(ChildError, match=r"callee: .*username"):
        demo(seconds=3.0, output=out)
    assert not (out / "report.json").exists()


def test_nothing_of_the_product_can_take_sframe_out_or_notes():
    """Only the demo's own processes import the instrument and the control."""
    graph = grimp.build_graph("e2ecall", "relay", cache_dir=None)
    importers = graph.find_modules_that_directly_import
    assert importers("e2ecall.media.instrument") == {"e2ecall.cli.demo.role"}
    assert importers("e2ecall.cli.demo.control") == set()
    assert importers("e2ecall.cli.demo.role") == {
        "e2ecall.cli.demo.caller",
        "e2ecall.cli.demo.callee",
    }
    clients = {"e2ecall.cli.demo.caller", "e2ecall.cli.demo.callee"}
    for client in clients:
        assert importers(client) == {"e2ecall.cli.demo.control"}


@pytest.mark.timeout(120)
def test_an_interrupted_demonstration_leaves_nothing(tmp_path):
    """After Ctrl-C no process is left, nor a folder with keys; the exit code says interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "demo", "--output", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "is connected" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.stderr.close()
        process.wait()
    assert "Traceback" not in rest
    assert [path.name for path in tmp_path.iterdir() if "e2ecall-demo" in path.name] == []
