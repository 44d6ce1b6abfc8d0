"""``e2ecall-relay``: the commands, and how their errors are told (relay/README.md)."""

import sys
from typing import Final, NoReturn

import cyclopts

from relay.errors import ConfigurationError, OperatorError

EXIT_REFUSED = 1

app = cyclopts.App(
    name="e2ecall-relay",
    help="A blind relay for end-to-end encrypted calls.",
    version_flags=[],
)
_COMMANDS: Final = {
    "serve": "serve",
    "ticket": "ticket",
    "init": "init",
    "check": "check",
    "account": "account",
    "status": "status",
    "drain": "drain",
    "reload": "drain",
    "invite": "invite",
    "backup": "backup",
    "restore": "restore",
    "migrate": "migrate",
}
"""The module of each command: it is loaded with what it needs when the command is given."""

for _command, _module in _COMMANDS.items():
    app.command(f"relay.cli.{_module}:{_command}", name=_command)


def main() -> NoReturn:
    """Run the command line; exit 0, 1 for what was refused, 2 for a wrong command line."""
    if sys.argv[1:2] in ([], ["--help"], ["-h"]):
        for command in _COMMANDS:  # their first lines are in the help
            app[command]
    try:
        app(result_action="return_value", exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        _tell(str(error), "e2ecall-relay --help")
        sys.exit(2)
    except ConfigurationError as error:
        for problem in error.problems:
            _tell(str(problem), problem.hint)
        sys.exit(EXIT_REFUSED)
    except OperatorError as error:
        _tell(str(error), error.hint)
        sys.exit(EXIT_REFUSED)
    sys.exit(0)


def _tell(message: str, hint: str | None) -> None:
    sys.stderr.write(f"e2ecall-relay: error: {message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")
