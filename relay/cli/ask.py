"""Asking a running relay over its admin socket (relay/README.md, Operation)."""

import http.client
import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts

from relay.config import load
from relay.errors import OperatorError
from relay.io.shortpath import at_short_path
from relay.io.state import admin_socket

SECONDS: Final = 15.0

ConfigFile = Annotated[Path, cyclopts.Parameter(help="The configuration file of the relay.")]
SocketFile = Annotated[
    Path | None, cyclopts.Parameter(help="The admin socket; else it is where the file says.")
]


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("relay", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with at_short_path(self._path) as short:
            self.sock.connect(short)


def ask(
    config: Path, path: Path | None, method: str, target: str, **arguments: object
) -> dict[str, Any]:
    """Return a running relay's answer.

    Raises:
        OperatorError: none runs there, or it refuses.
    """
    where = path or admin_socket(load(config, os.environ))
    connection = _Connection(where)
    try:
        connection.request(method, target, json.dumps(arguments))
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise OperatorError(
            f"no relay answers at {where}",
            hint="is it running, and with this configuration? --socket names another place",
        ) from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise OperatorError(answer["error"], hint=answer.get("hint"))
    return answer


def show(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what a relay answered: a line for each figure, or one JSON object."""
    if as_json:
        sys.stdout.write(json.dumps(answer) + "\n")
        return
    for name, value in answer.items():
        sys.stdout.write(f"{name.replace('_', ' '):20} {value}\n")
