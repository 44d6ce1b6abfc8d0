"""A running relay as its operator sees it: phase, figures, reload (relay/README.md, Operation).

Says what is so and changes settings; `relay.io.server` runs things, `relay.io.admin` is asked.
"""

import os
import signal
import time
from collections.abc import AsyncIterable, Callable
from enum import StrEnum, unique
from typing import Annotated, Any, Final, TypeGuard

import msgspec
import structlog
import trio
from msgspec import Meta

from relay.config import Config, Registration
from relay.errors import OperatorError
from relay.io import logs
from relay.io.metrics import Gauges
from relay.io.node import Node, Quotas
from relay.io.signalling import Signalling
from relay.io.storage import Storage
from relay.io.tls import Certificates
from relay.services.mailbox import DeviceMailbox
from relay.wire.codes import code_hash, write_code
from relay.wire.limits import CODE_BYTES
from relay.wire.names import USERNAME

log = structlog.get_logger()

RELOADED: Final = ("limits.", "tls.", "operation.log_", "relay.registration", "relay.abuse_contact")
"""What `Operation.reload` puts into effect."""
DAY: Final = 86_400
MAX_CODES: Final = 1000
MAX_CODE_DAYS: Final = 366


@unique
class Phase(StrEnum):
    """What a relay is about."""

    SERVING = "serving"
    DRAINING = "draining"


class Orders:
    """What the operator told the process: to leave, and to leave at once."""

    def __init__(self) -> None:
        self.drain: Final = trio.Event()
        self.at_once: Final = trio.Event()

    def leave(self) -> None:
        """Drain; said twice, stop without waiting for calls."""
        if self.drain.is_set():
            self.at_once.set()
        self.drain.set()

    async def obey(self, signals: AsyncIterable[int], reload: Callable[[], None]) -> None:
        """Take orders from signals: SIGHUP reloads, all others mean to leave."""
        async for number in signals:
            if number == signal.SIGHUP:
                reload()
            else:
                self.leave()


