"""Whether media finds its way through the relay: an allocation over each, with a real ticket."""

import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Final

from e2ecall.cli.doctor.finding import Finding, Health
from e2ecall.client import Client
from e2ecall.errors import E2ECallError, MediaError
from relay.wire.messages import TurnCredential

_WAYS: Final = {"UDP": ("turn:", "udp"), "TCP": ("turn:", "tcp"), "TLS": ("turns:", "tcp")}

_HINTS: Final = {
    "UDP": "a firewall may block UDP to the relay: ask whoever runs the network",
    "TCP": "a firewall may block the port: ask whoever runs the network, or the relay's operator",
    "TLS": "ask the relay's operator to look at its certificate and its port for TLS",
}


async def media_findings(
    me: Client, uris: Sequence[str], tls: ssl.SSLContext
) -> AsyncIterator[Finding]:
    """Yield for UDP, TCP and TLS what became of an allocation at the relay."""
    try:
        credential = await me.media_credential()
    except E2ECallError as error:
        yield Finding.failed("media", error, "try again later")
        return
    for way, (scheme, transport) in _WAYS.items():
        offered = [
            uri for uri in uris if uri.startswith(scheme) and uri.endswith(f"transport={transport}")
        ]
        if not offered:
            yield Finding(f"media over {way}", Health.ABSENT, "the relay does not offer it")
        for uri in offered:
            yield await _try(way, uri, credential, tls)


async def _try(way: str, uri: str, credential: TurnCredential, tls: ssl.SSLContext) -> Finding:
    from e2ecall.media.probe import try_allocation

    what = f"media over {way}"
    place = uri.partition(":")[2].partition("?")[0]
    try:
        taken = await try_allocation(uri, credential.username, credential.password, tls)
    except MediaError as error:
        return Finding(what, Health.FAILS, f"{place}: {error}", _HINTS[way])
    return Finding(what, Health.WORKS, f"{place}, allocated after {taken * 1_000:.0f} ms")
