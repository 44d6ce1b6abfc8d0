"""What an operator may watch (relay/README.md, Metrics): numbers by kind, never by whom.

No label holds a username, an address, a ticket or a token: all label values are fixed words of this
program. Everything happens in the relay's one loop, so counting needs no lock, which is most of
what the library's counters cost: they are plain numbers here, and the library writes them out.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from relay.services.mailbox import Stored
from relay.turn.counters import Counters, Drop

PREFIX: Final = "e2ecall_relay"
DONE: Final = "done"
FAULT: Final = "internal_error"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is so at one moment."""

    ready: bool
    storage: bool
    connections: int
    handshakes: int
    devices: int
    mailboxes: int
    unacknowledged: int
    connections_opened: int
    turned_away: int
    set_aside: int
    stored_bytes: int


class Metrics:
    """The counters of one relay process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self.registry.register(_Counted(self))
        self.requests: Final = Counter[tuple[str, str]]()
        self.seconds: Final = dict[str, Times]()
        self.envelopes: Final = Counter[Stored]()
        self.closings: Final = Counter[int]()
        self.deliveries = 0
        self.acknowledgements = 0
        self.storage_failures = 0

    def watch(self, gauges: Callable[[], Gauges], media: Callable[[], Counters]) -> None:
        """Read these whenever somebody asks."""
        self.registry.register(_Live(gauges, media))

    def request(self, kind: str, outcome: str, seconds: float) -> None:
        """Count a request: its type, and `DONE`, `FAULT` or the error's name."""
        # All labels are words of this program, so this stays small.
        self.requests[kind, outcome] += 1
        times = self.seconds.get(kind)
        if times is None:
            times = self.seconds[kind] = Times()
        times.add(seconds)

    def envelope(self, stored: Stored) -> None:
        """Count an envelope that came."""
        self.envelopes[stored] += 1

    def delivered(self, count: int) -> None:
        """Count envelopes that go to a client."""
        self.deliveries += count

    def acknowledged(self, count: int) -> None:
        """Count envelopes that a client has."""
        self.acknowledgements += count

    def closed(self, code: int) -> None:
        """Count a connection that ended; ``code`` is one of the relay's own."""
        self.closings[code] += 1

    def storage_failed(self) -> None:
        """Count a storage call that failed."""
        self.storage_failures += 1

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self.registry)


class Times:
    """How many took up to how long: the last of them longer than all of `SECONDS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class _Counted(Collector):
    """The figures of `Metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return what was counted so far."""
        counted = self._metrics
        requests = CounterMetricFamily(
            f"{PREFIX}_requests", "Requests by type and outcome.", labels=["type", "outcome"]
        )
        for (kind, outcome), count in counted.requests.items():
            requests.add_metric([kind, outcome], count)
        yield requests
        text = "Time from reading a request to its reply."
        seconds = HistogramMetricFamily(f"{PREFIX}_request_seconds", text, labels=["type"])
        bounds = [*map(str, SECONDS), "+Inf"]
        for kind, times in counted.seconds.items():
            buckets = list(zip(bounds, map(float, accumulate(times.counts)), strict=True))
            seconds.add_metric([kind], buckets, times.total)
        yield seconds
        came = {stored.name.lower(): count for stored, count in counted.envelopes.items()}
        text = "Envelopes that came, by what became of them."
        yield _counters("envelopes", text, "outcome", came)
        yield _counter("delivered", "Envelopes sent to clients.", counted.deliveries)
        text = "Envelopes that clients have."
        yield _counter("acknowledged", text, counted.acknowledgements)
        closed = {str(code): count for code, count in counted.closings.items()}
        yield _counters("closed", "Connections ended, by close code.", "code", closed)
        yield _counter("storage_failures", "Storage calls that failed.", counted.storage_failures)


class _Live(Collector):
    """Figures that others keep."""

    def __init__(self, gauges: Callable[[], Gauges], media: Callable[[], Counters]) -> None:
        self._gauges = gauges
        self._media = media

    def collect(self) -> Iterable[Metric]:
        """Return what is so now."""
        now = self._gauges()
        yield _gauge("ready", "1 while the relay takes connections.", now.ready)
        yield _gauge("storage_up", "1 while the storage works.", now.storage)
        yield _gauge("connections", "Signalling connections.", now.connections)
        yield _gauge("handshakes", "Handshakes under way.", now.handshakes)
        yield _gauge("devices", "Connections that are logged in.", now.devices)
        yield _gauge("mailboxes_read", "Mailboxes that somebody reads.", now.mailboxes)
        yield _gauge("unacknowledged", "Deliveries out and unacknowledged.", now.unacknowledged)
        yield _counter("connections_opened", "Connections so far.", now.connections_opened)
        yield _counter("turned_away", "Connections closed as they came.", now.turned_away)
        text = "Envelopes that are not delivered any more."
        yield _gauge("set_aside", text, now.set_aside)
        yield _gauge("stored_bytes", "Held at the last look, and come since.", now.stored_bytes)
        tasks = trio.lowlevel.current_statistics().tasks_living
        yield _gauge("tasks", "Tasks of the event loop.", tasks)
        yield from _of_media(self._media())


def _of_media(media: Counters) -> Iterable[Metric]:
    yield _gauge("media_allocations", "TURN allocations.", media.allocations)
    yield _gauge("media_connections", "TURN over TCP and TLS.", media.connections)
    ended = {"refused": media.connections_refused, "timed_out": media.connections_timed_out}
    yield _counters("media_connections_ended", "Connections that were closed.", "reason", ended)
    yield _counter("media_allocations_created", "Allocations so far.", media.allocations_created)
    yield _counter("media_forwarded", "Datagrams forwarded.", media.forwarded)
    yield _counter("media_worker_restarts", "Workers started anew.", media.worker_restarts)
    both = {"in": media.packets_in, "out": media.packets_out}
    yield _counters("media_packets", "Datagrams.", "direction", both)
    both = {"in": media.bytes_in, "out": media.bytes_out}
    yield _counters("media_bytes", "Bytes of datagrams.", "direction", both)
    refused = {
        "unauthenticated": media.unauthenticated,
        "stale_nonce": media.stale_nonces,
        "other": media.refused,
    }
    yield _counters("media_refused", "Error responses; 401 is unauthenticated.", "reason", refused)
    drops = {drop.value: media.drops[drop] for drop in Drop}
    yield _counters("media_drops", "Datagrams answered with nothing.", "reason", drops)
    batches = {str(2**size): count for size, count in enumerate(media.batches)}
    yield _counters("media_batches", "Wake-ups by datagrams received, at most.", "size", batches)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
