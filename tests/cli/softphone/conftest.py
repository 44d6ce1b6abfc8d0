"""People at terminals, with a relay between them."""

from contextlib import ExitStack

import pytest

from .terminals import Terminal


@pytest.fixture
def open_terminal():
    """Give a function that runs a command at a terminal of its own, until the test ends."""
    with ExitStack() as stack:

        def opened(*arguments, **environment):
            terminal = Terminal(*arguments, **environment)
            stack.callback(terminal.close)
            return terminal

        yield opened
