"""``e2ecall contacts``: whom this account talked to."""

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.running import run
from e2ecall.client import Client


def contacts(*, options: Options = DEFAULT) -> None:
    """List everybody you talked to, what you decided about them, and whether you compared codes."""
    access, output = options.access(), options.output()

    async def show(me: Client) -> None:
        for contact in me.contacts():
            mark = "verified    " if contact.verified else "not verified"
            notes = "  (another identity was seen: e2ecall verify)" * contact.identity_changed
            notes += "  (blocked)" * contact.blocked
            if contact.audio is not None:
                notes += f"  (calls {'ring' if contact.audio else 'do not ring'})"
            if contact.video is not None:
                notes += f"  (pictures are {'' if contact.video else 'not '}seen)"
            notes += "  (a request: you never wrote to or called them)" * contact.is_request
            output.tell(
                f"{mark}  {contact.address}{notes}",
                "contact",
                address=contact.address,
                verified=contact.verified,
                identity_changed=contact.identity_changed,
                blocked=contact.blocked,
                is_request=contact.is_request,
                audio=contact.audio,
                video=contact.video,
            )

    run(access.open_offline, show)
