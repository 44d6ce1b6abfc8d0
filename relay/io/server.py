"""A relay process (relay/README.md): opens everything, serves until told to stop, closes it.

Signalling and the TURN server run side by side in one trio loop. It parses no command line.
"""

import contextlib
import resource
import signal
import sys
import time
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import structlog
import trio

from relay.config import Config, addresses, host_port, join_host_port
from relay.errors import OperatorError, StorageError
from relay.io import turn
from relay.io.admin import Admin, open_socket_file
from relay.io.backends import open_backend
from relay.io.capture import Capture
from relay.io.drain import drain
from relay.io.node import Node, Quotas
from relay.io.operation import Operation, Orders, tell_trouble
from relay.io.signalling import PATH, Signalling, open_listener
from relay.io.state import admin_socket, data_directory, relay_key
from relay.io.storage import Storage
from relay.io.tls import Certificates
from relay.services.clock import ClockGuard
from relay.services.delivery import Readers
from relay.services.signatures import RelayKey
from relay.services.volume import Volume
from relay.wire.turn_servers import host_of

log = structlog.get_logger()

SWEEP_SECONDS: Final = 60.0
SWITCH_SECONDS: Final = 0.0005
"""For the thread that commits to get its turn from a busy event loop after it waited for the disk:
a tenth of Python's own (spec/decisions/0028)."""
PROBE_SECONDS: Final = 2.0
"""How often the storage is tried, for ``/readyz``."""
PROBE_PATIENCE: Final = 6.0
"""For a storage that does not say whether it works: within 10 s ``/readyz`` has to say that."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Where the relay listens, as clients write it."""

    signalling: str
    turn: str


@dataclass(frozen=True, slots=True)
class Options:
    """How this process differs from what the configuration says."""

    reread: Callable[[], Config]
    """Gives the configuration as it is now; raises `OperatorError`."""
    is_development: bool = False
    capture: Path | None = None


async def run_until_signal(
    config: Config, options: Options, announce: Callable[[Ready], None]
) -> None:
    """Serve until SIGTERM or SIGINT; see `run`."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        await run(config, options, announce, signals)


async def run(
    config: Config,
    options: Options,
    announce: Callable[[Ready], None],
    signals: AsyncIterable[int],
) -> None:
    """Serve until told to leave; ``announce`` is called once, when all listen.

    Raises:
        OperatorError: the relay cannot start with this configuration.
    """
    _allow_descriptors()
    sys.setswitchinterval(SWITCH_SECONDS)
    async with AsyncExitStack() as stack:
        stack.enter_context(_told_plainly())
        folder = stack.enter_context(data_directory(Path(config.relay.data_dir)))
        key = relay_key(folder)
        readers = Readers()
        storage = await stack.enter_async_context(open_backend(config, folder, readers, key))
        capture = None
        if options.capture is not None:
            capture = stack.enter_context(Capture(options.capture))
        certificates = _certificates(config)
        workers = turn.workers_of(config, is_captured=options.capture is not None)
        listeners = stack.enter_context(turn.open_listeners(config, certificates, workers=workers))
        doors = await _open_doors(stack, config)
        own_address = doors[0][1]
        media = turn.Media(config, per_address=not options.is_development)
        node = _node(config, options, key, storage, readers, capture, media)
        node.name = node.name or own_address
        ready = Ready(
            f"{'wss' if certificates else 'ws'}://{own_address}{PATH}",
            listeners.bound_url(),
        )
        node.turn_urls = config.turn.urls or listeners.urls(node.name)
        if (
            node.turn_urls and not config.turn.urls
        ):  # one server, at whatever addresses: the first is for everybody
            node.turn_own_host = host_of(node.turn_urls[0])
        async with trio.open_nursery() as nursery:
            signalling = Signalling(node)
            signalling.start(
                nursery,
                [listener for listener, _ in doors],
                certificates=certificates,
                origins=config.signalling.origins,
            )
            await nursery.start(partial(media.serve, listeners, capture=capture))
            orders = Orders()
            operation = Operation(
                node,
                signalling,
                config,
                storage=storage,
                certificates=certificates,
                orders=orders,
                reread=options.reread,
            )
            await _administer(nursery, stack, operation, config)
            nursery.start_soon(orders.obey, signals, operation.try_to_reload)
            nursery.start_soon(_sweep, node)
            nursery.start_soon(_watch, node, storage)
            node.is_ready = True
            announce(ready)
            if certificates is not None:
                tell_trouble(certificates)
            log.info("serving")
            await orders.drain.wait()
            await drain(node, signalling, orders, config.operation.drain_seconds)
            nursery.cancel_scope.cancel()


@contextlib.contextmanager
def _told_plainly() -> Iterator[None]:
    """Take an operator's error out of the groups in which nurseries raise it."""
    try:
        yield
    except BaseExceptionGroup as group:
        told, others = group.split(OperatorError)
        if told is None or others is not None:
            raise
        error: BaseException = told
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _open_doors(
    stack: AsyncExitStack, config: Config
) -> list[tuple[trio.SocketListener, str]]:
    """Return what listens for signalling, each with its address; the first is for the name."""
    doors = []
    for text in addresses(config.signalling.listen):
        host, port = host_port(text, "signalling.listen")
        listener, port = await open_listener(host, port)
        await stack.enter_async_context(listener)
        doors.append((listener, join_host_port(host, port)))
    return doors


