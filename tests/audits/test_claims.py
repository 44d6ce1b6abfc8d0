"""The table of claims names commands that exist, and reports that are there."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CLAIMS = REPOSITORY / "audits" / "README.md"


def rows():
    lines = CLAIMS.read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [row for row in cells if row[0] != "claim" and not row[0].startswith("---")]


def test_every_claim_has_a_command_and_a_result():
    """Each row names a target of the Makefile, or tests that are there, and what came of it."""
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    assert len(rows()) > 10
    for claim, method, command, result in rows():
        assert method, claim
        assert result, claim
        program, *arguments = command.strip("`").split()
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), command
        else:
            assert program == ".venv/bin/python", command
            paths = [argument for argument in arguments if argument.startswith("tests/")]
            assert paths, command
            assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_what_is_linked_is_there():
    """Links lead to files of this repository."""
    links = re.findall(r"\]\(([^)#]+)\)", CLAIMS.read_text("utf-8"))
    assert links
    assert [link for link in links if not (CLAIMS.parent / link).exists()] == []
