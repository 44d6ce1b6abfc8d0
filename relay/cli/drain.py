"""``e2ecall-relay drain`` and ``reload``: orders to a running relay (relay/README.md)."""

import sys
from pathlib import Path

from relay.cli.ask import ConfigFile, SocketFile, ask


def drain(*, config: ConfigFile = Path("relay.toml"), socket: SocketFile = None) -> None:
    """Make a relay take no more clients, wait for its calls, and stop; like SIGTERM.

    Given once more, it stops without waiting for calls.
    """
    answer = ask(config, socket, "POST", "/drain")
    sys.stdout.write(f"draining, {answer['allocations']} allocations are left\n")


def reload(*, config: ConfigFile = Path("relay.toml"), socket: SocketFile = None) -> None:
    """Make a relay read its configuration and certificates anew; like SIGHUP."""
    waiting = ask(config, socket, "POST", "/reload")["needs_restart"]
    sys.stdout.write("reloaded\n")
    if waiting:
        sys.stdout.write(f"these wait for a restart: {', '.join(waiting)}\n")
