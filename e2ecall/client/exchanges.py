"""The exchanges that callers broke off (spec/call.md, "Unfinished exchanges"), as they are stored.

What counts, and what is refused, is `e2ecall.protocol.exchange_guard`.
"""

from collections.abc import Callable

from e2ecall.client.services import Services
from e2ecall.io.store import Change, RecordKind
from e2ecall.protocol.exchange_guard import ExchangeGuard
from relay.wire.names import Address


class Exchanges:
    """The guards in the store of one client: one for each address, whatever device calls."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def guard(self, peer: Address) -> ExchangeGuard:
        """Return what is kept of the exchanges with ``peer``."""
        stored = self._services.store.get(RecordKind.GUARD, str(peer).encode())
        return ExchangeGuard.from_bytes(stored) if stored else ExchangeGuard()

    def count(self, peer: Address) -> int:
        """Return how many exchanges with ``peer`` are unfinished."""
        return self.guard(peer).count(self._services.clock())

    def check(self, peer: Address, call_id: bytes) -> None:
        """Refuse what `start` would refuse, and store nothing.

        Raises:
            RemoteProtocolError: as `ExchangeGuard.start`.
        """
        self.guard(peer).start(call_id, self._services.clock())

    async def start(self, peer: Address, call_id: bytes) -> None:
        """Store that an exchange begins, before its Ringing leaves (CALL-08).

        Raises:
            RemoteProtocolError: as `ExchangeGuard.start`.
        """
        await self._change(peer, lambda guard: guard.start(call_id, self._services.clock()))

    async def finish(self, peer: Address, call_id: bytes) -> None:
        """Store that the Reveal opened, or that no Ringing left."""
        await self._change(peer, lambda guard: guard.finish(call_id))

    async def _change(
        self, peer: Address, change: Callable[[ExchangeGuard], ExchangeGuard]
    ) -> None:
        """Store what ``change`` makes of the guard; raises what it raises.

        The end of one exchange and the beginning of the next must not undo each other.
        """
        async with self._services.account.lock:
            guard = change(self.guard(peer))
            record = Change(RecordKind.GUARD, str(peer).encode(), guard.to_bytes())
            await self._services.store.write([record])
