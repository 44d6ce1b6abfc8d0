"""Where the passphrase of the store comes from: a file, or the person at the terminal.

Never an argument or an environment variable, which other processes can see.
"""

import getpass
import stat
import sys
import warnings
from pathlib import Path
from typing import Final

from e2ecall.errors import LocalProtocolError
from e2ecall.secret import Secret

_MAX_BYTES: Final = 4096


def read_passphrase(path: Path) -> Secret:
    """Return the first line of a file; says on stderr when others can read the file.

    Raises:
        LocalProtocolError: it cannot be read, or its first line is empty.
    """
    try:
        with path.open("rb") as file:
            status = path.stat()
            line = file.readline(_MAX_BYTES + 1).rstrip(b"\r\n")
    except OSError as error:
        raise LocalProtocolError(f"cannot read {path}: {error.strerror}") from error
    if not line:
        raise LocalProtocolError(f"the first line of {path} holds no passphrase")
    if len(line) > _MAX_BYTES:
        raise LocalProtocolError(f"the first line of {path} is longer than {_MAX_BYTES} bytes")
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        sys.stderr.write(f"e2ecall: warning: others can read {path}\nhint: chmod 600 {path}\n")
    return Secret(line)


def ask_passphrase(*, is_new: bool, what: str = "your store") -> Secret:
    """Ask at the terminal; for something new twice.

    Raises:
        LocalProtocolError: nobody to ask, nothing given, or not the same twice.
    """
    passphrase = _ask(f"New passphrase for {what}: " if is_new else f"Passphrase of {what}: ")
    if not passphrase:
        raise LocalProtocolError("no passphrase was given")
    if is_new and _ask("The same again: ") != passphrase:
        raise LocalProtocolError("these were two passphrases", hint="try again")
    return Secret(passphrase.encode())


def _ask(prompt: str) -> str:
    with warnings.catch_warnings():
        # Where it cannot switch the echo off it would go on and show what is typed.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt)
        except (getpass.GetPassWarning, EOFError, OSError) as error:
            raise LocalProtocolError(
                "there is no terminal to ask for the passphrase",
                hint="give --passphrase-file FILE or set E2ECALL_PASSPHRASE_FILE",
            ) from error
