"""What an operator may watch (relay/README.md, Metrics): numbers by kind, never by whom.

No label holds a username, an address, a ticket or a token: all label values are fixed words of this
program. Counting needs no lock of ours; everything happens in the relay's one loop.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import trio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
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


class Metrics:
    """The counters of one relay process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._requests: Final = self._counter(
            "requests", "Requests by type and outcome.", "type", "outcome"
        )
        self._seconds: Final = Histogram(
            f"{PREFIX}_request_seconds",
            "Time from reading a request to its reply.",
            ["type"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._by_request: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._envelopes: Final = self._counter(
            "envelopes", "Envelopes that came, by what became of them.", "outcome"
        )
        self._delivered: Final = self._counter("delivered", "Envelopes sent to clients.")
        self._acknowledged: Final = self._counter("acknowledged", "Envelopes that clients have.")
        self._closed: Final = self._counter("closed", "Connections ended, by close code.", "code")
        self._storage_failures: Final = self._counter(
            "storage_failures", "Storage calls that failed."
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def watch(self, gauges: Callable[[], Gauges], media: Callable[[], Counters]) -> None:
        """Read these whenever somebody asks."""
        self.registry.register(_Live(gauges, media))

    def request(self, kind: str, outcome: str, seconds: float) -> None:
        """Count a request: its type, and `DONE`, `FAULT` or the error's name."""
        found = self._by_request.get((kind, outcome))
        if found is None:
            # All labels are words of this program, so this stays small.
            found = self._requests.labels(kind, outcome), self._seconds.labels(kind)
            self._by_request[kind, outcome] = found
        counter, histogram = found
        counter.inc()
        histogram.observe(seconds)

    def envelope(self, stored: Stored) -> None:
        """Count an envelope that came."""
        self._envelopes.labels(stored.name.lower()).inc()

    def delivered(self, count: int) -> None:
        """Count envelopes that go to a client."""
        self._delivered.inc(count)

    def acknowledged(self, count: int) -> None:
        """Count envelopes that a client has."""
        self._acknowledged.inc(count)

    def closed(self, code: int) -> None:
        """Count a connection that ended; ``code`` is one of the relay's own."""
        self._closed.labels(str(code)).inc()

    def storage_failed(self) -> None:
        """Count a storage call that failed."""
        self._storage_failures.inc()

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self.registry)


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
