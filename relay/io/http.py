"""A small HTTP/1.1 server side for metrics and administration (relay/README.md): one request each.

Bounded in time and size, and closed after the answer. It routes nothing.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import trio

MAX_HEAD: Final = 8192
MAX_BODY: Final = 65_536
REQUEST_SECONDS: Final = 10.0
"""For one exchange; whoever is slower is cut off."""

TEXT: Final = "text/plain; charset=utf-8"

_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,10}) (/[!-~]{0,200}) HTTP/1\.[01]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,6})[ \t]*\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """``target`` is the path as it was sent."""

    method: str
    target: str
    body: bytes


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """What is answered."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT


Handle = Callable[[HTTPRequest], Awaitable[HTTPResponse]]


async def serve_exchange(
    stream: trio.SocketStream, handle: Handle, room: trio.CapacityLimiter
) -> None:
    """Read one request, answer it, close; where there is no ``room``, close at once.

    Nothing that the other end does raises.
    """
    try:
        room.acquire_on_behalf_of_nowait(stream)
    except trio.WouldBlock:
        await trio.aclose_forcefully(stream)
        return
    try:
        await _exchange(stream, handle)
    finally:
        room.release_on_behalf_of(stream)


async def _exchange(stream: trio.SocketStream, handle: Handle) -> None:
    with trio.move_on_after(REQUEST_SECONDS):
        try:
            request = await _read(stream)
            if request is None:
                response = HTTPResponse(HTTPStatus.BAD_REQUEST, b"not a request\n")
            else:
                response = await handle(request)
            await stream.send_all(_encode(response))
            await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    await trio.aclose_forcefully(stream)


async def _read(stream: trio.SocketStream) -> HTTPRequest | None:
    received = b""
    while b"\r\n\r\n" not in received:
        some = await stream.receive_some(MAX_HEAD)
        received += some
        if not some or len(received) > MAX_HEAD:
            return None
    head, _, body = received.partition(b"\r\n\r\n")
    line = _REQUEST_LINE.fullmatch(head.partition(b"\r\n")[0])
    found = _LENGTH.search(head + b"\r\n")
    length = 0 if found is None else int(found[1])
    if line is None or length > MAX_BODY:
        return None
    while len(body) < length:
        some = await stream.receive_some(MAX_HEAD)
        if not some:
            return None
        body += some
    return HTTPRequest(line[1].decode(), line[2].decode(), body[:length])


def _encode(response: HTTPResponse) -> bytes:
    head = (
        f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + response.body
