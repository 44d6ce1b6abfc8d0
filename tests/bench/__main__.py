"""Benchmarks: ``python -m tests.bench [--part NAME] [--only TEXT] [--short] [--check] ...``.

Each module in ``parts`` is a part, its name with dashes; it has ``run(report)``. Prints a table,
writes JSON, and exits with 0, unless ``--check`` is given and a budget is not met.
"""

import argparse
import importlib
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.harness import Report, Row

PARTS = {
    path.stem.replace("_", "-"): f"tests.bench.parts.{path.stem}"
    for path in sorted((Path(__file__).parent / "parts").glob("*.py"))
}
LONG = ("endurance", "network", "staying")
"""Parts that take minutes to half an hour, and run only when they are asked for."""

PACKAGES = (
    *("cryptography", "pynacl", "msgspec", "doubleratchet", "x3dh", "vodozemac"),
    *("aiortc", "av"),
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="all that are short, unless given"
    )
    parser.add_argument("--only", default="", help="tasks of a long part whose names have this")
    parser.add_argument("--short", action="store_true", help="fewer rounds, for a first look")
    parser.add_argument("--check", action="store_true", help="fail when a budget is not met")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 130)
    missed, parts = [], {}
    for name in options.part or [part for part in PARTS if part not in LONG]:
        report = Report(short=options.short, only=options.only)
        importlib.import_module(PARTS[name]).run(report)
        console.print(_table(name, report))
        for reason in report.skipped:
            console.print(f"skipped: {reason}", highlight=False)
        for note in report.notes:
            console.print(f"note: {note}", highlight=False)
        missed += report.missed
        parts[name] = {
            "rows": [asdict(row) for row in report.rows],
            "skipped": report.skipped,
            "notes": report.notes,
        }
    result = {"machine": _machine(), "short": options.short, "parts": parts}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"written to {options.output}")
    for row in missed:
        console.print(f"over budget: {row.task}, {row.budget}", highlight=False)
    return 1 if options.check and missed else 0


def _table(name: str, report: Report) -> Table:
    title = f"{name}{' (short)' if report.short else ''}: median (quartiles)"
    table = Table(title=title, title_justify="left")
    for column in ("task", "contestant"):
        table.add_column(column)
    for column in ("value", "ratio", "budget"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("met")
    before = ""
    for row in report.rows:
        if before not in ("", row.task):
            table.add_section()
        table.add_row(*_cells(row, first=row.task != before))
        before = row.task
    return table


def _cells(row: Row, *, first: bool) -> tuple[str, ...]:
    ratio = "1" if row.contestant == row.reference else str(row.ratio or "")
    met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[row.met]
    budget = "" if row.budget is None else str(row.budget)
    return row.task if first else "", row.contestant, f"{row.value} {row.unit}", ratio, budget, met


def _machine() -> dict[str, object]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
