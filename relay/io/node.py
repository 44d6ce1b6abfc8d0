"""What all connections of one relay process share (spec/wire.md).

A value object: settings, keys, storage, and who is connected. It runs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from relay.config import LimitsSection, Registration
from relay.errors import StorageError
from relay.io.capture import Capture
from relay.io.metrics import Metrics
from relay.io.storage import Bus, Directory, Limiter, Mailbox, Presence, Storage
from relay.services.delivery import Readers
from relay.services.quota import Pace, Rate
from relay.services.signatures import RelayKey
from relay.services.source import SITE, Network, Tally, site_key
from relay.services.volume import Volume
from relay.turn.counters import Counters

log = structlog.get_logger()

HOUR = 3600
BURST_SECONDS = 10
"""A source may ask for so many seconds' worth at once: those who come back after a restart."""


class _OfSources:
    """Counts source addresses, and the networks of IPv6 that they lie in (WIRE-52)."""

    def __init__(self, sources: Limiter, sites: Limiter) -> None:
        self._sources = sources
        self._sites = sites

    async def take(self, key: str, now: float) -> None:
        """Count one use."""
        await self._sources.take(key, now)
        site = site_key(key)
        if site is not None:
            await self._sites.take(site, now)

    def forget(self, now: float) -> None:
        """Drop what is not needed any more."""
        self._sources.forget(now)
        self._sites.forget(now)


@dataclass(frozen=True, slots=True)
class Quotas:
    """The rates of this relay; None where ``--dev`` switches one off."""

    registrations: Limiter | None
    fetches: Limiter | None
    targets: Limiter | None
    """Bundles of one account, whichever strangers ask."""
    boxes: Limiter | None
    """Reply boxes opened, also once more."""
    sends: Limiter | None
    recipients: Limiter | None
    """Envelopes for one mailbox, whichever strangers send."""
    tokens: Limiter | None
    """Envelopes and bundles under one delivery token."""
    changes: Limiter | None
    """What an account changes about itself."""
    pace: Pace | None
    """Requests of one source, at this node: what comes too fast waits (WIRE-53)."""
    tickets: Limiter

    @classmethod
    def of(cls, limits: LimitsSection, storage: Storage, *, per_address: bool) -> "Quotas":
        """Build them from the configuration."""

        def limiter(name: str, uses: int, seconds: int) -> Limiter:
            return storage.limiter(name, Rate(uses / seconds, uses))

        def of_sources(name: str, uses: int, seconds: int = 60) -> Limiter | None:
            if not per_address:
                return None
            sites = limiter(f"{name} of sites", SITE * uses, seconds)
            return _OfSources(limiter(name, uses, seconds), sites)

        def of_strangers(name: str, uses: int, seconds: int = 60) -> Limiter | None:
            return limiter(name, uses, seconds) if per_address else None

        pace = limits.requests_per_address_and_second
        return cls(
            of_sources("registrations", limits.registrations_per_address_and_hour, HOUR),
            of_sources("fetches", limits.fetches_per_address_and_minute),
            of_strangers("targets", limits.fetches_per_account_and_minute),
            of_sources("boxes", limits.boxes_per_address_and_hour, HOUR),
            of_sources("sends", limits.sends_per_address_and_minute),
            of_strangers("recipients", limits.sends_per_mailbox_and_minute),
            of_strangers("tokens", limits.sends_per_token_and_minute),
            of_strangers("changes", limits.changes_per_account_and_minute),
            Pace(Rate(float(pace), BURST_SECONDS * pace)) if per_address else None,
            limiter("tickets", limits.tickets_per_account_and_hour, HOUR),
        )

    def forget(self, now: float, steady: float) -> None:
        """WIRE-62: drop who has all of a rate again, by the node's clock and by the steady one."""
        for limiter in (
            self.registrations,
            self.fetches,
            self.targets,
            self.boxes,
            self.sends,
            self.recipients,
            self.tokens,
            self.changes,
            self.tickets,
        ):
            if limiter is not None:
                limiter.forget(now)
        if self.pace is not None:
            self.pace.forget(steady)


@dataclass(slots=True)
class Node:
    """One relay process."""

    name: str
    key: RelayKey
    directory: Directory
    mailbox: Mailbox
    presence: Presence
    bus: Bus
    readers: Readers
    """The connections of this process that read mailboxes."""
    turn_secret: bytes
    turn_urls: tuple[str, ...]
    turn_own_host: str
    """The host among them that is this node, which its tickets name; empty: any."""
    ticket_seconds: int
    abuse_contact: str
    """Who takes reports; empty: nobody."""
    registration: Registration
    """Who may register."""
    limits: LimitsSection
    quotas: Quotas
    per_address: bool
    """Whether connections are counted per address; not with ``--dev``."""
    trusted_proxies: tuple[Network, ...]
    proxy_header: str
    """Who connects, where a trusted proxy says so."""
    clock: Callable[[], float]
    capture: Capture | None
    volume: Volume
    """How much is stored, and what that leaves room for."""
    limit_media: Callable[[LimitsSection], None]
    """Puts other bounds of the media relay into effect."""
    media: Callable[[], Counters]
    """What the media relay counted, up to date."""
    metrics: Metrics = field(default_factory=Metrics)
    sources: Tally = field(default_factory=Tally)
    """Open connections for each source address."""
    connections: int = 0
    """Connections so far; each gets its number."""
    set_aside: int = 0
    """Envelopes that were set aside, as of the last sweep (WIRE-38)."""
    is_ready: bool = False
    can_store: bool = True
    """Whether the storage worked when it was last looked at."""

    def storage_failed(self, error: StorageError) -> None:
        """Count and log that the storage did not do something."""
        self.metrics.storage_failed()
        log.error("storage failed", reason=str(error))
