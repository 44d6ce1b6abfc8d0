"""The demonstration's findings: one value, its verdict, its JSON file and its table.

It measures nothing; the bounds of the verdict are the project's promises and stand here alone.
"""

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from e2ecall.cli.demo.quality import AudioQuality, VideoQuality

MIN_FRAMES: Final = 60
MIN_PSNR_DB: Final = 30.0
MIN_SIMILARITY: Final = 0.9
MAX_CONTROL_SIMILARITY: Final = 0.5
MAX_SETUP_MS: Final = 1_500.0

_LIBRARIES: Final = (
    "e2ecall",
    "aiortc",
    "aioice",
    "av",
    "cryptography",
    "pynacl",
    "pylibsrtp",
    "msgspec",
    "trio",
    "websockets",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What one demonstration measured. Times are milliseconds."""

    caller_sas: str
    callee_sas: str
    setup_ms: float
    ring_ms: float
    text_arrived: bool
    video: VideoQuality
    audio: AudioQuality
    relay_packets: int
    relay_bytes: int
    plaintext_hits: int
    control_hits: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what, how much, what is promised, and whether that was kept."""

    what: str
    measured: str
    promised: str
    kept: bool


def rows(findings: Findings) -> list[Row]:
    """Return every promise beside what was measured."""
    video, audio = findings.video, findings.audio
    same = findings.caller_sas == findings.callee_sas != ""
    return [
        Row("spoken code", _symbols(findings.callee_sas), "the same on both sides", same),
        Row("ringing", f"{findings.ring_ms:.0f} ms after calling", "", kept=True),
        Row(
            "first picture",
            f"{findings.setup_ms:.0f} ms after accepting",
            f"under {MAX_SETUP_MS:.0f} ms",
            findings.setup_ms < MAX_SETUP_MS,
        ),
        Row(
            "pictures",
            f"{video.frames}",
            f"at least {MIN_FRAMES}",
            video.frames >= MIN_FRAMES,
        ),
        Row(
            "  missing",
            f"{video.gaps + video.unreadable}",
            "none",
            video.gaps + video.unreadable == 0,
        ),
        Row(
            "  likeness",
            f"{video.psnr_mean_db:.1f} dB, worst {video.psnr_min_db:.1f}",
            f"at least {MIN_PSNR_DB:.0f} dB",
            video.psnr_mean_db >= MIN_PSNR_DB,
        ),
        Row(
            "  latency",
            f"{video.latency_ms_p50:.0f} ms, 95% under {video.latency_ms_p95:.0f}",
            "",
            kept=True,
        ),
        Row("sound", f"{audio.seconds:.1f} s", "", kept=True),
        Row(
            "  likeness",
            f"{audio.similarity:.3f}",
            f"at least {MIN_SIMILARITY}",
            audio.similarity >= MIN_SIMILARITY,
        ),
        Row(
            "  ... to another sound",
            f"{audio.control_similarity:.3f}",
            f"under {MAX_CONTROL_SIMILARITY}",
            audio.control_similarity < MAX_CONTROL_SIMILARITY,
        ),
        Row("sealed text", _yes(findings.text_arrived), "arrives", findings.text_arrived),
        Row(
            "relay received",
            f"{findings.relay_packets:,} packets, {findings.relay_bytes / 1e6:.1f} MB",
            "some",
            findings.relay_packets > 0,
        ),
        Row(
            "  plaintext in it",
            f"{findings.plaintext_hits:,} hits",
            "none",
            findings.plaintext_hits == 0,
        ),
        Row(
            "  ... without SFrame",
            f"{findings.control_hits:,} hits",
            "some: the search sees",
            findings.control_hits > 0,
        ),
    ]


def is_ok(findings: Findings) -> bool:
    """Return whether every promise was kept."""
    return all(row.kept for row in rows(findings))


def as_json(findings: Findings) -> dict[str, Any]:
    """Return the content of ``report.json``."""
    video, audio = findings.video, findings.audio
    return {
        "ok": is_ok(findings),
        "sas": {"caller": findings.caller_sas, "callee": findings.callee_sas},
        "setup_ms": round(findings.setup_ms, 1),
        "ring_ms": round(findings.ring_ms, 1),
        "video": {
            "frames": video.frames,
            "psnr_mean_db": round(video.psnr_mean_db, 2),
            "latency_ms_p50": round(video.latency_ms_p50, 1),
        },
        "audio": {
            "seconds": round(audio.seconds, 2),
            "similarity": round(audio.similarity, 4),
            "control_similarity": round(audio.control_similarity, 4),
        },
        "relay": {
            "packets": findings.relay_packets,
            "bytes": findings.relay_bytes,
            "plaintext_hits": findings.plaintext_hits,
            "control_hits": findings.control_hits,
        },
        "versions": versions(),
    }


def write_json(findings: Findings, path: Path) -> None:
    """Write ``report.json``."""
    path.write_text(json.dumps(as_json(findings), indent=2, ensure_ascii=False) + "\n", "utf-8")


def show(console: Console, findings: Findings, output: Path) -> None:
    """Print the table that a person reads."""
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for title in ("", "", "measured", "promised"):
        table.add_column(title)
    for row in rows(findings):
        mark = Text("yes", "green") if row.kept else Text("NO", "bold red")
        table.add_row(
            mark if row.promised else "", row.what, row.measured, Text(row.promised, "dim")
        )
    console.print(Panel(Group(table, *_closing(findings, output)), title="e2ecall demo"))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that took part."""
    found = {"python": python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "unknown"
    return found


def _closing(findings: Findings, output: Path) -> list[RenderableType]:
    verdict = (
        Text("\nThe call was real, whole, and unreadable to its relay.", "bold green")
        if is_ok(findings)
        else Text("\nNot every promise was kept: see the lines marked NO.", "bold red")
    )
    files = "callee.mp4, contact-sheet.png, report.json"
    return [verdict, Text(f"See and hear it: {files} in {output}", "dim")]


def _symbols(sas: str) -> str:
    """Return the emoji of a spoken code alone: ``symbol name`` four times, two blanks between."""
    return "  ".join(part.partition(" ")[0] for part in sas.split("  ")) or "none"


def _yes(value: bool) -> str:
    return "arrived" if value else "did not arrive"
