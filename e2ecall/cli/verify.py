"""``e2ecall verify``: compare identities with somebody, by digits or by QR code."""

from typing import Annotated

from cyclopts import Parameter

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.output import Output
from e2ecall.cli.qr import picture
from e2ecall.cli.running import run
from e2ecall.client import Client
from e2ecall.errors import LocalProtocolError


def verify(
    name: str,
    /,
    *,
    confirm: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    scanned: str | None = None,
    accept: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Show the 60 digits and the QR code to compare with somebody, and say what came of it.

    Meet, or talk over a way you trust: your digits have to be what they see of you, and theirs
    what you see here. One scan of either QR code does the same.

    Parameters
    ----------
    name
        With whom to compare: a username, or name@relay if they are at another relay.
    confirm
        You compared the digits and they are the same: from now on this person is verified.
    scanned
        What their QR code says, or their 60 digits: compared here, and verified if they agree.
    accept
        The 60 digits of the other identity, after it changed: take it for theirs from now on.
    """
    if sum((confirm, scanned is not None, accept is not None)) > 1:
        raise LocalProtocolError("give one of --confirm, --scanned and --accept")
    access, output = options.access(), options.output()

    async def compare(me: Client) -> None:
        if accept is not None:
            await me.accept_identity(name, accept)
            output.tell(
                f"{name} has the new identity now, and is not verified.", "accepted", peer=name
            )
            return
        if scanned is None:
            _show(me, name, output)
        if confirm or scanned is not None:
            await me.verify(name, scanned or me.fingerprint(name))
            output.tell(f"{name} is verified.", "verified", peer=name)

    run(access.open_offline, compare)


def _show(me: Client, name: str, output: Output) -> None:
    theirs, ours, code = me.fingerprint(name), me.fingerprint(), me.verification_code(name)
    changed = me.changed_fingerprint(name)
    text = f"{name} has, as you know them:\n{_in_lines(theirs)}\n"
    text += f"You have:\n{_in_lines(ours)}\n\n{picture(code)}\n{code}"
    if changed is not None:
        text += (
            f"\n\nThe relay of {name} shows another identity:\n{_in_lines(changed)}\n"
            "Accept it with --accept only if they tell you these digits."
        )
    output.tell(
        text,
        "fingerprint",
        peer=name,
        fingerprint=theirs,
        own_fingerprint=ours,
        code=code,
        changed_fingerprint=changed,
    )


def _in_lines(fingerprint: str) -> str:
    """Return the digits in three lines of four groups."""
    groups = fingerprint.split()
    return "\n".join("    " + " ".join(groups[n : n + 4]) for n in range(0, len(groups), 4))
