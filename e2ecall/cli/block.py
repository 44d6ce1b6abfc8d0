"""``e2ecall block`` and ``e2ecall unblock``: who shall not reach this account."""

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.running import run
from e2ecall.client import Client


def block(name: str, /, *, options: Options = DEFAULT) -> None:
    """Refuse messages and calls of somebody. They are not told.

    Parameters
    ----------
    name
        Whom to block: a username, or name@relay if they are at another relay.
    """
    access, output = options.access(), options.output()

    async def refuse(me: Client) -> None:
        await me.block(name)
        output.tell(f"{name} is blocked.", "blocked", peer=name)

    run(access.open, refuse, doing="Telling the relay")


def unblock(name: str, /, *, options: Options = DEFAULT) -> None:
    """Take messages and calls of somebody again.

    Parameters
    ----------
    name
        Whom to unblock: a username, or name@relay if they are at another relay.
    """
    access, output = options.access(), options.output()

    async def take(me: Client) -> None:
        await me.unblock(name)
        output.tell(f"{name} is not blocked.", "unblocked", peer=name)

    run(access.open_offline, take, doing="Telling the relay")
