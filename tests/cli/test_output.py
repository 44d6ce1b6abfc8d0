"""What a peer sends is shown without letting it control the terminal."""

import pytest

from e2ecall.cli.output import harmless, local_time


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 👩‍🚀 ✏️", "plain ünïcode 👩‍🚀 ✏️"),
        ("\x1b[2J\x07\x9b31m", "\ufffd[2J\ufffd\ufffd31m"),
        ("right\u202eto left", "right\ufffdto left"),
        ("one\r\ntwo\nalice@relay: three", "one\n    two\n    alice@relay: three"),
        ("over\rwritten", "over\ufffdwritten"),
        ("line\u2028separator", "line\ufffdseparator"),
    ],
)
def test_harmless(text, shown):
    """Control characters are replaced, and further lines cannot pass as lines of the program."""
    assert harmless(text) == shown


@pytest.mark.parametrize("seconds", [2**64 / 1000, 1e300, -1e300])
def test_impossible_time(seconds):
    """A time stamp that no calendar knows is no error."""
    assert len(local_time(seconds)) == len(local_time(1_700_000_000))
