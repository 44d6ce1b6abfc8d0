"""The pictures under audits/reports can be taken again."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KEPT = REPOSITORY / "audits" / "reports" / "softphone"
SHOWN = {
    "waiting": ("Waiting&#160;for&#160;calls", "Are&#160;you&#160;there?"),
    "incoming": ("Somebody&#160;calls", "alice@", "not&#160;verified"),
    "compare": ("Is&#160;it&#160;the&#160;same&#160;at&#160;both&#160;ends?",),
    "talking": (
        "nobody&#160;is&#160;in&#160;between",
        "microphone&#160;off",
        "Quality:",
        "Screen",
    ),
    "call-waiting": ("carol@", "You&#160;are&#160;talking&#160;to&#160;alice@"),
    "after": ("No&#160;call", "The&#160;call&#160;has&#160;ended"),
}
"""What has to be in a picture, whatever the code of its call and the port of its relay."""


def check(folder):
    assert {path.stem for path in folder.glob("*.svg")} == set(SHOWN)
    for name, words in SHOWN.items():
        picture = (folder / f"{name}.svg").read_text("utf-8")
        assert [word for word in words if word not in picture] == []
        assert "font-face" not in picture


def test_screenshots(tmp_path):
    """The pictures that are kept, and those that the command takes now, show what they should."""
    check(KEPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "audits.screenshots", tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    check(tmp_path)
