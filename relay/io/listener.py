"""Accepting connections: who may begin a handshake (spec/wire.md, Connections).

Counts connections from the moment they are accepted: one that never completes TLS or WebSocket is
one of those that are bounded per source and in all. It reads no byte.
"""

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Never

import trio

from relay.errors import RefusedError
from relay.services.quota import Limiter, Rate
from relay.services.source import SITE, Tally, site_key, source_key

MAX_HANDSHAKES: Final = 4096
"""Handshakes under way at once, from all sources; each lasts seconds and costs some 20 KB."""

_NO_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_SECONDS: Final = 0.1
"""Until accepting is tried again where the process has no descriptor left."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one source may have: handshakes under way, and handshakes begun in a minute."""

    at_once: int
    per_minute: int


Admit = Callable[[str], Share | None]
"""``admit(peer)``: what this address may have; None: any number."""


class Gate:
    """The handshakes under way."""

    def __init__(self, admit: Admit, clock: Callable[[], float]) -> None:
        self._admit = admit
        self._clock = clock
        self._per_minute = 0
        self._rates = Limiter(Rate(1, 1))
        self._of_sites = Limiter(Rate(1, 1))
        self._sources = Tally()
        self.handshakes = 0
        self.turned_away = 0

    def enter(self, peer: str) -> bool:
        """Count one more handshake, if it is not one too many."""
        source, share = source_key(peer), self._admit(peer)
        self._sources.enter(source)
        too_many = share is not None and (
            self._sources.is_beyond(source, share.at_once) or not self._is_seldom(source, share)
        )
        if too_many or self.handshakes >= MAX_HANDSHAKES:
            self._sources.leave(source)
            self.turned_away += 1
            return False
        self.handshakes += 1
        return True

    def _is_seldom(self, source: str, share: Share) -> bool:
        """WIRE-46: tell whether a source did not begin too many lately, and count this one."""
        if share.per_minute != self._per_minute:
            self._per_minute = share.per_minute
            self._rates = Limiter(Rate(share.per_minute / 60, share.per_minute))
            of_site = SITE * share.per_minute
            self._of_sites = Limiter(Rate(of_site / 60, of_site))
        site = site_key(source)
        try:
            self._rates.take(source, self._clock())
            if site is not None:
                self._of_sites.take(site, self._clock())
        except RefusedError:
            return False
        return True

    def forget(self) -> None:
        """WIRE-62: drop the sources that may begin as many as any other again."""
        now = self._clock()
        self._rates.forget(now)
        self._of_sites.forget(now)

    def leave(self, peer: str) -> None:
        """Count one handshake less: it succeeded, or the connection is gone."""
        source = source_key(peer)
        self.handshakes -= 1
        self._sources.leave(source)


async def accept_all(
    listener: trio.SocketListener,
    gate: Gate,
    serve: Callable[[socket.socket, str], None],
) -> Never:
    """Hand each connection that may begin its handshake to ``serve``, with its address.

    Whoever serves it closes the socket and leaves the gate. Others are closed at once.
    """
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _NO_RESOURCES:
                raise
            await trio.sleep(_RETRY_SECONDS)
            continue
        # Ours from here on, without what trio adds to each call (spec/decisions/0028).
        sock = socket.socket(fileno=stream.socket.detach())
        try:
            peer = str(sock.getpeername()[0])
        except OSError:  # gone already
            sock.close()
            continue
        if gate.enter(peer):
            serve(sock, peer)
        else:
            sock.close()
