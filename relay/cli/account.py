"""``e2ecall-relay account``: what an operator can do about accounts (relay/README.md)."""

import sys
from pathlib import Path
from typing import Literal

import cyclopts

from relay.cli.ask import ConfigFile, SocketFile, ask, show

account = cyclopts.App(
    name="account", help="Count and delete accounts, open and close the registration."
)


@account.command
def delete(
    username: str, *, config: ConfigFile = Path("relay.toml"), socket: SocketFile = None
) -> None:
    """Remove an account with its keys and mail, for good; its name is never given out again.

    Parameters
    ----------
    username:
        The name in front of the @.
    """
    ask(config, socket, "POST", "/account/delete", username=username)
    sys.stdout.write("deleted; the name is retired\n")


@account.command
def count(
    *, config: ConfigFile = Path("relay.toml"), socket: SocketFile = None, as_json: bool = False
) -> None:
    """Print how many accounts, prekeys and envelopes there are, and how many were set aside.

    Parameters
    ----------
    as_json:
        One JSON object instead of lines.
    """
    show(ask(config, socket, "GET", "/accounts"), as_json=as_json)


@account.command
def registration(
    state: Literal["open", "invite", "closed"],
    *,
    config: ConfigFile = Path("relay.toml"),
    socket: SocketFile = None,
) -> None:
    """Let everybody, who has a code, or nobody register, until this node's next reload or restart.

    Parameters
    ----------
    state:
        What it is to be; `relay.registration` in the configuration is what lasts.
    """
    answer = ask(config, socket, "POST", "/registration", state=state)
    sys.stdout.write(f"registration is {answer['registration']}\n")
