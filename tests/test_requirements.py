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
REASON = re.compile(
    r"(?<!\*)\*(?!\*)[^*]{15,}[.?!]\*(?!\*)|\((?=[A-Z])[^()]{15,}(?:\([^()]*\)[^()]*)*[.]\)"
)
"""How a chapter writes why: a sentence in italics, or one in brackets."""

# Of the malicious relay, the malicious peer, the network, malformed input and the store: those
# that the protocol's core has to withstand; then those of the TURN server; then those that need
# clients that run.
ATTACKS = [
    *("R1", "R2", "R3", "R4", "R5", "R6", "R8", "R12"),
    *("P1", "P2", "P3", "P4", "P5", "P6"),
    *("N2", "N3"),
    *("M1", "M2", "M3"),
    *("S1", "S2", "S3", "S4"),
    *("T1", "T2", "T3", "T4", "T5", "T6", "T7"),
    *("N1", "N4", "M4"),
    *("P7", "P8", "P9", "P10", "P11", "P12", "R9", "R10", "R11"),
    *("R7", "R13", "R14"),
    *("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8"),
    *("F1", "F2", "F3", "F4", "F5", "F6"),
]


class Requirement(NamedTuple):
    """A numbered requirement, with its text and where it stands."""

    id: str
    text: str
    place: str


def requirements() -> Iterator[Requirement]:
    """Read the chapters: a requirement goes from its number to the next one, or to a gap.

    A block of code or a table after the gap, and what continues behind a block, belong to it.
    """
    for path in sorted(SPEC.glob("*.md")):
        chapter = path.read_text(encoding="utf-8")
        found = list(DEFINITION.finditer(chapter))
        ends = [match.start() for match in found[1:]] + [len(chapter)]
        for match, end in zip(found, ends, strict=False):  # a chapter may have none
            text = _with_blocks(re.split(r"\n\s*\n", chapter[match.end() : end]))
            line = chapter.count("\n", 0, match.start()) + 1
            yield Requirement(match[1], text, f"spec/{path.name}:{line}")


def _with_blocks(paragraphs: list[str]) -> str:
    kept = paragraphs[:1]
    for paragraph in paragraphs[1:]:
        if not (paragraph.startswith(("```", "|")) or kept[-1].startswith("```")):
            break
        kept.append(paragraph)
    return "\n\n".join(kept)


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


def test_every_requirement_has_its_reason():
    """Beside each requirement stands why it is one, so that nobody drops it as a formality."""
    bare = [f"{r.id} ({r.place})" for r in REQUIREMENTS if not REASON.search(r.text)]
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A key MUST be fresh. *Reuse would give away both messages.*", True),
        ("A key MUST be fresh. (Reuse would give away both messages.)", True),
        ("A key MUST be fresh. **X-02** A nonce MUST be fresh.", False),
        ("A key MUST be *fresh*, and as long (32 bytes) as AES wants.", False),
        ("A key MUST be fresh.", False),
    ],
)
def test_reasons_are_told_from_the_rest(text, found):
    """Neither a stressed word, nor a remark in brackets, nor a number passes for a reason."""
    assert bool(REASON.search(text)) is found


def test_must_stands_in_requirements_alone():
    """What says MUST has a number, so that it has a reason and a test."""
    loose = []
    for path in sorted(SPEC.glob("*.md")):
        chapter = path.read_text(encoding="utf-8")
        numbered = sum(
            r.text.count("MUST") for r in REQUIREMENTS if r.place.startswith(f"spec/{path.name}:")
        )
        if chapter.count("MUST") != numbered:
            loose.append(f"{path.name}: {chapter.count('MUST') - numbered} without a number")
    assert not loose, "\n".join(loose)


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


ATTACK_LINE = re.compile(r"^- \*\*([A-Z]\d+)\*\*|^  - `(tests/[\w/]+\.py)::(\w+)`$", re.MULTILINE)


def test_table_of_attacks():
    """The table in tests/adversary names tests that exist and cite the attack they stand under."""
    text = (REPOSITORY / "tests" / "adversary" / "README.md").read_text(encoding="utf-8")
    table, wrong, attack = Counter(), [], ""
    for found in ATTACK_LINE.finditer(text):
        if found[1]:
            attack = found[1]
            continue
        path = REPOSITORY / found[2]
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
        docstrings = dict(_tests_in(tree, ""))
        docstring = docstrings.get(found[3])
        table[attack] += 1
        if docstring is None or not (
            re.search(rf"\b{attack}\b", docstring) or f"_{attack.lower()}_" in found[3]
        ):
            wrong.append(f"{attack}: {found[0].strip()}")
    assert not wrong, "\n".join(wrong)
    assert set(ATTACKS) - {"S1", "S2", "S3"} <= set(table)


def test_map_of_the_specification():
    """The map in spec/README.md names every kind of requirement, module of the core and vectors."""
    text = (SPEC / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| [")]
    kinds = {kind.strip() for row in rows for kind in row[2].split(",")}
    assert kinds == {id_.split("-")[0] for id_ in IDS}, "the kinds of requirements in the map"
    patterns = [
        p for row in rows for cell in re.findall(r"`([^`]+)`", row[3]) for p in _expand(cell)
    ]
    modules = {path for pattern in patterns for path in REPOSITORY.glob(pattern)}
    assert all(any(REPOSITORY.glob(pattern)) for pattern in patterns)
    missing = set((REPOSITORY / "e2ecall" / "protocol").glob("[a-z]*.py")) - modules
    assert not missing, f"the map has no row for {missing}"
    vectors = {path.stem for path in (SPEC / "vectors").glob("*.json")}
    missing = vectors - {name for row in rows for name in re.findall(r"`(\w+)`", row[4])}
    assert not missing, f"the map has no row for the vectors {missing}"


def _expand(pattern: str) -> list[str]:
    """Return the patterns that braces stand for, as a shell does."""
    match = re.search(r"\{([^}]*)\}", pattern)
    if match is None:
        return [pattern]
    return [pattern[: match.start()] + one + pattern[match.end() :] for one in match[1].split(",")]
