"""A PostgreSQL server of the tests' own, in a temporary folder and on a Unix socket only."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

START_SECONDS = 30
USER = "relay"
ROLE = "postgres"  # whom root becomes: the server refuses to run as root


class Cluster:
    """``postgres`` as a child, without syncs: what it survives here is a crash of its own."""

    def __init__(self, program: Callable[[str], Path]) -> None:
        self._postgres = program("postgres")
        # Root's own temporary folder may be closed to the user that the server runs as.
        place = "/tmp" if os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="e2ecall-pg-", dir=place))
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._paused: list[int] = []
        try:
            if os.getuid() == 0:
                shutil.chown(self.folder, ROLE, ROLE)
            self.run(
                program("initdb"), "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8",
                "--no-locale", "--no-sync",
            )  # fmt: skip
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self, **more: str) -> None:
        """Start the server, with ``more`` settings, and wait until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "max_connections": 100,
            "shared_buffers": "32MB",
            "log_statement": "none",
            **more,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_become(), self._postgres, "-D", self.data, *options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn("postgres")).close()
            except psycopg.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def recover(self) -> None:
        """Stop the server and recover as from an archive, which begins a new timeline."""
        self.stop(signal.SIGINT)
        self.run("touch", self.data / "recovery.signal")
        self.start(restore_command="false")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop the server: at once with SIGQUIT, as in a crash; in order with SIGINT."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def pause(self) -> None:
        """Let the server stand still with all its processes: who is connected gets no answer."""
        assert self._process is not None
        # The first makes no more children once it stands still.
        self._paused = [self._process.pid]
        self._signal_paused(signal.SIGSTOP)
        for listing in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            self._paused += map(int, listing.read_text().split())
        self._signal_paused(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal_paused(signal.SIGCONT)

    def _signal_paused(self, number: signal.Signals) -> None:
        for pid in self._paused:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self) -> None:
        """Stop the server and remove all of it."""
        self.stop()
        shutil.rmtree(self.folder)

    def dsn(self, database: str, user: str = USER) -> str:
        """Return how to connect to a database."""
        return f"host={self.folder} dbname={database} user={user}"

    def database(self) -> str:
        """Make an empty database and return how to connect to it, as an ordinary role."""
        self._databases += 1
        name = f"test{self._databases}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(
                "DO $$ BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN OTHERS THEN END $$"
            )
            connection.execute(f"CREATE DATABASE {name} OWNER app")
        return self.dsn(name, "app")

    def run(self, *command: str | Path) -> None:
        """Run a program of the server's as the server's user."""
        subprocess.run([*_become(), *command], check=True, stdout=subprocess.DEVNULL, cwd="/")


def _become() -> list[str]:
    if os.getuid() != 0:
        return []
    # With its end should ours come first.
    return [
        "setpriv", f"--reuid={ROLE}", f"--regid={ROLE}", "--clear-groups", "--pdeathsig=QUIT",
    ]  # fmt: skip
