"""``e2ecall-relay status``: what a running relay is about (relay/README.md, Operation)."""

import json
import sys
from pathlib import Path

from relay.cli.ask import ConfigFile, SocketFile, ask


def status(
    *, config: ConfigFile = Path("relay.toml"), socket: SocketFile = None, as_json: bool = False
) -> None:
    """Print the figures of a running relay.

    Parameters
    ----------
    as_json:
        One JSON object instead of lines.
    """
    answer = ask(config, socket, "GET", "/status")
    if as_json:
        sys.stdout.write(json.dumps(answer) + "\n")
        return
    for name, value in answer.items():
        sys.stdout.write(f"{name.replace('_', ' '):20} {value}\n")
