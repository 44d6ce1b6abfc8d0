"""The text of a report about somebody (spec/reach.md, "Reports"). It sends nothing."""

from collections.abc import Sequence


def report_text(address: str, fingerprint: str | None, messages: Sequence[str], note: str) -> str:
    """Return what the abuse contact reads: only what stands here is told."""
    parts = [f"Report of {address}"]
    if fingerprint is not None:
        parts.append(f"Identity: {fingerprint}")
    if note:
        parts.append(f"Note: {note}")
    parts += [f"Message {number}: {text}" for number, text in enumerate(messages, 1)]
    return "\n\n".join(parts)
