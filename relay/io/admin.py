"""The operator's two listeners (relay/README.md, Operation): a Unix socket and, for figures, TCP.

Who may open the socket is decided by its folder and mode, 0600. The TCP listener answers
``/metrics`` alone and takes no orders.
"""

import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import structlog
import trio
from prometheus_client import CONTENT_TYPE_LATEST

from relay.errors import OperatorError, StorageError
from relay.io.http import Handle, HTTPRequest, HTTPResponse, serve_exchange
from relay.io.logs import place
from relay.io.operation import Operation
from relay.io.shortpath import at_short_path

log = structlog.get_logger()

BACKLOG: Final = 16
MAX_EXCHANGES: Final = 32
"""At once on a listener: whoever may look at figures shall not use up the relay's descriptors."""
JSON: Final = "application/json"


class Admin:
    """Answers the operator's requests."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    async def serve_socket(
        self, listener: trio.SocketListener, task_status: trio.TaskStatus[object]
    ) -> None:
        """Serve the Unix socket."""
        handler = _exchanges(self._command)
        await trio.serve_listeners(handler, [listener], task_status=task_status)

    async def serve_metrics(
        self, listener: trio.SocketListener, task_status: trio.TaskStatus[object]
    ) -> None:
        """Serve ``/metrics`` and nothing else."""
        handler = _exchanges(self._figures)
        await trio.serve_listeners(handler, [listener], task_status=task_status)

    async def _figures(self, request: HTTPRequest) -> HTTPResponse:
        if (request.method, request.target) != ("GET", "/metrics"):
            return HTTPResponse(HTTPStatus.NOT_FOUND, b"here is only /metrics\n")
        text = self._operation.node.metrics.text()
        return HTTPResponse(HTTPStatus.OK, text, CONTENT_TYPE_LATEST)

    async def _command(self, request: HTTPRequest) -> HTTPResponse:
        try:
            arguments = json.loads(request.body or b"{}")
            if not isinstance(arguments, dict):
                raise OperatorError("the arguments are no object")
            match request.method, request.target:
                case "GET", "/metrics":
                    return await self._figures(request)
                case "GET", "/status":
                    return _json(self._operation.status())
                case "GET", "/accounts":
                    return _json(await self._operation.totals())
                case "POST", order:
                    return await self._obey(order, arguments)
        except StorageError:
            text = "the database does not work now; nobody knows whether this was done"
            return _json({"error": text, "hint": "do it again"}, HTTPStatus.SERVICE_UNAVAILABLE)
        except (OperatorError, ValueError) as error:
            hint = error.hint if isinstance(error, OperatorError) else None
            return _json({"error": str(error), "hint": hint}, HTTPStatus.BAD_REQUEST)
        except Exception as error:  # noqa: BLE001 - a command must not end the calls that run
            log.error("command failed", **place(error))  # noqa: TRY400 - texts may hold names
            text = "a fault of the relay; nobody knows what was done"
            return _json(
                {"error": text, "hint": "the log says where"}, HTTPStatus.INTERNAL_SERVER_ERROR
            )
        return _unknown()

    async def _obey(self, order: str, arguments: dict[str, Any]) -> HTTPResponse:
        operation = self._operation
        match order:
            case "/drain":
                operation.orders.leave()
                return _json(operation.status())
            case "/reload":
                return _json({"needs_restart": operation.reload()})
            case "/registration":
                operation.set_registration(arguments.get("state"))
                return _json(operation.status())
            case "/invite":
                codes = await operation.invite(arguments.get("count"), arguments.get("days"))
                return _json(codes)
            case "/account/delete":
                await operation.delete_account(arguments.get("username"))
                return _json({})
        return _unknown()


def _exchanges(handle: Handle) -> Callable[[trio.SocketStream], Awaitable[None]]:
    room = trio.CapacityLimiter(MAX_EXCHANGES)
    return partial(serve_exchange, handle=handle, room=room)


def _unknown() -> HTTPResponse:
    return _json({"error": "there is no such command"}, HTTPStatus.NOT_FOUND)


def _json(answer: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> HTTPResponse:
    return HTTPResponse(status, json.dumps(answer).encode() + b"\n", JSON)


@contextmanager
def open_socket_file(path: Path) -> Iterator[trio.SocketListener]:
    """Listen on a Unix socket at ``path`` that its owner alone may open; removed at the end.

    A socket that is there already belongs to a relay that died: the data directory is locked.

    Raises:
        OperatorError: it cannot be made.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            _bind(sock, path)
        except OSError as error:
            raise OperatorError(
                f"cannot listen on {path}: {error.strerror or error}",
                hint="operation.admin_socket names another place",
            ) from error
        try:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        finally:
            path.unlink(missing_ok=True)
    finally:
        sock.close()


def _bind(sock: socket.socket, path: Path) -> None:
    if path.is_socket():
        path.unlink()
    mask = os.umask(0o177)
    try:
        with at_short_path(path) as short:
            sock.bind(short)
    finally:
        os.umask(mask)
    sock.listen(BACKLOG)
