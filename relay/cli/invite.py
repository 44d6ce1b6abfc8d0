"""``e2ecall-relay invite``: codes with which people register (relay/README.md, Operation)."""

import json
import sys
from pathlib import Path

from relay.cli.ask import ConfigFile, SocketFile, ask


def invite(
    *,
    count: int = 1,
    days: int = 7,
    config: ConfigFile = Path("relay.toml"),
    socket: SocketFile = None,
    as_json: bool = False,
) -> None:
    """Print new registration codes of a running relay, one a line.

    Each is good for one account: e2ecall register NAME --invite CODE.

    Parameters
    ----------
    count:
        How many, 1000 at most.
    days:
        How long they are good, 366 at most.
    as_json:
        One JSON object instead, which also says when they expire.
    """
    answer = ask(config, socket, "POST", "/invite", count=count, days=days)
    text = json.dumps(answer) if as_json else "\n".join(answer["codes"])
    sys.stdout.write(f"{text}\n")
