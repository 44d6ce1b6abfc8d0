"""`e2ecall.testing`, as the tests of programs that embed e2ecall use it."""

import subprocess
import sys

import pytest

import e2ecall.testing
from e2ecall.media.sinks import CollectingSink
from e2ecall.testing import running_relay

pytestmark = pytest.mark.anyio


async def test_relay_is_stopped():
    """The relay runs for the length of the block, and ends with success."""
    async with running_relay() as relay:
        assert relay.url.startswith("ws://127.0.0.1:")
        assert relay.turn.startswith("turn:127.0.0.1:")
        assert relay.process.returncode is None
    assert relay.process.returncode == 0


async def test_relay_is_stopped_when_the_test_fails():
    """An error in the block comes out as it is, and the relay is gone."""
    with pytest.raises(ZeroDivisionError):
        async with running_relay() as relay:
            raise ZeroDivisionError
    assert relay.process.returncode == 0


async def test_relay_that_does_not_start(tmp_path):
    """A relay that cannot start raises."""
    with pytest.raises(RuntimeError, match="did not start"):
        async with running_relay("--config", str(tmp_path / "none.toml")):
            pass


def test_media_is_loaded_when_asked_for():
    """Importing the module loads no codec; its media names are those of `e2ecall.media`."""
    code = "import sys, e2ecall.testing; print('av' in sys.modules, 'aiortc' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"False False\n"
    assert e2ecall.testing.CollectingSink is CollectingSink
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        e2ecall.testing.nothing  # noqa: B018 - the access itself
