"""Allocations and the closed world they live in (RFC 8656 sections 3.2 and 7; spec/turn.md).

A relayed transport address is a random name for an allocation, never a socket: nothing outside
the table can be reached through it. Requests are read and answered elsewhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from relay.turn.attributes import TransportAddress
from relay.turn.bandwidth import Bandwidth
from relay.turn.channel import Channels
from relay.turn.deadlines import Deadlines
from relay.turn.errors import ErrorCode, RefusedError
from relay.turn.five_tuple import SHARES, FiveTuple, sources_of
from relay.turn.limits import Limits
from relay.turn.permission import Permissions

VIRTUAL_NETWORK: Final = 0xC612_0000
"""198.18.0.0/15, set aside for benchmarks (RFC 2544): nobody's address, never routed."""

VIRTUAL_HOSTS: Final = 1 << 17
FIRST_PORT: Final = 49_152
"""RFC 8656 section 7.2: ports from 49152 to 65535."""

_ATTEMPTS: Final = 16

GenerateBytes = Callable[[int], bytes]
"""Where randomness comes from: `secrets.token_bytes`, or a test's own."""


@dataclass(slots=True, eq=False)
class Allocation:
    """One client's allocation. ``expires`` is in Unix seconds.

    ``transaction_id`` and ``response`` are those of the Allocate that made it, for the case that
    the response was lost.
    """

    five_tuple: FiveTuple
    relayed: TransportAddress
    username: str
    ticket_id: bytes
    side: int
    expires: float
    permissions: Permissions
    channels: Channels
    bandwidth: Bandwidth
    transaction_id: bytes = b""
    response: bytes = b""

    def next_deadline(self) -> float:
        """Return when the next part of it expires."""
        return min((self.expires, *self.permissions.deadlines(), *self.channels.deadlines()))


class AllocationTable:
    """All allocations, by five-tuple, by relayed address and by ticket."""

    __slots__ = (
        "_by_five_tuple",
        "_by_relayed",
        "_by_source",
        "_by_ticket",
        "_deadlines",
        "_generate",
        "limits",
    )

    def __init__(self, limits: Limits, generate: GenerateBytes) -> None:
        self.limits = limits
        self._generate = generate
        self._by_five_tuple: dict[FiveTuple, Allocation] = {}
        self._by_relayed: dict[TransportAddress, Allocation] = {}
        self._by_ticket: dict[bytes, list[Allocation]] = {}
        self._by_source: dict[bytes, int] = {}
        self._deadlines: Deadlines[FiveTuple] = Deadlines()

    def __len__(self) -> int:
        return len(self._by_five_tuple)

    def __iter__(self) -> Iterator[Allocation]:
        return iter(self._by_five_tuple.values())

    def find(self, now: float, five_tuple: FiveTuple) -> Allocation | None:
        """Return the live allocation of a client."""
        return _live(now, self._by_five_tuple.get(five_tuple))

    def get(self, five_tuple: FiveTuple) -> Allocation | None:
        """Return the allocation of a client, live or not removed yet."""
        return self._by_five_tuple.get(five_tuple)

    def find_expired(self, now: float, five_tuple: FiveTuple) -> Allocation | None:
        """Return the client's allocation if it has expired and was not removed yet."""
        found = self._by_five_tuple.get(five_tuple)
        return found if found is not None and found.expires <= now else None

    def peer(self, now: float, ticket_id: bytes, relayed: TransportAddress) -> Allocation | None:
        """Return the live allocation behind a relayed address, if it is of this ticket."""
        found = _live(now, self._by_relayed.get(relayed))
        return found if found is not None and found.ticket_id == ticket_id else None

    def has_host(self, now: float, ticket_id: bytes, ip: bytes) -> bool:
        """Say whether a live allocation of this ticket has this relayed IP address."""
        return any(
            allocation.relayed.ip == ip and now < allocation.expires
            for allocation in self._by_ticket.get(ticket_id, ())
        )

    def create(
        self,
        now: float,
        five_tuple: FiveTuple,
        *,
        username: str,
        ticket_id: bytes,
        side: int,
        lifetime: float,
        even_port: bool = False,
    ) -> Allocation:
        """Add an allocation under a fresh relayed address; the five-tuple has none that is live.

        Raises:
            RefusedError: 486 where the ticket's side has its share, 508 where its source has it,
                or the table is full.
        """
        siblings = [a for a in self._by_ticket.get(ticket_id, ()) if a.side == side]
        if sum(now < a.expires for a in siblings) >= self.limits.allocations_per_side:
            raise RefusedError(ErrorCode.ALLOCATION_QUOTA_REACHED)
        sources = sources_of(five_tuple)
        if len(self) >= self.limits.allocations or self._have_their_share(sources):
            raise RefusedError(ErrorCode.INSUFFICIENT_CAPACITY)
        allocation = Allocation(
            five_tuple=five_tuple,
            relayed=self._free_address(even_port=even_port),
            username=username,
            ticket_id=ticket_id,
            side=side,
            expires=now + lifetime,
            permissions=Permissions(self.limits.peers_per_allocation),
            channels=Channels(self.limits.peers_per_allocation),
            bandwidth=Bandwidth(now, self.limits.bandwidth),
        )
        self._by_five_tuple[five_tuple] = allocation
        self._by_relayed[allocation.relayed] = allocation
        self._by_ticket.setdefault(ticket_id, []).append(allocation)
        for source in sources:
            self._by_source[source] = self._by_source.get(source, 0) + 1
        self.reschedule(allocation)
        return allocation

    def remove(self, allocation: Allocation) -> None:
        """Forget an allocation and everything in it."""
        del self._by_five_tuple[allocation.five_tuple]
        del self._by_relayed[allocation.relayed]
        siblings = self._by_ticket[allocation.ticket_id]
        siblings.remove(allocation)
        if not siblings:
            del self._by_ticket[allocation.ticket_id]
        for source in sources_of(allocation.five_tuple):
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]
        self._deadlines.remove(allocation.five_tuple)

    def reschedule(self, allocation: Allocation) -> None:
        """Note that a lifetime within the allocation has changed."""
        self._deadlines.set(allocation.five_tuple, allocation.next_deadline())

    def take_due(self, now: float) -> list[Allocation]:
        """Return the allocations in which something has expired, to be removed or rescheduled."""
        return [self._by_five_tuple[five_tuple] for five_tuple in self._deadlines.take_due(now)]

    def _have_their_share(self, sources: tuple[bytes, ...]) -> bool:
        most = self.limits.allocations_per_address
        return any(
            self._by_source.get(source, 0) >= share * most
            for source, share in zip(sources, SHARES, strict=False)
        )

    def _free_address(self, *, even_port: bool) -> TransportAddress:
        for _ in range(_ATTEMPTS):
            address = generate_relayed_address(self._generate, even_port=even_port)
            if address not in self._by_relayed:
                return address
        raise RefusedError(ErrorCode.INSUFFICIENT_CAPACITY)


def generate_relayed_address(generate: GenerateBytes, *, even_port: bool) -> TransportAddress:
    """Draw a virtual relayed transport address: one of 2^17 hosts and 2^14 ports."""
    drawn = int.from_bytes(generate(4)) & 0x7FFF_FFFF
    host = VIRTUAL_NETWORK | (drawn & (VIRTUAL_HOSTS - 1))
    port = FIRST_PORT | (drawn >> 17)
    return TransportAddress(host.to_bytes(4), port & ~1 if even_port else port)


def _live(now: float, allocation: Allocation | None) -> Allocation | None:
    return allocation if allocation is not None and now < allocation.expires else None