class Operation:
    """A relay that runs."""

    def __init__(
        self,
        node: Node,
        signalling: Signalling,
        config: Config,
        *,
        storage: Storage,
        certificates: Certificates | None,
        orders: Orders,
        reread: Callable[[], Config],
    ) -> None:
        self.node: Final = node
        self.orders: Final = orders
        self._signalling = signalling
        self._started = self._config = config
        self._storage = storage
        self._certificates = certificates
        self._reread = reread
        self._since = time.monotonic()

    @property
    def phase(self) -> Phase:
        """What it is about."""
        return Phase.DRAINING if self.orders.drain.is_set() else Phase.SERVING

    def gauges(self) -> Gauges:
        """Return what is so now."""
        sessions = self._signalling.sessions
        return Gauges(
            ready=self.node.is_ready,
            storage=self.node.can_store,
            connections=len(sessions),
            handshakes=self._signalling.gate.handshakes,
            devices=sum(session.device is not None for session in sessions),
            mailboxes=sum(len(session.queue.mailboxes) for session in sessions),
            unacknowledged=sum(session.queue.unacknowledged for session in sessions),
            connections_opened=self.node.connections,
            turned_away=self._signalling.gate.turned_away,
            set_aside=self.node.set_aside,
            stored_bytes=self.node.volume.held,
        )

    def status(self) -> dict[str, Any]:
        """Return what a person wants to know, as plain values; it names no user."""
        media = self.node.media()
        return {
            "phase": self.phase.value,
            "relay": self.node.name,
            "uptime_seconds": int(time.monotonic() - self._since),
            "registration": self.node.registration,
            **msgspec.to_builtins(self.gauges()),
            "allocations": media.allocations,
            "forwarded": media.forwarded,
        }

    def set_registration(self, state: object) -> None:
        """Let everybody ("open"), who has a code ("invite") or nobody ("closed") register.

        It holds until the next reload.

        Raises:
            OperatorError: it is none of these words.
        """
        try:
            self.node.registration = msgspec.convert(state, Registration)
        except msgspec.ValidationError as error:
            raise OperatorError("the registration is open, invite or closed") from error

    async def invite(self, count: object, days: object) -> dict[str, Any]:
        """Return new registration codes: each makes one account, until it expires.

        Raises:
            OperatorError: too many, or for too long.
            StorageError: nobody knows whether they are good.
        """
        try:
            number = msgspec.convert(count, Annotated[int, Meta(ge=1, le=MAX_CODES)])
            lifetime = DAY * msgspec.convert(days, Annotated[int, Meta(ge=1, le=MAX_CODE_DAYS)])
        except msgspec.ValidationError as error:
            raise OperatorError(
                f"1 to {MAX_CODES} codes at once, for 1 to {MAX_CODE_DAYS} days"
            ) from error
        codes = [os.urandom(CODE_BYTES) for _ in range(number)]
        expires = int(self.node.clock()) + lifetime
        await self.node.directory.add_codes([code_hash(code) for code in codes], expires)
        return {"codes": [write_code(code) for code in codes], "expires": expires}

    async def totals(self) -> dict[str, int]:
        """Return how much there is of everything, and of whom nothing.

        Raises:
            StorageError: the database does not answer.
        """
        found: dict[str, int] = msgspec.to_builtins(await self.node.directory.totals())
        return found

    async def delete_account(self, username: object) -> None:
        """Remove an account as its owner could, and end its connections.

        Raises:
            OperatorError: there is no such account.
            StorageError: nobody knows whether it was removed; do it again.
        """
        account = await self.node.directory.account(username) if _is_name(username) else None
        if account is None:
            raise OperatorError("there is no such account", hint="give the name without @relay")
        await self.node.directory.delete(account.username)
        for device in account.device_list.devices:
            await self.node.presence.evict(DeviceMailbox(account.username, device.device_id))

    def reload(self) -> list[str]:
        """Read the configuration and the certificates anew.

        Certificates, limits, registration and the log's form take effect at once. Returns the keys
        that differ from those with which the relay started, and wait for a restart.

        Raises:
            OperatorError: the new configuration cannot be used; the old one stays in force.
        """
        new, old = self._reread(), self._config
        if self._certificates is not None and new.tls.certificate:
            self._certificates.reload(new.tls.certificate, new.tls.key)
            tell_trouble(self._certificates)
        node = self.node
        node.registration = new.relay.registration
        node.abuse_contact = new.relay.abuse_contact
        if new.limits != old.limits:
            node.limits = new.limits
            node.volume.set_bound(new.limits.stored_bytes)
            node.limit_media(new.limits)
            node.quotas = Quotas.of(new.limits, self._storage, per_address=node.per_address)
        logs.configure(new.operation)
        self._config = new
        waiting = _changed(self._started, new)
        log.info("configuration reloaded", needs_restart=waiting)
        return waiting

    def try_to_reload(self) -> None:
        """Reload; what is wrong goes to the log."""
        try:
            self.reload()
        except OperatorError as error:
            log.error("reload failed, nothing was changed", reason=str(error))  # noqa: TRY400
        except Exception as error:  # noqa: BLE001 - a signal must not end the calls that run
            log.error("reload failed", **logs.place(error))  # noqa: TRY400 - texts may hold names


def tell_trouble(certificates: Certificates) -> None:
    """Log that clients refuse the certificate, if they do: it is served all the same."""
    if certificates.current.trouble:
        log.warning("clients refuse the certificate", reason=certificates.current.trouble)


def _is_name(username: object) -> TypeGuard[str]:
    return isinstance(username, str) and USERNAME.fullmatch(username) is not None


def _changed(old: Config, new: Config) -> list[str]:
    """Return the keys that differ and are not put into effect by a reload."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    keys = [
        f"{section}.{key}"
        for section, table in after.items()
        for key, value in table.items()
        if before[section][key] != value
    ]
    was_plain = not old.tls.certificate or not new.tls.certificate
    return [
        key for key in keys if not key.startswith(RELOADED) or (was_plain and key[:4] == "tls.")
    ]
