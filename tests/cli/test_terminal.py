"""Questions at the terminal: what answers them, and what does not."""

import contextlib
import os
import subprocess

import anyio
import pytest

from e2ecall.cli.terminal import Terminal

from .conftest import COMMAND


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as source, os.fdopen(writing, "wb", 0) as target:
        yield source.fileno(), target


@pytest.mark.anyio
async def test_answers_in_order(pipe):
    """Each question takes one line; what is not understood is asked again."""
    source, target = pipe
    target.write(b" YES \nperhaps\nno\n")
    terminal = Terminal(source)
    assert await terminal.ask("?") == "yes"
    assert await terminal.choose("?", "yes", "no") == "no"


@pytest.mark.anyio
async def test_nobody_answers(pipe):
    """At the end of the input there is no answer, now and later; half a line is none either."""
    source, target = pipe
    target.write(b"y")
    target.close()
    terminal = Terminal(source)
    assert await terminal.choose("?", "y") is None
    assert await terminal.ask("?") is None


@pytest.mark.anyio
async def test_withdrawn_question(pipe):
    """A question that was withdrawn leaves the next one its answer."""
    source, target = pipe
    terminal = Terminal(source)
    with anyio.move_on_after(0.01) as scope:
        await terminal.ask("?")
    assert scope.cancelled_caught
    target.write(b"y\n")
    assert await terminal.ask("?") == "y"


@pytest.mark.anyio
async def test_endless_line(pipe):
    """A line without end is cut instead of kept, and answers nothing."""
    source, target = pipe
    target.write(b"y" * 2_000 + b"\nno\n")
    assert await Terminal(source).choose("?", "no", "y") == "no"


@pytest.mark.anyio
async def test_input_that_is_a_file(tmp_path):
    """A file and a closed descriptor answer or end at once."""
    file = tmp_path / "answers"
    file.write_text("y\n")
    with file.open("rb") as source:
        terminal = Terminal(source.fileno())
        assert await terminal.ask("?") == "y"
        assert await terminal.ask("?") is None
    assert await Terminal(1_000_000).ask("?") is None


# The first terminal that a session opens becomes the one that it is controlled by.
OPEN_TTY = 'tty=$1; shift; exec "$@" <"$tty" 2>"$tty"'


class Tty:
    """A command at a terminal of its own, its stdout apart."""

    def __init__(self, *arguments):
        self.master, self._slave = os.openpty()
        name = os.ttyname(self._slave)
        self.process = subprocess.Popen(
            ["sh", "-c", OPEN_TTY, "sh", name, *COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.seen = ""

    def read_until(self, text):
        while text not in self.seen:
            self.seen += os.read(self.master, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def type(self, text):
        os.write(self.master, text.encode())

    def close(self):
        for descriptor in (self.master, self._slave):
            if descriptor is not None:
                os.close(descriptor)

    def finish(self):
        """Return the exit code, what was printed, and what else the terminal showed."""
        stdout, _ = self.process.communicate(timeout=60)
        os.close(self._slave)  # open until now, or reading fails before the command has opened it
        self._slave = None
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(self.master, 4096):
                self.seen += data.decode()
        return self.process.returncode, stdout, self.seen


@pytest.fixture
def tty():
    with contextlib.ExitStack() as stack:

        def opened(*arguments):
            tty = Tty(*arguments)
            stack.callback(tty.close)
            stack.enter_context(tty.process)
            stack.callback(tty.process.kill)
            return tty

        yield opened


def test_new_passphrase(tty, relay, tmp_path, e2ecall):
    """The passphrase of a new store is asked for twice and not shown; then once, and it counts."""
    store = ["--store", tmp_path / "new" / "s.db"]
    for second, code in (("other words", 1), ("some words", 0)):
        terminal = tty("register", "dave", "--relay", relay, *store)
        terminal.read_until("New passphrase")
        terminal.type("some words\n")
        terminal.read_until("again")
        terminal.type(f"{second}\n")
        ended, _, shown = terminal.finish()
        assert ended == code, shown
        assert "words" not in shown
        assert ("these were two passphrases" in shown) == (code == 1)
    terminal = tty("contacts", *store)
    terminal.read_until("Passphrase of your store: ")
    terminal.type("other words\n")
    assert "does not open" in terminal.finish()[2]


def test_interrupted_question(tty, relay, tmp_path):
    """Ctrl-C at the passphrase exits with 130 and makes nothing."""
    terminal = tty("register", "erin", "--relay", relay, "--store", tmp_path / "s.db")
    terminal.read_until("New passphrase")
    terminal.type("\x03")
    code, _, shown = terminal.finish()
    assert code == 130
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())


def test_typed_ahead(tty, alice, bob, e2ecall, start):
    """What was typed before it rang does not take a call."""
    terminal = tty("listen", "--once", *bob.options)
    assert "Listening" in terminal.process.stdout.readline()
    terminal.type("y\nyes\n")
    calling = start("call", "bobby", *alice.options)
    terminal.read_until("Take it? Type y or n.")
    terminal.type("n\n")
    assert "declined" in calling.finish().stderr
    assert terminal.finish()[0] == 0
