"""Everything that ``make vectors`` checks, as pairs of a name and a function that raises.

The files of a folder are compared byte for byte with what the generator makes, in a process of
its own that loads nothing of the implementation; then each vector in them is run.
"""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.vectors import calls, frames, keys, sessions, stores
from tests.vectors.harness import REPOSITORY, VECTORS, MismatchError, VectorFile

Check = tuple[str, Callable[[], None]]

OPERATIONS = (calls, frames, keys, sessions, stores)
"""The modules whose import registers the operations."""


@functools.cache
def generated() -> dict[str, bytes]:
    """Return what the generator makes, by file name."""
    command = [sys.executable, "-m", "spec.vectors.generate", "--print"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return {name: text.encode() for name, text in json.loads(done.stdout).items()}


@functools.cache
def requirements() -> frozenset[str]:
    """Return the identifiers of all requirements in the chapters of the specification."""
    chapters = (path.read_text(encoding="utf-8") for path in (VECTORS.parent).glob("*.md"))
    return frozenset(re.findall(r"\*\*([A-Z0-9]+-\d\d)\*\*", "".join(chapters)))


def checks(folder: Path) -> Iterator[Check]:
    """Yield all checks on a folder of vector files."""
    names = {path.name for path in folder.glob("*.json")} | set(generated())
    for name in sorted(names):
        yield f"{name}: bytes", functools.partial(_compare, folder / name)
        try:
            file = VectorFile.read(folder / name)
        except (OSError, ValueError, LookupError, TypeError) as error:
            yield f"{name}: form", functools.partial(_raise, error)
            continue
        yield from vector_checks(file)


def vector_checks(file: VectorFile) -> Iterator[Check]:
    """Yield the checks on one file's vectors."""
    for vector in file.vectors:
        yield vector.id, vector.run


def run(all_checks: Iterable[Check], report: Callable[[str], None]) -> tuple[int, int]:
    """Run checks and report each failure; return the numbers of passed and failed ones."""
    passed = failed = 0
    for name, check in all_checks:
        try:
            check()
        except Exception as error:  # noqa: BLE001 - a broken vector may raise anything
            failed += 1
            report(f"FAILED {name}: {type(error).__name__}: {error}"[:400])
        else:
            passed += 1
    return passed, failed


def _compare(path: Path) -> None:
    expected, found = generated().get(path.name), path.read_bytes()
    if expected is None:
        raise MismatchError("the generator makes no such file")
    if found != expected:
        at = next(
            (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
            min(len(found), len(expected)),
        )
        raise MismatchError(f"byte {at} is not what the generator makes")


def _raise(error: Exception) -> None:
    raise error
