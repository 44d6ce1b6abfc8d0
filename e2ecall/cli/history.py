"""``e2ecall history``: the calls that were, and whether they are noted."""

from typing import Annotated, Literal

from cyclopts import Parameter

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.output import Output, local_time
from e2ecall.cli.running import run
from e2ecall.client import Client, PastCall
from e2ecall.errors import LocalProtocolError


def history(
    *,
    clear: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    keep: Literal["on", "off"] | None = None,
    options: Options = DEFAULT,
) -> None:
    """List your past calls, the latest last, with those that you missed.

    They are kept in the encrypted store, and nowhere else. What came while you were away is among
    them once `e2ecall listen` has run.

    Parameters
    ----------
    clear
        Forget all past calls instead.
    keep
        off: note no calls any more, and forget those that were; on: note them again.
    """
    if clear and keep is not None:
        raise LocalProtocolError("--clear and --keep do not go together")
    access, output = options.access(), options.output()

    async def do(me: Client) -> None:
        if keep is not None:
            await me.keep_history(keep == "on")
            words = "noted from now on" if keep == "on" else "not noted, and forgotten so far"
            output.tell(f"Calls are {words}.", "history", kept=me.keeps_history)
        elif clear:
            await me.clear_history()
            output.tell("Your past calls are forgotten.", "history", kept=me.keeps_history)
        else:
            for past in reversed(me.history()):
                _tell(past, output)

    run(access.open_offline, do)


def _tell(past: PastCall, output: Output) -> None:
    how = "missed" if past.missed else "to" if past.outgoing else "from"
    length = f"{past.seconds:.0f} s" if past.seconds else str(past.reason).replace("_", " ")
    output.tell(
        f"{local_time(past.began)}  {how:6}  {past.peer}  ({length})",
        "past_call",
        peer=past.peer,
        outgoing=past.outgoing,
        missed=past.missed,
        began=past.began,
        seconds=past.seconds,
        reason=past.reason,
        video=past.video,
    )
