"""The command line as users have it: real processes, a real relay, stores in temporary folders."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pytest
from anyio.from_thread import start_blocking_portal

from e2ecall.media.files import write_movie
from e2ecall.testing import running_relay

# Who starts all tests in the background may have it ignored, which commands would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

COMMAND = [sys.executable, "-W", "error", "-m", "e2ecall.cli"]
MINUTE = 60


@pytest.fixture(scope="module")
def relay():
    """Give the URL of a running relay."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running_relay()) as process,
    ):
        yield process.url


@dataclass
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def events(self):
        """What was said with --json."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class Running:
    """A command that runs: ``next`` waits for what it says, ``type`` writes to its input."""

    def __init__(self, process):
        self.process = process
        self.events = []

    def next(self, event):
        """Return the next event of this kind; those before it are kept in ``events`` too."""
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event:
                return self.events[-1]
        pytest.fail(f"no {event!r} after {self.events}: {self.process.stderr.read()}")

    def named(self, event):
        return [found for found in self.events if found["event"] == event]

    def type(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def finish(self):
        """Wait for the end and return it; all events are in ``events`` then."""
        stdout, stderr = self.process.communicate(timeout=MINUTE)
        self.events += [json.loads(line) for line in stdout.splitlines()]
        return Ended(self.process.returncode, stdout, stderr)


@pytest.fixture
def start():
    """Give a function that starts a command with --json; it is killed if the test leaves it."""
    with ExitStack() as stack:

        def started(*arguments, stdin=subprocess.PIPE):
            process = subprocess.Popen(
                [*COMMAND, *map(str, arguments), "--json"],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Running(process)

        yield started


def run_command(*arguments, stdin="", **environment):
    """Run a command to its end, without a terminal."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=MINUTE,
        start_new_session=True,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


MANY = """
import contextlib, io, json, sys
from e2ecall.cli.main import main
ends = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["e2ecall", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            ends.append([end.code, out.getvalue(), err.getvalue()])
print(json.dumps([ends, list(sys.modules)]))
"""


def run_many(*command_lines):
    """Run command lines in one fresh process; return their ends, and the modules loaded then."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", MANY, json.dumps(command_lines)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends, modules = json.loads(done.stdout)
    return [Ended(*end) for end in ends], set(modules)


@pytest.fixture(scope="session")
def e2ecall():
    return run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def passphrase_file(folder):
    path = folder / "passphrase"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    return path


@dataclass
class Account:
    """A registered account: its address, and the options that open it."""

    address: str
    store: object
    options: list


@pytest.fixture(scope="module")
def register(relay, folder, passphrase_file):
    """Give a function that registers an account at the module's relay."""

    def registered(name):
        store = folder / name / "store.db"
        options = ["--store", store, "--passphrase-file", passphrase_file]
        done = run_command("register", name, "--relay", relay, "--json", *options)
        assert done.code == 0, done.stderr
        return Account(done.events[0]["address"], store, options)

    return registered


@pytest.fixture(scope="module")
def alice(register):
    return register("alice")


@pytest.fixture(scope="module")
def bob(register):
    return register("bobby")


@pytest.fixture(scope="module")
def carol(register):
    return register("carol")


GRAY = 150
"""The luma of the film."""


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """Give a file of 6 s with a gray picture and noise."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    noise = np.random.default_rng(1).standard_normal((288_000, 2)) * 3_000
    picture = np.full((540, 640), 128, dtype=np.uint8)
    picture[:360] = GRAY
    pictures = ((number / 30, picture) for number in range(180))
    write_movie(path, pictures, noise.astype(np.int16), 0.0)
    return path
