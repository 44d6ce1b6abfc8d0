"""``e2ecall-relay status``: what a running relay is about (relay/README.md, Operation)."""

from pathlib import Path

from relay.cli.ask import ConfigFile, SocketFile, ask, show


def status(
    *, config: ConfigFile = Path("relay.toml"), socket: SocketFile = None, as_json: bool = False
) -> None:
    """Print the figures of a running relay.

    Parameters
    ----------
    as_json:
        One JSON object instead of lines.
    """
    show(ask(config, socket, "GET", "/status"), as_json=as_json)
