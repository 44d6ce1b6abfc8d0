"""What a command waits for is said at a terminal, and nowhere else."""

import socket
from contextlib import closing

import pytest

from tests.cli.conftest import run_command

WAITING = "Registering ("


@pytest.fixture
def silent_relay():
    """Give the URL of a host that takes connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"


def test_waiting(open_terminal, silent_relay, passphrase_file, tmp_path):
    """What takes longer than a second is named with its time, and the line goes away at the end."""
    options = ["--store", tmp_path / "s.db", "--passphrase-file", passphrase_file]
    terminal = open_terminal("register", "zoe", "--relay", silent_relay, *options)
    terminal.wait_for(f"{WAITING}1 s)")
    terminal.wait_for(f"{WAITING}2 s)")
    terminal.press("\x03")
    assert terminal.finish() == 130
    assert WAITING not in terminal.text


def test_not_at_a_terminal(alice):
    """Programs see nothing of it."""
    done = run_command("history", *alice.options, "--json")
    assert (done.code, done.stderr) == (0, "")
