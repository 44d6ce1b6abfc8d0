"""Which of a relay's TURN servers a credential is for (spec/ticket-ids.md, Servers).

Shared by the relay, which makes credentials that name a server, and by clients, which ask it. It
reads no more of a URL than its host.
"""

import hashlib
from collections.abc import Sequence

from relay.wire.labels import labelled


def host_of(url: str) -> str:
    """Return the host of ``turn:HOST[:PORT][?...]``, as it is written."""
    rest = url.partition(":")[2].partition("?")[0]
    if rest.startswith("["):
        return rest.partition("]")[0] + "]"
    return rest.partition(":")[0]


def hosts_of(urls: Sequence[str]) -> tuple[str, ...]:
    """Return the different hosts in the order in which they come; each is one server."""
    return tuple(dict.fromkeys(map(host_of, urls)))


def urls_for(urls: Sequence[str], username: str) -> tuple[str, ...]:
    """Return the URLs of the one server that a TURN username names; none if there are none."""
    hosts = hosts_of(urls)
    if not hosts:
        return ()
    digest = hashlib.sha256(labelled("turn server", username.encode())).digest()
    chosen = hosts[int.from_bytes(digest[:4]) % len(hosts)]
    return tuple(url for url in urls if host_of(url) == chosen)
