"""``e2ecall call``: call somebody."""

from e2ecall.cli.conversation import check, converse
from e2ecall.cli.media import NO_MEDIA, MediaOptions
from e2ecall.cli.options import DEFAULT, Options, Plain
from e2ecall.cli.output import Output
from e2ecall.cli.progress import PROGRESS
from e2ecall.cli.running import run
from e2ecall.cli.softphone.show import is_usable, use_phone
from e2ecall.cli.terminal import Terminal
from e2ecall.client import Client
from e2ecall.errors import LocalProtocolError


def call(
    name: str | None = None,
    /,
    *,
    plain: Plain = False,
    media: MediaOptions = NO_MEDIA,
    options: Options = DEFAULT,
) -> None:
    """Call somebody, with microphone, speaker and camera, or files. Ctrl-C hangs up.

    In a terminal the call has a screen with its keys in the last line. Compare the code that both
    ends show, by voice or face to face, and say so: from then on the person is verified.

    Parameters
    ----------
    name
        Whom to call: a username, or name@relay if they are at another relay. Without it, whom you
        called last.
    plain
        Tell what happens line by line instead, and ask questions, as without a terminal.
    """
    media.check()
    access, output = options.access(), options.output()
    if is_usable(plain=plain, as_json=options.as_json):
        run(
            access.open,
            lambda me: use_phone(me, media, output, first=_whom(me, name)),
            backend="asyncio",
        )
    else:
        run(access.open, lambda me: _call(me, name, media, output))


async def _call(me: Client, name: str | None, options: MediaOptions, output: Output) -> None:
    whom = _whom(me, name)
    with options.open(on_lost=output.device_lost) as media:
        PROGRESS.say(f"Calling {whom}")
        placed = await me.call(whom, audio=media.audio, video=media.video, output=media.output)
        PROGRESS.say(None)
        output.tell(f"Calling {placed.peer}.", "calling", peer=placed.peer)
        ended = await converse(
            me,
            placed,
            screen=media.screen,
            seconds=options.seconds,
            terminal=Terminal(),
            output=output,
        )
    check(ended, placed.peer)


def _whom(me: Client, name: str | None) -> str:
    whom = name or me.last_called()
    if whom is None:
        raise LocalProtocolError("you called nobody yet", hint="say whom to call: a name")
    return whom
