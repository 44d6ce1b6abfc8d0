"""``e2ecall invite`` and ``e2ecall accept``: a link that lets one person reach an account."""

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.qr import picture
from e2ecall.cli.running import run
from e2ecall.client import Client


def invite(*, days: int = 7, options: Options = DEFAULT) -> None:
    """Make an invitation: a link, and the same as a QR code, for one person.

    Whoever uses it first becomes your contact, and reaches you also if you let only contacts do so.

    Parameters
    ----------
    days
        How long it can be used, 30 at most.
    """
    access, output = options.access(), options.output()

    async def make(me: Client) -> None:
        link = await me.invite(days=days)
        output.tell(f"{picture(link)}\n{link}", "invitation", link=link, days=days)

    run(access.open, make, doing="Telling the relay")


def accept(link: str, /, *, options: Options = DEFAULT) -> None:
    """Take up an invitation that somebody gave you.

    Parameters
    ----------
    link
        All of it, from e2ecall: on, in quotation marks.
    """
    access, output = options.access(), options.output()

    async def take_up(me: Client) -> None:
        address = await me.accept_invitation(link)
        output.tell(f"{address} is among your contacts now.", "accepted", peer=address)

    run(access.open, take_up, doing="Taking the invitation up")
