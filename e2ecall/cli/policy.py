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
_OF_THOSE: Final = {
    Policy.EVERYONE: "all of those",
    Policy.CONTACTS: "contacts",
    Policy.NOBODY: "nobody",
}
_NARROWEST_FIRST: Final = (Policy.NOBODY, Policy.CONTACTS, Policy.EVERYONE)


def policy(
    who: Who | None = None,
    /,
    *,
    first_call: Literal["rings", "waits"] | None = None,
    audio: Who | None = None,
    video: Who | None = None,
    options: Options = DEFAULT,
) -> None:
    """Choose who can call you and send you messages, or show what is chosen.

    What is left out stays as it is. Your relay enforces WHO. It cannot see who calls, so what
    follows from --first-call, --audio and --video is done here, and callers are not told: nobody
    answers, or they are heard and not seen.

    Parameters
    ----------
    who
        everyone, as it is for a new account; contacts: people you called, answered or wrote to; or
        nobody.
    first_call
        With everyone: whether the call of somebody whom you never called or wrote to rings, or
        waits as a request among your contacts.
    audio
        Of those, whose calls with sound alone ring. A call with pictures also rings where --video
        lets its caller in: so that no call rings at all, say nobody to both.
    video
        Of those, whose pictures are seen. A call with pictures of somebody else rings as one
        without, if --audio lets its caller in.
    """
    access, output = options.access(), options.output()

    async def choose(me: Client) -> None:
        if who is not None or first_call is not None:
            now = me.reachability
            rings = now.strangers_ring if first_call is None else first_call == "rings"
            wanted = now.policy if who is None else _POLICIES[who]
            await me.set_policy(wanted, strangers_ring=rings)
        if audio is not None or video is not None:
            await me.set_call_policy(
                audio=audio and _POLICIES[audio], video=video and _POLICIES[video]
            )
        _show(me, output)

    tells_relay = who is not None or first_call is not None
    opening = access.open if tells_relay else access.open_offline
    run(opening, choose, doing="Telling the relay" if tells_relay else None)


def _show(me: Client, output: Output) -> None:
    now = me.reachability
    text = _MEANINGS[now.policy]
    if now.policy is Policy.EVERYONE and not now.strangers_ring:
        text += " First calls wait as requests."
    if now.policy is not Policy.NOBODY and {now.audio, now.video} != {Policy.EVERYONE}:
        text += f" {_describe_calls(now.audio, now.video)}"
    output.tell(
        text,
        "policy",
        policy=_NAMES[now.policy],
        first_call="rings" if now.strangers_ring else "waits",
        audio=_NAMES[now.audio],
        video=_NAMES[now.video],
    )


def _describe_calls(audio: Policy, video: Policy) -> str:
    """Say whose calls ring, and whose pictures are seen, of those who can reach the account."""
    rings, seen = _OF_THOSE[audio], _OF_THOSE[video]
    if _NARROWEST_FIRST.index(video) <= _NARROWEST_FIRST.index(audio):
        return f"Calls of {rings} ring; pictures of {seen} are seen."
    return (
        f"Calls with sound alone ring if they are of {rings}, calls with pictures if they are of "
        f"{seen}; pictures of {seen} are seen."
    )
