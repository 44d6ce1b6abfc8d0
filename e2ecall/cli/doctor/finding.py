"""What `e2ecall doctor` finds: one thing that works, is not there, or does not work."""

from dataclasses import dataclass
from enum import StrEnum, unique

from e2ecall.cli.output import Output
from e2ecall.errors import E2ECallError


@unique
class Health(StrEnum):
    """How something is."""

    WORKS = "works"
    ABSENT = "absent"
    """Not there; calls are possible without it."""
    FAILS = "fails"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. What does not work says what to do."""

    what: str
    health: Health
    detail: str
    hint: str | None = None

    @classmethod
    def failed(cls, what: str, error: E2ECallError, hint: str) -> "Finding":
        """Return what an error means; ``hint`` is what to do where the error does not say it."""
        return cls(what, Health.FAILS, str(error), error.hint or hint)


_MARKS = {Health.WORKS: "works ", Health.ABSENT: "absent", Health.FAILS: "FAILS "}


def tell(finding: Finding, output: Output) -> None:
    """Say one thing."""
    text = f"{_MARKS[finding.health]}  {finding.what}: {finding.detail}"
    if finding.hint is not None:
        text += f"\n        hint: {finding.hint}"
    output.tell(
        text,
        "finding",
        what=finding.what,
        health=finding.health,
        detail=finding.detail,
        hint=finding.hint,
    )
