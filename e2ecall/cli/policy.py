"""``e2ecall policy``: who can reach this account."""

from typing import Final, Literal

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.output import Output
from e2ecall.cli.running import run
from e2ecall.client import Client
from relay.wire.messages import Policy

Who = Literal["everyone", "contacts", "nobody"]

_POLICIES: Final[dict[str, Policy]] = {
    "everyone": Policy.EVERYONE,
    "contacts": Policy.CONTACTS,
    "nobody": Policy.NOBODY,
}
_NAMES: Final = {policy: name for name, policy in _POLICIES.items()}
_MEANINGS: Final = {
    Policy.EVERYONE: "Everyone can call you and send you messages.",
    Policy.CONTACTS: "Only people you called, answered or wrote to can reach you.",
    Policy.NOBODY: "Nobody can call you or send you messages.",
}
_CALLS: Final = {
    Policy.EVERYONE: "rings for everyone of those",
    Policy.CONTACTS: "rings for contacts",
    Policy.NOBODY: "rings for nobody",
}
_PICTURES: Final = {
    Policy.EVERYONE: "everyone of those is seen",
    Policy.CONTACTS: "contacts are seen",
    Policy.NOBODY: "nobody is seen",
}


def policy(
    who: Who | None = None,
    /,
    *,
    first_call: Literal["rings", "waits"] = "rings",
    audio: Who | None = None,
    video: Who | None = None,
    options: Options = DEFAULT,
) -> None:
    """Choose who can call you and send you messages, or show what is chosen.

    Your relay enforces the first. It cannot see who calls, so what follows from --audio and --video
    is done here, and callers are not told: nobody answers, or they are heard and not seen.

    Parameters
    ----------
    who
        everyone, as it is for a new account; contacts: people you called, answered or wrote to; or
        nobody.
    first_call
        With everyone: whether the call of somebody whom you never called or wrote to rings, or
        waits as a request among your contacts.
    audio
        Of those, whose calls ring.
    video
        Of those, whose pictures are seen. A call with pictures of others rings as one without.
    """
    access, output = options.access(), options.output()

    async def choose(me: Client) -> None:
        if who is not None:
            await me.set_policy(_POLICIES[who], strangers_ring=first_call == "rings")
        if audio is not None or video is not None:
            await me.set_call_policy(
                audio=audio and _POLICIES[audio], video=video and _POLICIES[video]
            )
        _show(me, output)

    opening = access.open if who is not None else access.open_offline
    run(opening, choose, doing="Telling the relay")


def _show(me: Client, output: Output) -> None:
    now = me.reachability
    text = _MEANINGS[now.policy]
    if now.policy is Policy.EVERYONE and not now.strangers_ring:
        text += " First calls wait as requests."
    if {now.audio, now.video} != {Policy.EVERYONE}:
        text += f" A call {_CALLS[now.audio]}; {_PICTURES[now.video]}."
    output.tell(
        text,
        "policy",
        policy=_NAMES[now.policy],
        first_call="rings" if now.strangers_ring else "waits",
        audio=_NAMES[now.audio],
        video=_NAMES[now.video],
    )
