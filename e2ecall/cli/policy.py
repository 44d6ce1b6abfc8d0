"""``e2ecall policy``: who can reach this account."""

from typing import Final, Literal

from e2ecall.cli.options import DEFAULT, Options
from e2ecall.cli.running import run
from e2ecall.client import Client
from relay.wire.messages import Policy

_POLICIES: Final = {
    "everyone": Policy.EVERYONE,
    "contacts": Policy.CONTACTS,
    "nobody": Policy.NOBODY,
}
_MEANINGS: Final = {
    "everyone": "Everyone can call you and send you messages.",
    "contacts": "Only people you called, answered or wrote to can reach you.",
    "nobody": "Nobody can call you or send you messages.",
}


def policy(
    who: Literal["everyone", "contacts", "nobody"],
    /,
    *,
    first_call: Literal["rings", "waits"] = "rings",
    options: Options = DEFAULT,
) -> None:
    """Choose who can call you and send you messages.

    Parameters
    ----------
    who
        everyone, as it is for a new account; contacts: people you called, answered or wrote to; or
        nobody.
    first_call
        With everyone: whether the call of somebody whom you never called or wrote to rings, or
        waits as a request among your contacts.
    """
    access, output = options.access(), options.output()

    async def choose(me: Client) -> None:
        await me.set_policy(_POLICIES[who], strangers_ring=first_call == "rings")
        output.tell(_MEANINGS[who], "policy", policy=who)

    run(access.open, choose)
