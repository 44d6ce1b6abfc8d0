"""``e2ecall-relay``: the commands, and how their errors are told (relay/README.md)."""

import sys
from typing import NoReturn

import cyclopts

from relay.cli.account import account
from relay.cli.backup import backup
from relay.cli.check import check
from relay.cli.drain import drain, reload
from relay.cli.init import init
from relay.cli.invite import invite
from relay.cli.migrate import migrate
from relay.cli.restore import restore
from relay.cli.serve import serve
from relay.cli.status import status
from relay.cli.ticket import ticket
from relay.errors import ConfigurationError, OperatorError

EXIT_REFUSED = 1

app = cyclopts.App(
    name="e2ecall-relay",
    help="A blind relay for end-to-end encrypted calls.",
    version_flags=[],
)
app.command(serve)
app.command(ticket)
app.command(init)
app.command(check)
app.command(account)
app.command(status)
app.command(drain)
app.command(reload)
app.command(invite)
app.command(backup)
app.command(restore)
app.command(migrate)


def main() -> NoReturn:
    """Run the command line; exit 0, 1 for what was refused, 2 for a wrong command line."""
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
