"""The cryptographic core: SFrame, sessions against other libraries, envelopes, the store."""

from tests.bench import frames, sessions, storing
from tests.bench.harness import Report


def run(report: Report) -> None:
    """Measure all of it."""
    frames.run(report)
    sessions.run(report)
    storing.run(report)
