"""The specification's numbered requirements and the attacks of the threat model have their tests.

A test cites what it checks in its docstring (``RATCHET-07``, ``R6``) or, an attack, in its name.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SPEC = REPOSITORY / "spec"
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITION = re.compile(r"\*\*([A-Z]+-\d\d)\*\*")

# Of the malicious relay, the malicious peer, the network, malformed input and the store: those
# that the protocol's core has to withstand.
ATTACKS = [
    *("R1", "R2", "R3", "R4", "R5", "R6", "R8", "R12"),
    *("P3", "P4", "P5", "P6"),
    *("N2", "N3"),
    *("M1", "M2", "M3"),
    *("S1", "S2", "S3", "S4"),
]


class Requirement(NamedTuple):
    """A numbered requirement, with its text and where it stands."""

    id: str
    text: str
    place: str


def requirements() -> Iterator[Requirement]:
    """Read the chapters: a requirement goes from its number to the next one, or to a gap."""
    for path in sorted(SPEC.glob("*.md")):
        chapter = path.read_text(encoding="utf-8")
        found = list(DEFINITION.finditer(chapter))
        ends = [match.start() for match in found[1:]] + [len(chapter)]
        for match, end in zip(found, ends, strict=False):  # a chapter may have none
            text = re.split(r"\n\s*\n", chapter[match.end() : end])[0]
            line = chapter.count("\n", 0, match.start()) + 1
            yield Requirement(match[1], text, f"spec/{path.name}:{line}")


REQUIREMENTS = list(requirements())
IDS = {requirement.id for requirement in REQUIREMENTS}
CITATION = re.compile(rf"\b(?:{'|'.join(sorted({id_.split('-')[0] for id_ in IDS}))})-\d\d\b")


def all_tests() -> Iterator[tuple[str, str]]:
    """Give name and docstring of every test; a class's docstring counts for its tests."""
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        yield from _tests_in(ast.parse(path.read_text(encoding="utf-8")), "")


def _tests_in(tree: ast.Module | ast.ClassDef, context: str) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from _tests_in(node, ast.get_docstring(node) or "")
        elif isinstance(node, FUNCTION) and node.name.startswith("test"):
            yield node.name, f"{context} {ast.get_docstring(node) or ''}"


TESTS = list(all_tests())
TEXTS = [docstring for _, docstring in TESTS]


def test_requirements_are_found():
    """The chapters are read as they are written: every kind of requirement is among them."""
    assert len(IDS) > 150
    assert {"CALL-01", "RATCHET-07", "SFRAME-09", "STORE-12", "WIRE-40", "TURN-01"} <= IDS
    assert any("MUST" in requirement.text for requirement in REQUIREMENTS)


def test_every_requirement_is_defined_once():
    """A number names one requirement."""
    count = Counter(requirement.id for requirement in REQUIREMENTS)
    assert [id_ for id_, times in count.items() if times > 1] == []


def test_every_must_has_its_test():
    """Each requirement that says MUST, and each other one, is cited by a test."""
    cited = {id_ for text in TEXTS for id_ in CITATION.findall(text)}
    missing = [f"{r.id} ({r.place})" for r in REQUIREMENTS if r.id not in cited]
    assert not missing, "\n".join(missing)


def test_citations_name_what_exists():
    """Whatever the code, the tests or the specification itself cite, a chapter defines."""
    unknown = []
    for path in _texts():
        cited = set(CITATION.findall(path.read_text(encoding="utf-8")))
        unknown += [f"{id_} in {path.relative_to(REPOSITORY)}" for id_ in sorted(cited - IDS)]
    assert not unknown, "\n".join(unknown)


def _texts() -> Iterator[Path]:
    for folder, pattern in (
        ("tests", "*.py"),
        ("e2ecall", "*.py"),
        ("relay", "*.py"),
        ("spec", "*.md"),
        ("spec", "*.py"),
    ):
        yield from sorted((REPOSITORY / folder).rglob(pattern))


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_has_its_test(attack):
    """What an attacker of the core would try is tried by a test that names it."""
    prefix = f"test_{attack.lower()}_"
    assert any(name.startswith(prefix) for name, _ in TESTS) or any(
        re.search(rf"\b{attack}\b", text) for text in TEXTS
    )
