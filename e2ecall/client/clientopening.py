"""A client from its opening to its end (README, "Embedding"): its parts, and what they share.

What a program does with one is `clientaccount`, `clientpeople` and `client` beside this.
"""

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import anyio
from anyio.abc import TaskGroup, TaskStatus

from e2ecall.client.account import Account
from e2ecall.client.calls import Calls
from e2ecall.client.history import History
from e2ecall.client.home import Home
from e2ecall.client.inbox import Inbox
from e2ecall.client.people import People
from e2ecall.client.services import Services, steady_seconds
from e2ecall.client.sessions import Sessions
from e2ecall.errors import LocalProtocolError
from e2ecall.io.endpoint import RelayEndpoint, tls_context
from e2ecall.io.store import Store
from e2ecall.secret import Secret
from relay.wire.errors import WireError
from relay.wire.names import Address


class OpenClient:
    """An open client; made by `open`. Its methods may be called from any task."""

    def __init__(
        self,
        store: Store,
        endpoint: RelayEndpoint,
        tls: ssl.SSLContext,
        clock: Callable[[], float] | None,
        tasks: TaskGroup,
    ) -> None:
        """Use `open`."""
        steady = clock or steady_seconds
        clock = clock or time.time
        account = Account(store, clock)
        sessions = Sessions(store, account, clock)
        self._services = Services(store, endpoint, tls, clock, steady, tasks, account, sessions)
        self._people = People(store, account, sessions)
        self._inbox = Inbox(store)
        self._history = History(store, sessions.contacts)
        self._calls = Calls(self._services, self._history, self._people.rules)
        self._home = Home(
            self._services,
            self._inbox,
            on_call=lambda opened, message: self._calls.take(opened, message, self._home),
            on_end=self._end_incoming,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | Path,
        *,
        passphrase: str | bytes | Secret,
        relay: str,
        ca: str | Path | None = None,
        connect: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> AsyncIterator[Self]:
        """Open the store at ``path``, creating it if there is none, and log in if registered.

        ``relay`` is the URL of the own relay, ``ca`` a PEM file of authorities to trust instead of
        the system's. Without ``connect`` the relay is left alone: what is stored can be read and
        managed, and nobody can be reached. ``clock`` is for tests: Unix seconds in the place of the
        system's clocks, also of the one that cannot be set, by which calls end. Leaving the block,
        also by cancellation, hangs up and releases everything.

        Raises:
            StoreError: wrong passphrase, damaged store, or in use.
            ConnectionFailedError: the relay cannot be reached, or its certificate is not valid.
            LocalProtocolError: ``relay`` is not a URL of a relay.
        """
        endpoint = RelayEndpoint.parse(relay)
        tls = tls_context(Path(ca) if ca else None)
        store = await Store.open(Path(path), as_secret(passphrase))
        try:
            failure: BaseException | None = None
            async with anyio.create_task_group() as outer:
                tasks: TaskGroup = await outer.start(_host)
                client = None
                try:
                    client = cls(store, endpoint, tls, clock, tasks)
                    if connect and client._services.account.is_registered:
                        await client._home.start()
                    yield client
                except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                    failure = error
                finally:
                    if client is not None:
                        await client._calls.close()
                    tasks.cancel_scope.cancel()
            if failure is not None:
                # As the program raised it: a task group would wrap it in an exception group.
                raise failure
        finally:
            await store.aclose()

    async def wait_closed(self) -> None:
        """Wait until the account's connection has ended for good, and raise why."""
        line = self._home.line
        await line.closed.wait()
        if line.failure is not None:
            raise line.failure

    def _end_incoming(self) -> None:
        self._calls.end_incoming()
        self._history.wake()

    def _parse(self, text: str) -> Address:
        """Read an address, where a bare name is one at the own relay; needs an account."""
        own = self._services.account.local.address
        try:
            address = Address.parse(text, own.relay)
        except WireError as error:
            raise LocalProtocolError(f"{text!r} is not an address: {error}") from error
        if address == own:
            raise LocalProtocolError("this is your own address")
        return address


async def _host(*, task_status: TaskStatus[TaskGroup]) -> None:
    """Run the client's own tasks out of reach of the program's cancellation.

    A cancelled program still hangs up: the client ends these tasks itself, after the goodbye.
    """
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as tasks:
            task_status.started(tasks)
            await anyio.sleep_forever()


def as_secret(passphrase: str | bytes | Secret) -> Secret:
    """Return a passphrase, however it was given, as a secret."""
    if isinstance(passphrase, Secret):
        return passphrase
    return Secret(passphrase.encode() if isinstance(passphrase, str) else passphrase)
