"""Asking a relay over its admin socket, wherever in the file system that is."""

import trio

from relay.io.shortpath import at_short_path

SECONDS = 15


async def ask_admin(folder, data, *, eof=False):
    """Return all that the relay with its data under ``folder`` sends back for ``data``."""
    with at_short_path(next(folder.glob("**/admin.sock"))) as short:
        stream = await trio.open_unix_socket(short)
    received = b""
    async with stream:
        await stream.send_all(data)
        if eof:
            await stream.send_eof()
        with trio.fail_after(SECONDS):
            while some := await stream.receive_some():
                received += some
    return received


async def metrics_of(folder):
    """Return the metrics as text."""
    received = await ask_admin(folder, b"GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n")
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    return body.decode()
