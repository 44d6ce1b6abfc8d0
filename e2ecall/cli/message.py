"""``e2ecall message``: one sealed text."""

import sys
from typing import Final

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.running import run
from e2ecall.client import Client
from e2ecall.errors import LocalProtocolError

_MAX_CHARACTERS: Final = 1 << 20
"""Read from standard input; the protocol allows much less and says how much."""


def message(name: str, text: str | None = None, /, *, options: Options = DEFAULT) -> None:
    """Send a text message. It waits at the recipient's relay until they listen.

    Parameters
    ----------
    name
        The recipient's username; or name@relay, if they are at another relay.
    text
        What to say. Left out, it is read from standard input, where no process list shows it.
    """
    if text is None:
        text = _standard_input()
    if not text:
        raise LocalProtocolError("the message is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise LocalProtocolError("the message is not text in UTF-8")
    body, access, output = text, options.access(), options.output()

    async def send(me: Client) -> None:
        await me.message(name, body)
        output.tell(f"Sent to {name}.", "sent", to=name)

    run(access.open, send, doing="Sending")


def _standard_input() -> str:
    if sys.stdin.isatty():
        print("What to say? Ctrl-D ends it.", file=sys.stderr, flush=True)
    try:
        return sys.stdin.read(_MAX_CHARACTERS).removesuffix("\n")
    except UnicodeDecodeError as error:
        raise LocalProtocolError("standard input is not text in UTF-8") from error
