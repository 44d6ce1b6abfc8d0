"""``e2ecall allow``: whether one person's calls ring, and whether they are seen in them."""

from typing import Final, Literal

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.running import run
from e2ecall.client import Client

Answer = Literal["yes", "no", "as-others"]

_ANSWERS: Final[dict[str, bool | None]] = {"yes": True, "no": False, "as-others": None}


def allow(
    name: str,
    /,
    *,
    audio: Answer = "as-others",
    video: Answer = "as-others",
    options: Options = DEFAULT,
) -> None:
    """Decide about one person's calls, whatever holds for others. They are not told.

    What is left out is as for others, as `e2ecall policy` says.

    Parameters
    ----------
    name
        A username, or name@relay if they are at another relay.
    audio
        Whether their calls ring.
    video
        Whether they are seen. If not, a call of theirs with pictures rings as one without.
    """
    access, output = options.access(), options.output()

    async def decide(me: Client) -> None:
        await me.allow(name, audio=_ANSWERS[audio], video=_ANSWERS[video])
        output.tell(
            f"Calls of {name}: ring {audio}, seen {video}.",
            "allowed",
            peer=name,
            audio=_ANSWERS[audio],
            video=_ANSWERS[video],
        )

    run(access.open_offline, decide)
