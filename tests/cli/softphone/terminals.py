"""A program on a pseudo-terminal, read by an emulator: a person's eyes and fingers."""

import contextlib
import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time

import pyte
import pytest

COMMAND = [sys.executable, "-W", "error", "-m", "e2ecall.cli"]
# The first terminal that a session opens becomes the one that it is controlled by.
OPEN_TTY = 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1'
UNTOLD = f"trap '' HUP; {OPEN_TTY}"
"""The same for a program that is not told when its terminal goes away, as under nohup."""
PATIENCE = 60.0
"""Seconds that anything may take here; nothing waits for them to pass."""


class Emulator(pyte.Screen):
    """pyte's, which knows no second screen for programs that fill it: here it is always cleared."""

    ALTERNATE = 1049

    def set_mode(self, *modes, **options):
        super().set_mode(*modes, **options)
        self._clear_if_changed(modes, **options)

    def reset_mode(self, *modes, **options):
        super().reset_mode(*modes, **options)
        self._clear_if_changed(modes, **options)

    def _clear_if_changed(self, modes, private=False):
        if private and self.ALTERNATE in modes:
            self.erase_in_display(2)
            self.cursor_position()


class Terminal:
    """One program at a terminal of its own; what it shows is in ``lines``."""

    def __init__(
        self, *arguments, columns=110, rows=32, command=COMMAND, script=OPEN_TTY, **environment
    ):
        self._master, self._slave = os.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen = Emulator(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.process = subprocess.Popen(
            ["sh", "-c", script, "sh", os.ttyname(self._slave), *command, *map(str, arguments)],
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
        )
        # The other end stays open here: what was written last would be lost with it.

    @property
    def lines(self):
        """What a person sees, line by line."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self):
        return "\n".join(self.lines)

    def wait_for(self, *texts):
        """Read until all of these are on the screen at once."""
        self.wait_until(lambda: all(text in self.text for text in texts), " and ".join(texts))

    def wait_gone(self, text):
        """Read until this is not on the screen any more."""
        self.wait_until(lambda: text not in self.text, f"no {text}")

    def wait_until(self, condition, what, tick=1.0):
        """Read until the condition holds; it is looked at with each output, and each ``tick``."""
        end = time.monotonic() + PATIENCE
        while not condition():
            self._read(tick)
            if time.monotonic() > end:
                pytest.fail(f"not there: {what}\n{self.text}", pytrace=False)

    def press(self, keys):
        os.write(self._master, keys.encode())

    def finish(self):
        """Wait for the end; return the exit code. What was said at last is in ``text``."""
        self.wait_until(lambda: self.process.poll() is not None, "the end", tick=0.05)
        while self._read(0):
            pass
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.vanish()

    def jam(self):
        """Take nothing any more, as a connection that is stuck, until it is read from again."""
        os.set_blocking(self._slave, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(self._slave, bytes(1_024)):
                pass

    def vanish(self):
        """Go away, as a window does that is closed."""
        for descriptor in (self._slave, self._master):
            if descriptor is not None:
                os.close(descriptor)
        self._slave = self._master = None

    def is_as_before(self):
        """Tell whether the terminal has echo and line editing, as shells leave it to programs."""
        flags = termios.tcgetattr(self._master)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def _read(self, patience):
        if not select.select([self._master], [], [], patience)[0]:
            return False
        data = os.read(self._master, 65_536)
        self.raw += data
        # The one sequence of the keyboard protocol that pyte would print.
        self._stream.feed(data.replace(b"\x1b[<u", b""))
        return True
