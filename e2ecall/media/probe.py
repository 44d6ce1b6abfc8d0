"""Tries one way to the relay's media server: a real allocation, given back at once.

For diagnosis only. Calls use `ice`, and this neither sends nor takes media. Runs on asyncio.
"""

import asyncio
import re
import ssl
import time
from typing import Final

from aioice import stun
from aioice.turn import TurnClientProtocol, TurnClientTcpProtocol, TurnClientUdpProtocol

from e2ecall.errors import MediaError

TIMEOUT: Final = 6.0
"""Seconds for a connection and two round trips; calls give up after five."""

_CLOSING_TURNS: Final = 3
"""Turns of the loop in which an aborted transport lets its socket go."""

_LIFETIME: Final = 600
_CHANNEL_LIFETIME: Final = 500
_URI: Final = re.compile(
    r"(turns?):(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):([0-9]{1,5})\?transport=(udp|tcp)",
    re.ASCII,
)


async def try_allocation(uri: str, username: str, password: str, tls: ssl.SSLContext) -> float:
    """Allocate at the TURN server of ``uri``, give it back, and return the seconds that it took.

    Raises:
        MediaError: the URI is of no known form, nobody answers, or the server refuses.
    """
    match = _URI.fullmatch(uri)
    if match is None or (match[1], match[4]) == ("turns", "udp"):
        raise MediaError("the relay names a media server in a form that is not known")
    began = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT):
            client = await _connect(match, username, password, tls)
            try:
                await client.connect()
                taken = time.monotonic() - began
                await client.delete()
            finally:
                # Not `close`: TLS would wait for the server's goodbye.
                client.transport.abort()
                for _ in range(_CLOSING_TURNS):
                    await asyncio.sleep(0)
    except stun.TransactionFailed as error:
        code, _ = error.response.attributes.get("ERROR-CODE", (0, ""))
        raise MediaError(f"the media server refused (code {code})") from error
    except ssl.SSLError as error:
        raise MediaError(f"its certificate is not valid: {error.reason}") from error
    except (TimeoutError, stun.TransactionTimeout) as error:
        raise MediaError("nobody answers") from error
    except (OSError, ValueError, KeyError) as error:
        # What the server sent is parsed here, and aioice raises what its parser happens to raise.
        raise MediaError(f"no connection: {error}") from error
    return taken


async def _connect(
    match: re.Match[str], username: str, password: str, tls: ssl.SSLContext
) -> TurnClientProtocol:
    loop = asyncio.get_running_loop()
    server = (match[2].strip("[]"), int(match[3]))
    parameters = (server, username, password, _LIFETIME, _CHANNEL_LIFETIME)
    client: TurnClientProtocol
    if match[4] == "udp":
        _, client = await loop.create_datagram_endpoint(
            lambda: TurnClientUdpProtocol(*parameters), remote_addr=server
        )
    else:
        _, client = await loop.create_connection(
            lambda: TurnClientTcpProtocol(*parameters),
            *server,
            ssl=tls if match[1] == "turns" else None,
        )
    return client
