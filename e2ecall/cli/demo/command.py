"""``e2ecall demo``: a real call between three processes on this machine, examined afterwards.

The command line and its exit code; what is played and examined is `examine`.
"""

import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from e2ecall.errors import LocalProtocolError

MIN_SECONDS: Final = 3.0
"""Shorter calls cannot show 60 pictures and enough sound to compare."""
MAX_SECONDS: Final = 120.0
"""A recording takes 10 MB a second on disk while it is examined."""

RESULTS: Final = ("report.json", "callee.mp4", "contact-sheet.png")


def demo(
    *,
    seconds: float = 8.0,
    audio: Path | None = None,
    video: Path | None = None,
    output: Path = Path("e2ecall-demo"),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Place a real call through a blind relay on this machine, and check what came of it.

    Exits with 0 if every promise was kept, with 1 if not.

    Parameters
    ----------
    seconds:
        Length of the call, 3 to 120.
    audio:
        A sound file to send instead of the generated voice.
    video:
        A film to send instead of the generated picture.
    output:
        Folder for report.json, callee.mp4 and contact-sheet.png.
    as_json:
        Print the report as JSON instead of a table.
    """
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise LocalProtocolError(
            f"the call lasts {MIN_SECONDS:.0f} to {MAX_SECONDS:.0f} seconds, not {seconds:g}"
        )
    # The media library takes half a second to load: only this command pays for it.
    from e2ecall.cli.demo import report
    from e2ecall.cli.demo.examine import perform
    from e2ecall.cli.demo.progress import Progress
    from e2ecall.cli.demo.stage import Wish

    output.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        (output / name).unlink(missing_ok=True)
    progress = Progress(Console(stderr=True, highlight=False))
    findings = perform(Wish(seconds, audio, video), output, progress)
    report.write_json(findings, output / "report.json")
    if as_json:
        sys.stdout.write((output / "report.json").read_text("utf-8"))
    else:
        report.show(Console(), findings, output)
    if not report.is_ok(findings):
        sys.exit(1)
