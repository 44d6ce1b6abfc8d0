"""``e2ecall report``: tell the abuse contact of somebody's relay about them."""

from typing import Annotated

from cyclopts import Parameter

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.running import run
from e2ecall.client import Client


def report(
    name: str,
    /,
    *,
    message: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    note: Annotated[str, Parameter(show_default=False, help="What you want to say about it.")] = "",
    options: Options = DEFAULT,
) -> None:
    """Report somebody to whoever deals with abuse at their relay. They are not told.

    The report is encrypted. It shows your address, theirs with the digits of their identity, and
    what you write here: nothing else. They can answer you only if strangers can, or once you wrote
    to them.

    Parameters
    ----------
    name
        Whom to report: a username, or name@relay if they are at another relay.
    message
        A message of theirs that you want to show. Can be given several times.
    """
    access, output = options.access(), options.output()

    async def tell(me: Client) -> None:
        to = await me.report(name, messages=message, note=note)
        output.tell(f"{name} was reported to {to}.", "reported", peer=name, to=to)

    run(access.open, tell, doing="Sending the report")
