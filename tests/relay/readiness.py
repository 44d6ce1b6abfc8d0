"""What a relay tells whoever watches it over HTTP (spec/wire.md STORAGE-09)."""

import trio


async def http_status(relay, path="/readyz"):
    """Return the code with which a relay answers."""
    async with await trio.open_tcp_stream(*relay.address) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return int((await stream.receive_some()).split()[1])


async def becomes(relay, status):
    """Wait until ``/readyz`` is answered with ``status``."""
    with trio.fail_after(60):
        while await http_status(relay) != status:  # noqa: ASYNC110 - another process
            await trio.sleep(0.05)
