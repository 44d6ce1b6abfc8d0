"""``e2ecall contacts``: whom this account talked to."""

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.running import run
from e2ecall.client import Client


def contacts(*, options: Options = DEFAULT) -> None:
    """List everybody you talked to, and whether you compared a spoken code with them."""
    access, output = options.access(), options.output()

    async def show(me: Client) -> None:
        for contact in me.contacts():
            mark = "verified    " if contact.verified else "not verified"
            output.tell(
                f"{mark}  {contact.address}",
                "contact",
                address=contact.address,
                verified=contact.verified,
            )

    run(access.open, show)
