"""Who connects: the source that limits count, and what proxies say of it (spec/wire.md, Limits).

A header counts only where a proxy that the operator trusts wrote it, and is read from the right:
what stands left of the last trusted proxy may be anybody's invention. It keeps no address.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_PAIR: Final = re.compile(
    r"\s*([\w!#$%&'*+.^`|~-]+)=(?:([\w!#$%&'*+.^`|~:\[\]-]+)|\"((?:[^\"\\]|\\.)*)\")\s*", re.ASCII
)
"""``name=value`` of a Forwarded header (RFC 7239 section 4); bare IPv6 passes too."""
_HOST: Final = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d{1,5})?|([0-9.]+)(?::\d{1,5})?", re.ASCII)


SITE: Final = 16
"""Sources of IPv6 in one /48 that may use up their limits: many a host is given all 65 536."""


class ForwardedError(ValueError):
    """What a trusted proxy wrote is not understood, so nobody knows who connects."""


def source_key(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = _plain(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(ip_network((parsed, 64), strict=False))


def site_key(source: str) -> str | None:
    """Return the /48 of IPv6 that a source lies in, which counts too (WIRE-52); None for IPv4."""
    if "/" not in source:
        return None  # one address of IPv4, as most are
    try:
        network = ip_network(source)
    except ValueError:
        return None
    return None if isinstance(network, IPv4Network) else str(network.supernet(new_prefix=48))


class Tally:
    """How many connections each source has, and each /48 of IPv6 (WIRE-52)."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def enter(self, source: str) -> None:
        """Count one more."""
        self._counts.update(_both(source))

    def leave(self, source: str) -> None:
        """Count one less."""
        for key in _both(source):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]

    def is_beyond(self, source: str, most: int) -> bool:
        """Tell whether a source has more than ``most``, or its /48 more than `SITE` times that."""
        own, *site = (self._counts.get(key, 0) for key in _both(source))
        return own > most or any(count > SITE * most for count in site)

    def __len__(self) -> int:
        return len(self._counts)


def _both(source: str) -> list[str]:
    site = site_key(source)
    return [source] if site is None else [source, site]


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Tell whether an address lies in one of the networks."""
    try:
        parsed = _plain(address.partition("%")[0])
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def client_address(
    peer: str, header: str, values: Sequence[str], trusted: Sequence[Network]
) -> str:
    """Return the address of who connects, as far as it is known for sure.

    ``peer`` is the other end of the TCP connection; ``values`` are all lines of the header, whose
    lower-case name is ``header``, in their order. They are ignored unless the peer is trusted.

    Raises:
        ForwardedError: a trusted proxy's part of them is no address.
    """
    if not values or not is_within(peer, trusted):
        return peer
    joined = ",".join(values)
    hops = _forwarded(joined) if header == "forwarded" else joined.split(",")
    client = peer
    for hop in reversed(hops):
        client = _host(hop.strip())
        if not is_within(client, trusted):
            break
    return client


def _plain(text: str) -> Address:
    parsed = ip_address(text)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def _host(text: str) -> str:
    """Return the address in ``192.0.2.1:80`` or ``[2001:db8::1]:80``; the port may be missing."""
    match = _HOST.fullmatch(text)
    try:
        return str(_plain(match[1] or match[2] if match else text))
    except ValueError as error:
        raise ForwardedError("a proxy names no address") from error


def _forwarded(text: str) -> list[str]:
    """Return whom each proxy names, in order of the header."""
    hops: list[str | None] = [None]
    position = 0
    while True:
        pair = _PAIR.match(text, position)
        # A quotation mark that somebody left open would swallow what the proxy appended.
        if pair is None:
            raise ForwardedError("not a Forwarded header")
        if pair[1].lower() == "for":
            if hops[-1] is not None:
                raise ForwardedError("a proxy names two clients")
            hops[-1] = pair[2] or pair[3]
        position = pair.end() + 1
        separator = text[pair.end() : position]
        if separator in {"", ","} and hops[-1] is None:
            raise ForwardedError("a proxy does not say for whom")
        if not separator:
            return [hop for hop in hops if hop is not None]
        if separator == ",":
            hops.append(None)
        elif separator != ";":
            raise ForwardedError("not a Forwarded header")
