"""Permissions: from which peer IP addresses an allocation takes data (RFC 8656 section 9).

Which peers exist at all is not decided here but by the ticket (`relay.turn.allocation`).
"""

from collections.abc import Collection, Iterator

from relay.turn.errors import ErrorCode, RefusedError


class Permissions:
    """The permissions of one allocation, each with its own expiry."""

    __slots__ = ("_expiry", "_limit")

    def __init__(self, limit: int) -> None:
        self._expiry: dict[bytes, float] = {}
        self._limit = limit

    def install(self, now: float, ips: Collection[bytes], lifetime: float) -> None:
        """Install or refresh permissions for all of ``ips``, or for none.

        A permission is never shortened.

        Raises:
            RefusedError: 508, the allocation has too many.
        """
        self.purge(now)
        if len(self._expiry.keys() | set(ips)) > self._limit:
            raise RefusedError(ErrorCode.INSUFFICIENT_CAPACITY)
        for ip in ips:
            self._expiry[ip] = max(self._expiry.get(ip, 0), now + lifetime)

    def allows(self, now: float, ip: bytes) -> bool:
        """Say whether data from and to this address may pass now."""
        return now < self._expiry.get(ip, 0)

    def purge(self, now: float) -> None:
        """Forget what has expired."""
        for ip in [ip for ip, expiry in self._expiry.items() if expiry <= now]:
            del self._expiry[ip]

    def deadlines(self) -> Iterator[float]:
        """Yield when each one expires."""
        return iter(self._expiry.values())

    def __len__(self) -> int:
        return len(self._expiry)
