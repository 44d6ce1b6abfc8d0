"""``e2ecall call``: call somebody."""

from e2ecall.cli.conversation import check, converse
from e2ecall.cli.media import NO_MEDIA, MediaOptions
from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.output import Output
from e2ecall.cli.running import run
from e2ecall.cli.terminal import Terminal
from e2ecall.client import Client
from e2ecall.errors import LocalProtocolError


def call(
    name: str | None = None, /, *, media: MediaOptions = NO_MEDIA, options: Options = DEFAULT
) -> None:
    """Call somebody, with sound and picture from files. Ctrl-C hangs up.

    Compare the code that both ends show, by voice or face to face, and type yes: from then on the
    person is verified.

    Parameters
    ----------
    name
        Whom to call: a username, or name@relay if they are at another relay. Without it, whom you
        called last.
    """
    media.check()
    access, output = options.access(), options.output()
    run(access.open, lambda me: _call(me, name, media, output))


async def _call(me: Client, name: str | None, options: MediaOptions, output: Output) -> None:
    whom = name or me.last_called()
    if whom is None:
        raise LocalProtocolError("you called nobody yet", hint="say whom to call: a name")
    with options.open() as media:
        placed = await me.call(whom, audio=media.audio, video=media.video, output=media.output)
        output.tell(f"Calling {placed.peer}.", "calling", peer=placed.peer)
        ended = await converse(
            me, placed, seconds=options.seconds, terminal=Terminal(), output=output
        )
    check(ended, placed.peer)
