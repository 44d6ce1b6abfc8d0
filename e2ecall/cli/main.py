"""``e2ecall``: the commands, and how their errors are told (README, "Embedding").

One file per command stands beside this one. The media library is loaded by a call, never by help.
"""

import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from io import TextIOWrapper
from typing import Final, NoReturn

import cyclopts

from e2ecall.cli.allow import allow
from e2ecall.cli.block import block, unblock
from e2ecall.cli.call import call
from e2ecall.cli.change_passphrase import passphrase
from e2ecall.cli.completion import completion_of
from e2ecall.cli.contacts import contacts
from e2ecall.cli.doctor.command import doctor
from e2ecall.cli.history import history
from e2ecall.cli.invite import accept, invite
from e2ecall.cli.listen import listen
from e2ecall.cli.message import message
from e2ecall.cli.moving import devices, export, import_
from e2ecall.cli.policy import policy
from e2ecall.cli.register import register
from e2ecall.cli.report import report
from e2ecall.cli.verify import verify
from e2ecall.errors import E2ECallError, IdentityChangedError

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
"""As shells count: 128 and the number of SIGINT."""

app = cyclopts.App(
    name="e2ecall",
    help=(
        "End-to-end encrypted calls between usernames, through a relay that can read nothing.\n\n"
        "Begin with `e2ecall register NAME --relay URL`; `e2ecall demo` needs no account."
    ),
    version=lambda: version("e2ecall"),
)
_COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    register,
    call,
    listen,
    message,
    history,
    contacts,
    invite,
    accept,
    verify,
    block,
    unblock,
    report,
    policy,
    allow,
    devices,
    export,
    import_,
    passphrase,
    doctor,
)
"""In the order of the help."""

for _place, _command in enumerate(_COMMANDS):
    app.command(_command, sort_key=_place)
app.command(completion_of(app), sort_key=len(_COMMANDS) + 1)
app.command(
    "e2ecall.cli.demo.command:demo",
    name="demo",
    help="Place a real call through a blind relay on this machine, and check what came of it.",
    sort_key=len(_COMMANDS),
)


def main() -> NoReturn:
    """Run the command line; exit 0, 1 for what was refused or failed, 2 for a wrong command line.

    An interrupted command exits with 128 and the signal's number, after it has hung up.
    """
    _log_to_stderr()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal can write emoji
    try:
        app(result_action="return_value", exit_on_error=False, print_error=False)
        print(end="", flush=True)  # here, where a reader that has gone is an error we tell
    except cyclopts.CycloptsError as error:
        _tell(str(error), _usage_hint(error))
        sys.exit(EXIT_USAGE)
    except E2ECallError as error:
        _tell(str(error), _hint(error))
        sys.exit(EXIT_REFUSED)
    except KeyboardInterrupt:  # before there was anything to hang up
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_REFUSED)
    sys.exit(0)


def _tell(message: str, hint: str | None) -> None:
    sys.stderr.write(f"e2ecall: error: {message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")


def _hint(error: E2ECallError) -> str | None:
    if error.hint is None and isinstance(error, IdentityChangedError):
        return "compare fingerprints with them: e2ecall verify NAME"
    return error.hint


def _usage_hint(error: cyclopts.CycloptsError) -> str:
    return " ".join(["e2ecall", *(error.command_chain or ()), "--help"])


def _log_to_stderr() -> None:
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    logging.addLevelName(logging.CRITICAL, "error")
    logging.basicConfig(
        stream=sys.stderr, level=logging.ERROR, format="e2ecall: %(levelname)s: %(message)s"
    )
    # Of ours warnings too; the media library's are about single packets.
    logging.getLogger("e2ecall").setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