async def _administer(
    nursery: trio.Nursery, stack: AsyncExitStack, operation: Operation, config: Config
) -> None:
    operation.node.metrics.watch(operation.gauges, operation.node.media)
    admin = Admin(operation)
    listener = stack.enter_context(open_socket_file(admin_socket(config)))
    await nursery.start(admin.serve_socket, listener)
    if config.operation.metrics_listen:
        host, port = host_port(config.operation.metrics_listen, "operation.metrics_listen")
        figures, _ = await open_listener(host, port)
        await nursery.start(admin.serve_metrics, figures)


def _node(
    config: Config,
    options: Options,
    key: RelayKey,
    storage: Storage,
    readers: Readers,
    capture: Capture | None,
    media: turn.Media,
) -> Node:
    per_address = not options.is_development
    return Node(
        name=config.relay.name,
        key=key,
        directory=storage.directory,
        mailbox=storage.mailbox,
        presence=storage.presence,
        bus=storage.bus,
        readers=readers,
        turn_secret=config.turn.secret.encode(),
        turn_urls=(),
        turn_own_host=config.turn.own_host,
        ticket_seconds=config.turn.ticket_seconds,
        abuse_contact=config.relay.abuse_contact,
        registration=config.relay.registration,
        limits=config.limits,
        quotas=Quotas.of(config.limits, storage, per_address=per_address),
        per_address=per_address,
        trusted_proxies=tuple(map(ip_network, config.signalling.trusted_proxies)),
        proxy_header=config.signalling.proxy_header,
        clock=time.time,
        capture=capture,
        media=media.core.counters.current,
        volume=Volume(config.limits.stored_bytes),
        limit_media=media.limit,
    )


def _certificates(config: Config) -> Certificates | None:
    if not config.tls.certificate:
        return None
    return Certificates(config.tls.certificate, config.tls.key)


def _allow_descriptors() -> None:
    """Use as many descriptors as this process may: the usual 1 024 are 1 000 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS has a hard limit that it refuses
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _sweep(node: Node) -> None:
    guard = ClockGuard()
    while True:
        await trio.sleep(SWEEP_SECONDS)
        try:
            await sweep_once(node, guard, trio.current_time())
        except StorageError as error:
            node.storage_failed(error)


async def sweep_once(node: Node, guard: ClockGuard, steady: float) -> None:
    """Forget what is out of date, if the clock of this node can be relied upon."""
    now = node.clock()
    is_steady = guard.is_steady(now, steady)
    node.quotas.forget(now, steady)
    await node.mailbox.keep(now, node.readers.boxes())
    # STORAGE-13 MUST: what was forgotten by a wrong clock does not come back with a right one.
    if is_steady and node.can_store:
        await node.mailbox.sweep(now)
    node.set_aside = await node.mailbox.count_set_aside()
    node.volume.counted(await node.directory.usage())


async def _watch(node: Node, storage: Storage) -> None:
    """Keep the node's readiness like the storage's (STORAGE-09)."""
    while True:
        try:
            with trio.move_on_after(PROBE_PATIENCE) as patience:
                await storage.probe()
            if patience.cancelled_caught:
                raise StorageError("the storage does not answer")
        except StorageError as error:
            if node.can_store:
                node.storage_failed(error)
            node.can_store = False
        else:
            if not node.can_store:
                # As loud as its failure: with the level "warning" the end is to be seen, too.
                log.warning("storage works again")
            node.can_store = True
        await trio.sleep(PROBE_SECONDS)
